# `vm run`: starts a guest with a throw-away disk, gives it one command, and passes on what it says.

# How long a guest may take until it says READY: some 20 times what it takes on a quiet machine.
BOOT_LIMIT=${CORACLE_VM_BOOT_LIMIT:-120}
# The room that the shared directories have. Always the same: it is in the snapshots.
SHARE_SIZE=4G

KERNEL=$DEFAULT_KERNEL INIT=minimal CGROUP=v2 MEMORY=2048 CPUS=1 TIME=1800 SNAPSHOT=yes REBOOT=no APPEND=
SHARES=()

vm_run() {
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
            --no-snapshot) SNAPSHOT=no; shift ;;
            --reboot) REBOOT=yes; shift ;;
            --*) machine_flag "$@"; shift 2 ;;
            *) break ;;
        esac
    done
    [ $# -gt 0 ] || set -- sh -c 'uname -r; mount -t cgroup,cgroup2; cat /sys/fs/cgroup/cgroup.controllers; free -m; nproc'
    vm_build --kernel "$KERNEL"
    in_guest "$(printf '%q ' "$@")"
}

machine_flag() {
    [ $# -ge 2 ] || die "$1 needs a value"
    case $1 in
        --kernel) kernel_suite "$2" >/dev/null; KERNEL=$2 ;;
        --init) INIT=$2 ;;
        --cgroup) CGROUP=$2 ;;
        --memory) MEMORY=$2 ;;
        --cpus) CPUS=$2 ;;
        --time) TIME=$2 ;;
        --share) SHARES+=("$2") ;;
        --append) APPEND=$2 SNAPSHOT=no ;;
        *) die "unknown flag $1" ;;
    esac
    case $INIT in minimal | systemd) ;; *) die "--init is minimal or systemd, not $INIT" ;; esac
    case $CGROUP in v1 | hybrid | v2) ;; *) die "--cgroup is v1, hybrid or v2, not $CGROUP" ;; esac
    [ "$INIT-$CGROUP" != systemd-v1 ] && [ "$INIT-$CGROUP" != systemd-hybrid ] ||
        die "--cgroup $CGROUP is for --init minimal: the guest's systemd knows only v2"
}

# Starts a guest, runs a line of shell, ends with its status. A guest that does not come up gets a second chance, a
# command never. With --reboot there is a second time, upon the disk that the first has left.
in_guest() {
    local attempt line=$1
    [ $REBOOT = no ] || line="export VM_BOOT=1; $1; status=\$?; sync; exit \$status"
    make_scratch
    make_share
    for attempt in 1 2; do
        start_guest && break
        say "the guest did not come up; the end of its console:"
        tail -n 20 "$SCRATCH/console" >&2 || true
        cat "$SCRATCH/qemu" >&2
        end_guest
        [ "$attempt" = 1 ] || die "gave up after two attempts"
        SNAPSHOT=no
    done
    [ "${CORACLE_VM_QUIET-}" ] || say "kernel $KERNEL with $INIT init and cgroup $CGROUP is up: $GUEST_UPTIME s by its own clock"
    command_guest "$line"
    if [ $REBOOT = yes ] && [ "$ANSWER" = 0 ]; then
        end_guest
        launch "$(accelerator)"
        wait_for READY "$BOOT_LIMIT" || die "the guest did not come up again"
        command_guest "export VM_BOOT=2; $1"
    fi
    # The guest has nothing to save, and has said everything.
    end_guest
    exit "$ANSWER"
}

# A directory for this run, which goes with it, as the guest does.
make_scratch() {
    [ -z "${SCRATCH-}" ] || return 0
    SCRATCH=$(mktemp -d)
    QEMU=
    READER=
    trap 'end_guest; rm -rf -- "$SCRATCH"' EXIT
    trap 'exit 130' INT TERM HUP
}

# What runs the guest: KVM where a tiny guest comes up with it, else emulation. Asked once.
accelerator() {
    if [ ! -e "$CACHE/accelerator" ]; then
        echo 'tcg,thread=multi' >"$CACHE/accelerator.part"
        if [ -w /dev/kvm ]; then
            ( trap end_guest EXIT; make_overlay "$CACHE/disk-$KERNEL" raw; launch kvm; wait_for READY 20 ) >/dev/null 2>&1 &&
                echo kvm >"$CACHE/accelerator.part"
        fi
        mv "$CACHE/accelerator.part" "$CACHE/accelerator"
    fi
    cat "$CACHE/accelerator"
}

# The shared directories as one read-only image, with the list of the places where the guest shows them.
make_share() {
    local share number=0 source dir=$SCRATCH/share
    mkdir "$dir"
    : >"$dir/paths"
    for share in "${SHARES[@]}"; do
        source=${share%%:*}
        [ -d "$source" ] || die "--share $source: no such directory"
        number=$((number + 1))
        cp -a "$source" "$dir/$number"
        echo "$number $(realpath -ms "${share#*:}")" >>"$dir/paths"
    done
    make_ext4 "$dir" "$dir.ext4" 8
    truncate -s "$SHARE_SIZE" "$dir.ext4"
    rm -rf "$dir"
}

# A guest that answers: resumed from the snapshot of such a machine, or booted.
start_guest() {
    local snapshot=$CACHE/snapshot-$KERNEL-$INIT-$CGROUP-$MEMORY-$CPUS accel stamp lock made=yes
    accel=$(accelerator)
    if [ "$SNAPSHOT" = no ]; then
        make_overlay "$CACHE/disk-$KERNEL" raw
        launch "$accel"
        wait_for READY "$BOOT_LIMIT" || return 1
    else
        stamp=$({ declare -f launch; echo "$accel $SHARE_SIZE"; cat "$CACHE/disk-$KERNEL.stamp"; } | sha256sum)
        # One at a time; the others wait and then find it there.
        exec {lock}>"$snapshot.lock"
        flock "$lock"
        [ "$(cat "$snapshot/stamp" 2>/dev/null)" = "$stamp" ] || make_snapshot "$snapshot" "$accel" "$stamp" || made=no
        exec {lock}>&-
        [ $made = yes ] || return 1
        make_overlay "$snapshot/disk" qcow2
        launch "$accel" -incoming "file:$snapshot/memory"
        wait_for READY "$BOOT_LIMIT" HELLO || { rm -f "$snapshot/stamp"; return 1; }
    fi
    GUEST_UPTIME=$ANSWER
}

# The memory and the disk of a guest that has just come up. It has no shared directories yet, but the device for them.
make_snapshot() {
    local dir=$1 accel=$2 stamp=$3
    rm -rf "$dir" "$dir.part"
    mkdir "$dir.part"
    make_overlay "$CACHE/disk-$KERNEL" raw
    launch "$accel"
    wait_for READY "$BOOT_LIMIT" || return 1
    printf 'migrate "file:%s"\nquit\n' "$dir.part/memory" >&"$MONITOR"
    wait "$QEMU"
    end_guest
    mv "$SCRATCH/overlay" "$dir.part/disk"
    echo "$stamp" >"$dir.part/stamp"
    finish_dir "$dir"
}

# The guest's disk: what it writes upon a disk of a format.
make_overlay() {
    rm -f "$SCRATCH/overlay"
    (qemu qemu-img create -q -f qcow2 -F "$2" -b "$1" "$SCRATCH/overlay")
}

# Starts qemu with an accelerator and further arguments.
launch() {
    local accel=$1 init=/sbin/vm-init image=$CACHE/kernel-$KERNEL/vmlinux port
    shift
    [ -e "$image" ] || image=$CACHE/kernel-$KERNEL/bzImage
    [ "$INIT" = minimal ] || init=/usr/lib/systemd/systemd
    rm -f "$SCRATCH/console"
    for port in control output monitor; do
        rm -f "$SCRATCH/$port".{in,out}
        mkfifo "$SCRATCH/$port".{in,out}
    done
    exec {CONTROL_IN}<>"$SCRATCH/control.in" {CONTROL_OUT}<>"$SCRATCH/control.out" {MONITOR}<>"$SCRATCH/monitor.in"
    cat "$SCRATCH/output.out" &
    READER=$!
    qemu qemu-system-x86_64 -L "$CACHE/qemu/usr/share/qemu" -L "$CACHE/qemu/usr/share/seabios" \
        -machine q35 -accel "$accel" -cpu max,la57=off -smp "$CPUS" -m "$MEMORY" \
        -nodefaults -no-user-config -display none -net none -no-reboot \
        -kernel "$image" -initrd "$CACHE/disk-$KERNEL.initramfs" \
        -append "console=ttyS0 8250.nr_uarts=4 quiet loglevel=4 panic=-1 mitigations=off random.trust_cpu=on \
systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 net.ifnames=0 vm_init=$init vm_cgroup=$CGROUP $APPEND" \
        -drive "if=none,id=root,format=qcow2,cache=unsafe,file=$SCRATCH/overlay" -device virtio-blk-pci,drive=root \
        -drive "if=none,id=share,format=raw,readonly=on,file=$SCRATCH/share.ext4" -device virtio-blk-pci,drive=share \
        -device virtio-rng-pci \
        -chardev "file,id=console,path=$SCRATCH/console" -serial chardev:console \
        -chardev "pipe,id=control,path=$SCRATCH/control" -serial chardev:control \
        -chardev "pipe,id=output,path=$SCRATCH/output" -serial chardev:output \
        -chardev "pipe,id=monitor,path=$SCRATCH/monitor" -mon chardev=monitor \
        "$@" </dev/null >"$SCRATCH/qemu" 2>&1 {CONTROL_IN}<&- {CONTROL_OUT}<&- {MONITOR}<&- &
    QEMU=$!
}

# Waits for a word on the control port for so many seconds. Its argument becomes ANSWER. A question is asked again and
# again: a guest whose memory is still being loaded does not hear it.
wait_for() {
    local word=$1 deadline=$((SECONDS + $2)) question=${3-} part line=
    while [ $SECONDS -lt $deadline ]; do
        if read -r -t 0.1 -u "$CONTROL_OUT" part; then
            line+=${part%$'\r'}
            ANSWER=${line#"$word "}
            [ "$line" = "$ANSWER" ] || return 0
            line=
        else
            # It may have stopped in the middle of a line.
            line+=$part
            kill -0 "$QEMU" 2>/dev/null || return 1
            [ -z "$question" ] || echo "$question" >&"$CONTROL_IN"
        fi
    done
    return 1
}

command_guest() {
    echo "RUN $EPOCHSECONDS $(printf '%s\n' "$1" | base64 -w 0)" >&"$CONTROL_IN"
    if ! wait_for EXIT "$TIME"; then
        say "no answer within $TIME s, or the guest died; the end of its console:"
        tail -n 20 "$SCRATCH/console" >&2
        exit 124
    fi
}

end_guest() {
    [ -z "$QEMU" ] || kill "$QEMU" 2>/dev/null || true
    [ -z "$QEMU" ] || wait "$QEMU" 2>/dev/null || true
    # The reader ends by itself when qemu has closed the port; if qemu never opened it, it needs help.
    if [ -n "$READER" ]; then
        : 1<>"$SCRATCH/output.out"
        wait "$READER" 2>/dev/null || true
    fi
    QEMU=
    READER=
}

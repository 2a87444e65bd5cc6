# `vm run`: boots a guest with a throw-away disk, gives it one command, and passes on what it says.

# How long a guest may take until it says READY: some 20 times what it takes on a quiet machine.
BOOT_LIMIT=${CORACLE_VM_BOOT_LIMIT:-120}

KERNEL=$DEFAULT_KERNEL INIT=minimal MEMORY=2048 CPUS=1 TIME=1800
SHARES=()

vm_run() {
    while [ $# -gt 0 ]; do
        case $1 in
            --) shift; break ;;
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
        --memory) MEMORY=$2 ;;
        --cpus) CPUS=$2 ;;
        --time) TIME=$2 ;;
        --share) SHARES+=("$2") ;;
        *) die "unknown flag $1" ;;
    esac
    case $INIT in minimal | systemd) ;; *) die "--init is minimal or systemd, not $INIT" ;; esac
}

# Boots, runs a line of shell, ends with its status. A guest that does not come up gets a second chance, a command never.
in_guest() {
    local line=$1 attempt accel
    make_scratch
    make_share "$SCRATCH/share"
    accel=$(accelerator)
    for attempt in 1 2; do
        boot "$accel" "$BOOT_LIMIT" && break
        say "the guest did not come up; the end of its console:"
        tail -n 20 "$SCRATCH/console" >&2 || true
        end_guest
        [ "$attempt" = 1 ] || die "gave up after two boots"
    done
    [ "${CORACLE_VM_QUIET-}" ] || say "kernel $KERNEL with $INIT init was up after $GUEST_UPTIME s (its own clock)"
    command_guest "$line"
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
            ( trap end_guest EXIT; boot kvm 20 ) >/dev/null 2>&1 && echo kvm >"$CACHE/accelerator.part"
        fi
        mv "$CACHE/accelerator.part" "$CACHE/accelerator"
    fi
    cat "$CACHE/accelerator"
}

# The shared directories as one read-only image, with the list of the places where the guest shows them.
make_share() {
    local share number=0 source place
    [ ${#SHARES[@]} -gt 0 ] || return 0
    mkdir "$1"
    for share in "${SHARES[@]}"; do
        source=${share%%:*}
        place=${share#*:}
        [ -d "$source" ] || die "--share $source: no such directory"
        number=$((number + 1))
        cp -a "$source" "$1/$number"
        echo "$number $(realpath -ms "$place")" >>"$1/paths"
    done
    make_ext4 "$1" "$1.ext4" 8
    rm -rf "$1"
}

# Starts a guest and waits until its agent answers.
boot() {
    local accel=$1 limit=$2 image init share=nothing-shared disks=()
    local disk=$SCRATCH/overlay
    image=$CACHE/kernel-$KERNEL/vmlinux
    [ -e "$image" ] || image=$CACHE/kernel-$KERNEL/bzImage
    init=/sbin/vm-init
    [ "$INIT" = minimal ] || init=/usr/lib/systemd/systemd
    rm -f "$SCRATCH"/{control.in,control.out,output.in,output.out,console,overlay}
    mkfifo "$SCRATCH"/{control,output}.{in,out}
    (qemu qemu-img create -q -f qcow2 -F raw -b "$CACHE/disk-$KERNEL" "$disk")
    if [ -e "$SCRATCH/share.ext4" ]; then
        share=
        disks=(-drive "if=none,id=share,format=raw,readonly=on,file=$SCRATCH/share.ext4" -device virtio-blk-pci,drive=share)
    fi
    exec {CONTROL_IN}<>"$SCRATCH/control.in" {CONTROL_OUT}<>"$SCRATCH/control.out"
    cat "$SCRATCH/output.out" &
    READER=$!
    qemu qemu-system-x86_64 -L "$CACHE/qemu/usr/share/qemu" -L "$CACHE/qemu/usr/share/seabios" \
        -machine q35 -accel "$accel" -cpu max,la57=off -smp "$CPUS" -m "$MEMORY" \
        -nodefaults -no-user-config -display none -net none -no-reboot \
        -kernel "$image" \
        -append "console=ttyS0 8250.nr_uarts=4 root=/dev/nvme0n1 rootfstype=ext4 ro rootwait init=$init quiet loglevel=4 panic=-1 \
mitigations=off random.trust_cpu=on systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 net.ifnames=0 $share" \
        -drive "if=none,id=root,format=qcow2,cache=unsafe,file=$disk" -device nvme,drive=root,serial=root \
        "${disks[@]}" -device virtio-rng-pci \
        -chardev "file,id=console,path=$SCRATCH/console" -serial chardev:console \
        -chardev "pipe,id=control,path=$SCRATCH/control" -serial chardev:control \
        -chardev "pipe,id=output,path=$SCRATCH/output" -serial chardev:output \
        </dev/null >"$SCRATCH/qemu" 2>&1 {CONTROL_IN}<&- {CONTROL_OUT}<&- &
    QEMU=$!
    wait_for READY "$limit" || { cat "$SCRATCH/qemu" >&2; return 1; }
    GUEST_UPTIME=$ANSWER
}

# Waits for a word on the control port. Its argument becomes ANSWER.
wait_for() {
    local word deadline=$((SECONDS + $2))
    while [ $SECONDS -lt $deadline ]; do
        if read -r -t 1 -u "$CONTROL_OUT" word ANSWER; then
            [ "$word" != "$1" ] || return 0
        elif ! kill -0 "$QEMU" 2>/dev/null; then
            return 1
        fi
    done
    return 1
}

command_guest() {
    echo "RUN $(printf '%s\n' "$1" | base64 -w 0)" >&"$CONTROL_IN"
    if ! wait_for EXIT "$TIME"; then
        say "no answer within $TIME s, or the guest died; the end of its console:"
        tail -n 20 "$SCRATCH/console" >&2
        exit 124
    fi
    local status=${ANSWER%$'\r'} _
    # The reader has everything when qemu, which powers off now, has closed the port.
    for _ in $(seq 300); do
        kill -0 "$QEMU" 2>/dev/null || break
        sleep 0.1
    done
    exit "$status"
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

# `vm build`: qemu, the guest's root and its kernels, each made once and kept in the cache.

MIRROR=${CORACLE_VM_MIRROR:-http://deb.debian.org/debian}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# What the guest has besides Debian's essential packages.
PACKAGES="
    systemd systemd-sysv dbus dbus-user-session libpam-systemd
    busybox-static crun runc uidmap criu
    podman buildah containerd conmon netavark aardvark-dns nftables passt fuse-overlayfs catatonit skopeo umoci jq
    docker-registry apache2-utils openssl containernetworking-plugins curl iptables socat attr libcap2-bin zstd
    iproute2 kmod procps strace util-linux apparmor secilc"

vm_build() {
    local kernels=()
    while [ $# -gt 0 ]; do
        case $1 in
            --kernel) kernel_suite "$2" >/dev/null; kernels+=("$2"); shift 2 ;;
            --all) mapfile -t kernels < <(kernel_table | awk '{ print $1 }'); shift ;;
            *) die "build: unknown flag $1" ;;
        esac
    done
    [ ${#kernels[@]} -gt 0 ] || kernels=("$DEFAULT_KERNEL")
    mkdir -p "$CACHE"
    # One build at a time; the others wait and then find everything there.
    exec {build_lock}>"$CACHE/lock"
    flock "$build_lock"
    need_tools
    [ -d "$CACHE/qemu" ] || build_qemu
    [ "$(cat "$CACHE/rootfs.stamp" 2>/dev/null)" = "$(rootfs_stamp)" ] || build_rootfs
    local kernel
    for kernel in "${kernels[@]}"; do
        [ -d "$CACHE/kernel-$kernel" ] || build_kernel "$kernel"
        [ "$(cat "$CACHE/disk-$kernel.stamp" 2>/dev/null)" = "$(disk_stamp)" ] || build_disk "$kernel"
    done
    exec {build_lock}>&-
}

need_tools() {
    local missing=() tool
    for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs dpkg-deb:dpkg; do
        PATH=$PATH:/sbin:/usr/sbin command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
    done
    [ -e "$KEYRING" ] || missing+=(debian-archive-keyring)
    [ "$(id -u)" = 0 ] || die "build: root is needed to make the guest's image"
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

debian_source() { echo "deb [signed-by=$KEYRING check-valid-until=no] $MIRROR $1 main"; }

# The archive is there, for apt with this machine's proxies. What already lies in the cache needs no archive.
need_archive() {
    [ -z "${ARCHIVE_ANSWERS-}" ] || return 0
    local file
    file=$(mktemp)
    if ! /usr/lib/apt/apt-helper -qq download-file "$MIRROR/dists/trixie/Release" "$file" >/dev/null 2>&1; then
        rm -f "$file"
        say "$MIRROR does not answer, and something has to be built from it"
        exit 75
    fi
    rm -f "$file"
    ARCHIVE_ANSWERS=yes
}

build_qemu() {
    need_archive
    say "unpacking qemu"
    rm -rf "$CACHE/qemu.part"
    gently mmdebstrap --quiet --variant=extract --mode=root --include=qemu-system-x86,qemu-utils,seabios \
        trixie "$CACHE/qemu.part" "$(debian_source trixie)"
    finish_dir "$CACHE/qemu"
}

# What the guest's root and the disks are made of: they are made anew when that has changed.
rootfs_stamp() { { echo "$PACKAGES"; declare -f build_rootfs; } | sha256sum; }
disk_stamp() { { rootfs_stamp; declare -f build_disk make_initramfs; cat "$HERE"/guest/*; } | sha256sum; }

build_rootfs() {
    need_archive
    say "making the guest's root (Debian trixie)"
    local root=$CACHE/rootfs.part
    rm -rf "$root"
    # shellcheck disable=SC2086 # a list of words
    gently mmdebstrap --quiet --variant=minbase --mode=root --include="$(echo $PACKAGES | tr ' ' ,)" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        trixie "$root" "$(debian_source trixie)"
    chroot "$root" systemctl --quiet set-default multi-user.target
    # What a test machine without hardware, network or people has no use for, and what takes long when emulated.
    chroot "$root" systemctl --quiet mask systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
        systemd-udevd-kernel.socket systemd-hwdb-update.service systemd-update-utmp.service systemd-random-seed.service \
        systemd-journal-flush.service systemd-timesyncd.service systemd-binfmt.service systemd-firstboot.service \
        systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-tpm2-setup.service systemd-tpm2-setup-early.service \
        serial-getty@ttyS0.service getty@tty1.service getty.target apt-daily.timer apt-daily-upgrade.timer \
        apparmor.service dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer \
        systemd-tmpfiles-clean.timer tmp.mount modprobe@drm.service modprobe@efi_pstore.service \
        containerd.service podman.socket podman.service podman-restart.service podman-auto-update.timer \
        podman-clean-transient.service 2>/dev/null
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    echo vm >"$root/etc/hostname"
    printf '127.0.0.1 localhost vm\n' >"$root/etc/hosts"
    printf '/dev/vda / ext4 noatime 0 0\n' >"$root/etc/fstab"
    chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash tester
    chroot "$root" passwd --quiet --delete root
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/usr/lib/modules
    finish_dir "$CACHE/rootfs"
    rootfs_stamp >"$CACHE/rootfs.stamp"
}

# A kernel's packages, fetched by an apt that knows nothing of the host's.
build_kernel() {
    local kernel=$1 suite part=$CACHE/kernel-$1.part
    suite=$(kernel_suite "$kernel")
    need_archive
    say "fetching kernel $kernel (Debian $suite)"
    rm -rf "$part"
    mkdir -p "$part"/apt/{lists/partial,cache/archives/partial,etc} "$part"/{debs,tree}
    debian_source "$suite" >"$part/apt/etc/sources.list"
    : >"$part/apt/status"
    cat >"$part/apt/etc/apt.conf" <<END
Dir "$part/apt";
Dir::State "$part/apt";
Dir::State::status "$part/apt/status";
Dir::Cache "$part/apt/cache";
Dir::Etc "$part/apt/etc";
Dir::Etc::sourcelist "$part/apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "root";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
END
    export APT_CONFIG=$part/apt/etc/apt.conf
    apt-get -qq update
    # The package of the kernel itself, and since 7.x the ones it is split into.
    local packages
    packages=$(apt-cache depends --recurse --important linux-image-cloud-amd64 2>/dev/null |
        grep -E '^linux-(image|binary|modules|base)-[0-9].*cloud-amd64' | grep -v unsigned | sort -u)
    # shellcheck disable=SC2086 # a list of words
    (cd "$part/debs" && apt-get -qq download $packages)
    unset APT_CONFIG
    local deb
    for deb in "$part"/debs/*.deb; do dpkg-deb --extract "$deb" "$part/tree"; done

    local image release modules
    image=$(find "$part/tree" \( -name 'vmlinuz*' -o -name bzImage \) -type f | head -n 1)
    [ -n "$image" ] || die "no kernel image in: $packages"
    mv "$image" "$part/bzImage"
    modules=$(find "$part/tree" -path '*/lib/modules/*' -prune -type d | head -n 1)
    release=${modules##*/}
    mkdir -p "$part/modules"
    mv "$modules" "$part/modules/$release"
    find "$part/modules" -name '*.ko.xz' -exec xz -d {} +
    find "$part/modules" -name '*.ko.zst' -exec zstd -dq --rm {} +
    unpack_kernel "$part/bzImage" "$part/vmlinux" || rm -f "$part/vmlinux"
    echo "$release" >"$part/release"
    rm -rf "$part"/{apt,debs,tree}
    finish_dir "$CACHE/kernel-$kernel"
}

# Takes the kernel out of its self-extracting image: unpacking it under emulation takes most of a second.
unpack_kernel() {
    local image=$1 out=$2 magic tool position
    while read -r magic tool; do
        for position in $(LC_ALL=C grep -aboP "$magic" "$image" | cut -d: -f1); do
            tail -c +"$((position + 1))" "$image" | $tool >"$out" 2>/dev/null || true
            [ "$(head -c 4 "$out" | tail -c 3)" = ELF ] && return 0
        done
    done <<'END'
\x28\xb5\x2f\xfd zstd -dcq
\xfd7zXZ\x00 xz -dcq
\x1f\x8b\x08 gzip -dcq
\x02!L\x18 lz4 -dcq
END
    return 1
}

# The disk: the guest's root with this kernel's modules and the agent, as an ext4 image without a journal.
build_disk() {
    local kernel=$1 disk=$CACHE/disk-$1 release tree
    say "making the disk for kernel $kernel"
    release=$(cat "$CACHE/kernel-$kernel/release")
    tree=$CACHE/tree-$kernel.part
    rm -rf "$tree" "$disk.part"
    cp -al "$CACHE/rootfs" "$tree"
    mkdir -p "$tree/usr/lib/modules"
    cp -al "$CACHE/kernel-$kernel/modules/$release" "$tree/usr/lib/modules/"
    chroot "$tree" depmod "$release"
    install -m 755 "$HERE/guest/init" "$tree/sbin/vm-init"
    install -m 755 "$HERE/guest/agent" "$tree/usr/sbin/vm-agent"
    install -m 644 "$HERE/guest/vm-agent.service" "$tree/etc/systemd/system/"
    ln -s ../vm-agent.service "$tree/etc/systemd/system/multi-user.target.wants/"
    cp "$HERE/guest/selinux.cil" "$tree/tmp/"
    # Of the version that the oldest kernel knows.
    chroot "$tree" secilc --policyvers=33 --output=/etc/selinux.policy --filecontext=/dev/null /tmp/selinux.cil
    make_initramfs "$tree" "$release" "$disk.initramfs"
    make_ext4 "$tree" "$disk.part" 2048
    rm -rf "$tree"
    mv "$disk.part" "$disk"
    disk_stamp >"$disk.stamp"
}

# What the kernel starts with: the modules for the root disk (virtio can be saved in a snapshot, the NVMe that these
# kernels have built in cannot), and the program that loads them.
make_initramfs() {
    local tree=$1 release=$2 out=$3 dir=$1.initramfs number=100 kind module
    rm -rf "$dir"
    mkdir -p "$dir"/{bin,dev,modules,root}
    cp "$tree/usr/bin/busybox" "$dir/bin/"
    install -m 755 "$HERE/guest/initramfs" "$dir/init"
    while read -r kind module _; do
        [ "$kind" = insmod ] || continue
        number=$((number + 1))
        cp "$tree/$module" "$dir/modules/$number"
    done < <(chroot "$tree" modprobe --set-version "$release" --show-depends -a virtio_pci virtio_blk | awk '!seen[$0]++')
    (cd "$dir" && find . | "$tree/usr/bin/busybox" cpio -o -H newc) >"$out" 2>/dev/null
    rm -rf "$dir"
}

# An ext4 image of a directory with so many MiB of room.
make_ext4() {
    local size
    size=$(($(du -sm "$1" | cut -f1) * 11 / 10 + $3))
    truncate -s "${size}M" "$2"
    PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -m 0 -d "$1" "$2"
}

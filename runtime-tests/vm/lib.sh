# What the other files share.

say() { echo "vm: $*" >&2; }
die() { say "$*"; exit 125; }

# Runs the rest of the command at low priority: the machine is shared.
gently() { nice -n 5 "$@"; }

kernel_table() { sed 's/#.*//; /^ *$/d' "$HERE/kernels"; }

# The Debian suite that has this kernel.
kernel_suite() {
    kernel_table | awk -v version="$1" '$1 == version { print $2; found = 1 } END { exit !found }' ||
        die "there is no kernel $1: $(kernel_table | awk '{ print $1 }' | paste -sd ' ')"
}

# qemu's programs come from Debian 13, unpacked and not installed: its own loader starts them.
qemu() {
    local root=$CACHE/qemu program=$1
    shift
    local lib=$root/usr/lib/x86_64-linux-gnu
    QEMU_MODULE_DIR=$lib/qemu exec nice -n 5 "$lib/ld-linux-x86-64.so.2" --library-path "$lib:$root/lib/x86_64-linux-gnu" \
        "$root/usr/bin/$program" "$@"
}

# A directory that becomes `$1` only when it is complete.
finish_dir() {
    rm -rf -- "$1"
    mv -- "$1.part" "$1"
}

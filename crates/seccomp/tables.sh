#!/bin/sh
# Writes src/syscalls/table.rs from the kernel's own headers.
#
#   apt-get download linux-libc-dev && dpkg -x linux-libc-dev_*.deb root && ./tables.sh root
#
# Debian's linux-libc-dev (6.12 and later, architecture "all") carries the headers of every architecture in
# usr/lib/linux/uapi. Take it from sid for the newest names: a name that is missing here is skipped in profiles.
set -eu
root=${1:?usage: tables.sh DIRECTORY-OF-THE-UNPACKED-linux-libc-dev}
uapi=$root/usr/lib/linux/uapi
version=$(awk '$2 == "LINUX_VERSION_MAJOR" { a = $3 } $2 == "LINUX_VERSION_PATCHLEVEL" { b = $3 } END { print a "." b }' \
    "$root/usr/include/linux/version.h")
out=$(dirname "$0")/src/syscalls/table.rs

# "name number" for each system call of a header. The bases (x32's bit, arm's 0) are left out; arm's private calls,
# 0xf0000 and up, are written as 0xf000 and up so that all numbers fit into 16 bits.
numbers() {
    sed -nE \
        -e 's/^#define[[:space:]]+__NR_([a-z0-9_]+)[[:space:]]+\(?(__[A-Z0-9_]+[[:space:]]*\+[[:space:]]*)?([0-9]+)\)?$/\1 \3/p' \
        -e 's/^#define[[:space:]]+__NR_([a-z0-9_]+)[[:space:]]+__NR_([a-z0-9_]+)$/\1 =\2/p' \
        -e 's/^#define[[:space:]]+__ARM_NR_([a-z0-9_]+)[[:space:]]+\(__ARM_NR_BASE\+([0-9]+)\)$/\1 +\2/p' "$@"
}

{
    numbers "$uapi/x86/asm/unistd_64.h" | sed 's/^/0 /'
    numbers "$uapi/x86/asm/unistd_32.h" | sed 's/^/1 /'
    numbers "$uapi/x86/asm/unistd_x32.h" | sed 's/^/2 /'
    numbers "$uapi/arm64/asm/unistd_64.h" | sed 's/^/3 /'
    numbers "$uapi/arm/asm/unistd-eabi.h" "$uapi/arm/asm/unistd.h" | sed 's/^/4 /'
    numbers "$uapi/riscv/asm/unistd_64.h" "$uapi/riscv/asm/unistd.h" | sed 's/^/5 /'
} | awk '
    $3 ~ /^=/ { $3 = number[$1, substr($3, 2)] }
    $3 ~ /^\+/ { $3 = 61440 + substr($3, 2) }
    $3 != "" { number[$1, $2] = $3; names[$2] = 1 }
    END {
        for (name in names) {
            printf "    (\"%s\", [", name
            for (abi = 0; abi < 6; abi++)
                printf "%s%s", (abi, name) in number ? number[abi, name] : "NONE", abi < 5 ? ", " : "]),\n"
        }
    }' | LC_ALL=C sort -t'"' -k2,2 > "$out.rows"

{
    echo "// Written by tables.sh from the headers of Linux $version; do not edit."
    echo
    echo "use super::{NONE, Row};"
    echo
    echo "/// Every system call of the six ABIs, sorted by name: x86_64, x86, x32, aarch64, arm, riscv64."
    echo "#[rustfmt::skip]"
    echo "pub(super) const ROWS: [Row; $(wc -l < "$out.rows")] = ["
    cat "$out.rows"
    echo "];"
} > "$out"
rm "$out.rows"

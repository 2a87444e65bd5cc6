#!/bin/sh
# Unpacks containerd of a Debian suite, such as trixie (1.7) or sid (2.1), without installing it, and prints the directory of its
# programs: CONTAINERD=$(runtime-tests/fetch-containerd.sh trixie) cargo test -p cri-tests
set -eu

suite=${1:?usage: fetch-containerd.sh SUITE}
mirror=${CORACLE_VM_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle-containerd
root=$cache/$suite

if [ ! -d "$root" ]; then
    mkdir -p "$cache"
    rm -rf "$root.part"
    mmdebstrap --quiet --variant=extract --mode=root --include=containerd "$suite" "$root.part" \
        "deb [signed-by=$keyring check-valid-until=no] $mirror $suite main" >&2
    mv "$root.part" "$root"
fi
echo "$root/usr/bin"

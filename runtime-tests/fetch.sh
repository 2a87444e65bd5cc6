#!/bin/sh
# fetch.sh SUITE PACKAGE…: unpacks packages of a Debian suite, such as trixie or sid, and what they depend on, without installing them,
# and prints the directory. Made at first use and kept in the cache. Status 75: it has to be made, and Debian's archive does not answer.
#
#   CONTAINERD=$(runtime-tests/fetch.sh sid containerd)/usr/bin cargo test -p cri-tests
set -eu

suite=${1:?usage: fetch.sh SUITE PACKAGE…}
shift
packages=$(echo "$@" | tr ' ' ,)
mirror=${CORACLE_VM_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle-packages
root=$cache/$suite-$packages

mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9
if [ ! -d "$root" ]; then
    rm -rf "$root.part"
    mmdebstrap --quiet --variant=extract --mode=root --include="$packages" "$suite" "$root.part" \
        "deb [signed-by=$keyring check-valid-until=no] $mirror $suite main" >&2 || {
        rm -rf "$root.part"
        echo "fetch: $packages of $suite cannot be had from $mirror" >&2
        exit 75
    }
    # Whoever binds these libraries over the machine's binds their index as well.
    ldconfig -r "$root.part" 2> /dev/null
    mv "$root.part" "$root"
fi
echo "$root"

#!/bin/sh
# chroot.sh SUITE: prints the directory of a bare Debian of that suite with podman, made at first use and kept in the cache
# ($CORACLE_CHROOTS, or ~/.cache/coracle-chroots). Status 75: it has to be made, and Debian's archive does not answer.
set -eu

suite=$1
packages=busybox-static,ca-certificates,conmon,netavark,podman
mirror=http://deb.debian.org/debian
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cache=${CORACLE_CHROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle-chroots}
chroot=$cache/$suite-$(echo "$packages" | md5sum | cut -c 1-8)

mkdir -p "$cache"
exec 9> "$cache/$suite.lock"
flock 9
if [ ! -d "$chroot" ]; then
    probe=$(mktemp)
    /usr/lib/apt/apt-helper -qq download-file "$mirror/dists/$suite/Release" "$probe" > /dev/null 2>&1 || {
        rm -f "$probe"
        echo "chroot: $mirror does not answer" >&2
        exit 75
    }
    rm -rf "$probe" "$chroot.part"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --aptopt='Apt::Install-Recommends "false"' "$suite" "$chroot.part" \
        "deb [signed-by=$keyring check-valid-until=no] $mirror $suite main" >&2
    mv "$chroot.part" "$chroot"
fi
echo "$chroot"

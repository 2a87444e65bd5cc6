#!/bin/sh
# Brings what building and testing need and this machine lacks: Debian or Ubuntu packages, and Rust's musl target.
set -eu

packages="
    apache2-utils attr buildah busybox-static catatonit conmon containerd containernetworking-plugins crun curl
    debian-archive-keyring docker-registry docker.io e2fsprogs g++ gcc iproute2 iptables jq mmdebstrap musl-tools netavark
    nftables openssl passt podman procps protobuf-compiler runc skopeo socat strace uidmap umoci util-linux"

command -v cargo >/dev/null || { echo "setup: a Rust toolchain is needed: see https://rustup.rs" >&2; exit 1; }

# shellcheck disable=SC2086 # a list of words
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p')
missing=
for package in $packages; do
    echo "$installed" | grep -qx "$package" || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "setup: root is needed once to install$missing: run \`sudo apt-get install$missing\`" >&2
        exit 1
    fi
    echo "setup: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    apt-get -qq install --yes --no-install-recommends $missing >/dev/null
fi

target=$(uname -m)-unknown-linux-musl
libdir=$(rustc --print target-libdir --target "$target" 2>/dev/null || true)
if [ ! -d "$libdir" ]; then
    echo "setup: adding Rust's target $target"
    rustup target add "$target"
fi

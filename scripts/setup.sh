#!/bin/sh
# Brings what building and testing need and this machine lacks: Debian or Ubuntu packages, and Rust's musl target.
set -eu

packages="
    apache2-utils attr buildah busybox-static catatonit conmon conntrack containerd containernetworking-plugins criu crun curl
    debian-archive-keyring docker-registry docker.io e2fsprogs g++ gcc iproute2 iptables jq libseccomp-dev mmdebstrap musl-tools netavark
    nftables openssl passt podman procps protobuf-compiler runc skopeo socat strace ufw uidmap umoci util-linux"

# Debian starts firewalld as soon as it is there, and it takes the machine's firewall over: only where nothing starts it.
if [ ! -d /run/systemd/system ]; then
    packages="$packages dbus firewalld"
elif [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ]; then
    systemctl --quiet mask firewalld
    packages="$packages dbus firewalld"
fi

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

# A criu that is older than the kernel may not know it. Debian 13's then stands beside it, unpacked, with libraries and loader of its own.
newer=/usr/local/lib/criu
if [ "$(id -u)" = 0 ] && ! criu check >/dev/null 2>&1 && [ ! -d "$newer" ]; then
    echo "setup: unpacking Debian 13's criu"
    source="deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"
    if mmdebstrap --quiet --variant=extract --mode=root --include=criu trixie "$newer.part" "$source" >/dev/null 2>&1; then
        mv "$newer.part" "$newer"
        cat >/usr/local/sbin/criu <<'END'
#!/bin/sh
root=/usr/local/lib/criu
set -- "$root/usr/sbin/criu" "$@"
for lib in "$root"/usr/lib/*-linux-gnu; do set -- --library-path "$lib" "$@"; done
exec "$lib"/ld-linux-*.so.* "$@"
END
        chmod 755 /usr/local/sbin/criu
    else
        echo "setup: Debian's archive does not answer: the tests of checkpoint and restore will be skipped" >&2
        rm -rf "$newer.part"
    fi
fi

target=$(uname -m)-unknown-linux-musl
libdir=$(rustc --print target-libdir --target "$target" 2>/dev/null || true)
if [ ! -d "$libdir" ]; then
    echo "setup: adding Rust's target $target"
    rustup target add "$target"
fi

#!/bin/sh
# Packs what `make build` has built: coracle-VERSION-MACHINE.tar.gz, to be unpacked in /, and a .deb, into target/dist or $DIST. The same
# programs give the same bytes, whenever and wherever they are packed. BINARY and SHIM in the environment name other programs.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
machine=$(uname -m)
case $machine in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$machine ;;
esac
dist=${DIST:-$PWD/target/dist}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

rm -rf "$dist"
mkdir -p "$dist/tarball" "$dist/deb/DEBIAN"

make -s install DESTDIR="$dist/tarball"
# Files alone: the directories of whoever unpacks this stay as they are.
(cd "$dist/tarball" && find . ! -type d | sed 's;^\./;;' | LC_ALL=C sort) > "$dist/files"
tar --create --file "$dist/tar" --format ustar --owner root:0 --group root:0 --mtime "@$SOURCE_DATE_EPOCH" \
    --directory "$dist/tarball" --no-recursion --files-from "$dist/files"
gzip -9n < "$dist/tar" > "$dist/coracle-$version-$machine.tar.gz"

make -s install DESTDIR="$dist/deb" PREFIX=/usr ZSH=vendor-completions
install -D -m 644 LICENSE "$dist/deb/usr/share/doc/coracle/copyright"
install -m 755 packaging/debian/postinst "$dist/deb/DEBIAN/postinst"
(cd "$dist/deb" && find etc -type f | sed 's;^;/;' | LC_ALL=C sort) > "$dist/deb/DEBIAN/conffiles"
(cd "$dist/deb" && find usr -type f | LC_ALL=C sort | xargs md5sum) > "$dist/deb/DEBIAN/md5sums"
# dpkg counts files by their size in whole kilobytes, not by what a file system makes of them.
size=$(cd "$dist/deb" && find usr etc -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/" packaging/debian/control > "$dist/deb/DEBIAN/control"
dpkg-deb --root-owner-group -Zxz --build "$dist/deb" "$dist/coracle_${version}_$architecture.deb" > /dev/null

rm -r "$dist/tarball" "$dist/deb" "$dist/files" "$dist/tar"
(cd "$dist" && sha256sum coracle*) | tee "$dist/SHA256SUMS"

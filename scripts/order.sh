#!/bin/sh
# order.sh: which functions the runtime's commands execute, in crates/coracle/order.txt, so that the linker puts them side by side and a short
# command finds all of its own in a few pages. Takes root and some minutes; worth it now and then, when much of that code has got another name.
# What is missing in the list costs some page faults, and nothing else.
set -eu

cd "$(dirname "$0")/.."
list=$PWD/crates/coracle/order.txt
target=$(uname -m)-unknown-linux-musl
# As `make build` names them, and not stripped of them.
RUSTFLAGS="-C symbol-mangling-version=v0 -C strip=none" cargo build --release --target "$target" -p coracle --target-dir target/order
cargo build -p runtime-tests --bin executed
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir -p "$dir/rootfs/bin" "$dir/rootfs/proc" "$dir/rootfs/dev" "$dir/rootfs/sys"
cp "$(command -v busybox)" "$dir/rootfs/bin/"
ln -s busybox "$dir/rootfs/bin/sleep"
ln -s busybox "$dir/rootfs/bin/true"
cat >"$dir/commands" <<END
set -eu
mount -t tmpfs run /run
cd $dir
coracle=$PWD/target/order/$target/release/coracle
executed() { $PWD/target/debug/executed "\$coracle" --root /run/order "\$@" >$dir/of-\$view-\$1; }
rm -f config.json
"\$coracle" spec
sed -i 's;"terminal": true;"terminal": false;; s;"sh";"true";' config.json
sed -i '0,/"linux": {/s//"linux": { "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }] },/' config.json
executed run one
sed -i 's;"true";"sleep", "1000000";' config.json
# Its process waits for start, and whoever follows it would too.
"\$coracle" --root /run/order create one </dev/null >/dev/null 2>&1
executed start one
executed state one
executed list
executed exec one true
executed kill one KILL
executed delete --force one
END
v2='umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup'
unshare --mount --propagation private sh -c "view=v1 && . $dir/commands"
unshare --mount --propagation private sh -c "view=v2 && $v2 && . $dir/commands"
# By the first of these processes that executes it, the shortest commands first, then by the number of processes, then by which they are, then by
# name. The processes of a command are counted from 0 on: of exec 1 and 2 are its children, of run 1 and 2. Another sequence gives a command
# more or fewer pages; this one gives state, start and kill the fewest that there can be, and exec but one more.
sequence='exec-2 state-0 start-0 kill-0 exec-0 delete-0 exec-1 run-1 run-2 list-0 run-0'
for file in "$dir"/of-*; do
    # Without the number of the compilation unit, and what tells crates of one name apart.
    sed "s/\.[0-9]*\$//; s/Cs[0-9A-Za-z]*_/C/g; s/^/${file##*-}-/" "$file"
done | LC_ALL=C sort -u | awk -v sequence="$sequence" '
    BEGIN { for (place = split(sequence, process, " "); place; place--) rank[process[place]] = sprintf("%02d", place) }
    { count[$2]++; ranks[$2] = ranks[$2] "," rank[$1] }
    END {
        for (this in count) {
            split(ranks[this], all, ",")
            least = "99"
            for (i in all) if (all[i] != "" && all[i] < least) least = all[i]
            print least, count[this], ranks[this], this
        }
    }' | LC_ALL=C sort -k 1,1 -k 2,2nr -k 3 | cut -d ' ' -f 4 >"$list"
wc -l "$list"

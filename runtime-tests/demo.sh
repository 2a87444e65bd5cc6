#!/bin/sh
# The main job, shown: one container from a bundle, with limits, attached and detached. Fails when anything is not as it
# should be. usage: demo.sh RUNTIME
set -eu

runtime=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "demo: containers with cgroup limits and device nodes need root: run \`sudo make demo\`" >&2; exit 1; }

dir=$(mktemp -d /tmp/coracle-demo.XXXXXX)
id=${dir##*/}
id=$(echo "$id" | tr . -)
clean() {
    "$runtime" --root "$dir/state" delete --force "$id" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') green=$(printf '\033[32m') plain=$(printf '\033[0m'); else bold='' dim='' green='' plain=''; fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note()  { printf '%s  %s%s\n' "$dim" "$*" "$plain"; }
coracle() { "$runtime" --root "$dir/state" "$@"; }
prompt() { printf '%s$%s coracle %s\n' "$dim" "$plain" "$*"; }
# Shows a command of the runtime and its answer.
show() {
    prompt "$@"
    coracle "$@" > "$dir/answer"
    sed 's/^/  /' "$dir/answer"
}
# expect WHAT SEEN WANTED: a line with a tick, or the end.
expect() {
    case "$2" in
        $3) printf '  %s✓%s %s: %s\n' "$green" "$plain" "$1" "$2" ;;
        *)  printf '  ✗ %s: %s, expected %s\n' "$1" "$2" "$3"; exit 1 ;;
    esac
}
status() { coracle state "$id" | jq -r .status; }
wait_until_stopped() { while [ "$(status)" != stopped ]; do sleep 0.02; done; }
title "A bundle from Debian's busybox-static"
mkdir -p "$dir/bundle/rootfs/bin" "$dir/bundle/rootfs/proc" "$dir/bundle/rootfs/dev" "$dir/bundle/rootfs/sys"
cp /bin/busybox "$dir/bundle/rootfs/bin/busybox"
for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$dir/bundle/rootfs/bin/$applet"; done
show --version
show spec --bundle "$dir/bundle"
note "config.json: memory 64 MiB, cpu 0.5, 64 processes, no terminal, a cgroup namespace of its own"
cat > "$dir/bundle/rootfs/look.sh" <<'SH'
field() { printf '%s=%s\n' "$1" "$2"; }
field pid $$
field hostname "$(hostname)"
field interfaces "$(ls /sys/class/net | tr '\n' ' ')"
field netns "$(readlink /proc/self/ns/net)"
field memory "$(cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max)"
field cpu "$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null | tr '\n' ' ' | grep . || cat /sys/fs/cgroup/cpu.max)"
field pids "$(cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max)"
SH
configure() { # configure PROGRAM…: what the container runs
    jq '.process.terminal = false | .process.args = $ARGS.positional | .hostname = "coracle-demo"
        | .linux.resources.memory.limit = 67108864 | .linux.resources.pids.limit = 64
        | .linux.resources.cpu = { quota: 50000, period: 100000 }
        | .linux.namespaces |= (map(select(.type != "cgroup")) + [{ type: "cgroup" }])' \
        "$dir/spec.json" --args "$@" > "$dir/bundle/config.json"
}
mv "$dir/bundle/config.json" "$dir/spec.json"

title "Attached: the container looks at itself"
configure sh /look.sh
prompt "run --bundle $dir/bundle $id"
coracle run --bundle "$dir/bundle" "$id" > "$dir/seen"
seen() { sed -n "s/^$1=//p" "$dir/seen" | sed 's/ *$//'; }
expect 'its process id' "$(seen pid)" 1
expect 'its own host name' "$(seen hostname)" coracle-demo
expect 'its own network, with loopback only' "$(seen interfaces)" lo
[ "$(seen netns)" != "$(readlink /proc/self/ns/net)" ]
expect 'its network namespace' "$(seen netns)" 'net:*'
expect 'memory limit' "$(seen memory)" 67108864
expect 'cpu quota and period' "$(seen cpu)" '50000 100000'
expect 'process limit' "$(seen pids)" 64

title "Detached: created, started, looked at"
configure sleep 1000000
prompt "create --bundle $dir/bundle $id"
coracle create --bundle "$dir/bundle" "$id" < /dev/null > "$dir/output" 2>&1
coracle state "$id" > "$dir/state.json"
expect 'state after create' "$(jq -r .status "$dir/state.json")" created
show start "$id"
expect 'state after start' "$(status)" running
show list
show exec "$id" ps
show exec "$id" hostname

title "Paused and resumed"
show pause "$id"
expect 'state' "$(status)" paused
show resume "$id"
expect 'state' "$(status)" running

title "Updated while it runs"
show update --memory 96M --pids-limit 32 "$id"
coracle events --stats "$id" > "$dir/stats"
expect 'memory limit by events --stats' "$(jq .data.memory.usage.limit "$dir/stats")" 100663296
expect 'process limit by events --stats' "$(jq .data.pids.limit "$dir/stats")" 32
expect 'processes' "$(jq .data.pids.current "$dir/stats")" 1
note "memory in use: $(jq .data.memory.usage.usage "$dir/stats") bytes, cpu used: $(jq .data.cpu.usage.total "$dir/stats") ns"

title "Killed and deleted: nothing stays"
pid=$(coracle state "$id" | jq .pid)
show kill "$id" KILL
wait_until_stopped
expect 'state' "$(status)" stopped
show delete "$id"
none() { tr '\n\0' '  ' | grep . || echo none; }
expect 'state left' "$(ls -A "$dir/state" | none)" none
expect 'cgroups left' "$(find /sys/fs/cgroup -name "$id" | none)" none
expect 'mounts left' "$(grep "$id\|$dir" /proc/self/mountinfo | none)" none
expect 'process left' "$(cat "/proc/$pid/cmdline" 2>/dev/null | none)" none
printf '\n%sAll as it should be.%s\n' "$green" "$plain"

#!/bin/sh
# The main job, shown: an image becomes a service with limits and a published port, is looked at, and goes without a trace. Fails
# when anything is not as it should be. usage: demo.sh RUNTIME
set -eu

runtime=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "demo: networks and cgroup limits need root: run \`sudo make demo\`" >&2; exit 1; }

dir=$(mktemp -d /tmp/coracle-demo.XXXXXX)
name=$(basename "$dir" | tr . -)
clean() {
    coracle rm -f "$name" >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') green=$(printf '\033[32m') plain=$(printf '\033[0m'); else bold='' dim='' green='' plain=''; fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note()  { printf '%s  %s%s\n' "$dim" "$*" "$plain"; }
coracle() { "$runtime" --root "$dir/state" --store "$dir/store" "$@"; }
prompt() { printf '%s$%s coracle %s\n' "$dim" "$plain" "$*"; }
# Shows a command of the runtime and its answer.
show() {
    prompt "$@"
    coracle "$@" > "$dir/answer" 2>&1
    sed 's/^/  /' "$dir/answer"
}
# expect WHAT SEEN WANTED: a line with a tick, or the end.
expect() {
    case "$2" in
        $3) printf '  %s✓%s %s: %s\n' "$green" "$plain" "$1" "$2" ;;
        *)  printf '  ✗ %s: %s, expected %s\n' "$1" "$2" "$3"; exit 1 ;;
    esac
}

title "An image, built by buildah from Debian's busybox-static"
mkdir -p "$dir/app/bin" "$dir/app/www"
cp /bin/busybox "$dir/app/bin/busybox"
for applet in sh httpd ls cat; do ln -s busybox "$dir/app/bin/$applet"; done
echo 'hello from a container' > "$dir/app/www/index.html"
cat > "$dir/app/Containerfile" <<'END'
FROM scratch
COPY bin /bin
COPY www /www
EXPOSE 80
CMD ["httpd", "-f", "-v", "-p", "80", "-h", "/www"]
END
sed 's/^/  /' "$dir/app/Containerfile"
buildah() { command buildah --root "$dir/buildah" --runroot "$dir/buildah-run" --storage-driver vfs "$@"; }
buildah bud --quiet --tag localhost/web:1.0 "$dir/app" > /dev/null
buildah push --quiet localhost/web:1.0 "docker-archive:$dir/web.tar:localhost/web:1.0" > /dev/null
show --version
show load -i "$dir/web.tar"
show images

title "A service: one CPU's half, 64 MiB, a published port"
show run -d --name "$name" -p 127.0.0.1::80 --memory 64m --cpus 0.5 --pids-limit 50 localhost/web:1.0
address=$(coracle port "$name" 80/tcp)
show port "$name"
expect 'it answers' "$(curl --silent --max-time 5 "http://$address/")" 'hello from a container'

title "Looked at"
show list
show stats --no-stream "$name"
show logs "$name"
expect 'memory limit, seen inside' "$(coracle exec "$name" sh -c 'cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes unified/memory.max 2>/dev/null')" 67108864
expect 'process limit, seen inside' "$(coracle exec "$name" sh -c 'cd /sys/fs/cgroup; cat pids.max pids/pids.max unified/pids.max 2>/dev/null')" 50

title "A file goes in, and the service shows it"
echo 'hello from outside' > "$dir/index.html"
show cp "$dir/index.html" "$name:/www/index.html"
expect 'it answers' "$(curl --silent --max-time 5 "http://$address/")" 'hello from outside'

title "Stopped and removed: nothing stays"
id=$(coracle inspect "$name" | jq -r '.[0].Id')
pid=$(coracle inspect "$name" | jq '.[0].State.Pid')
show stop -t 1 "$name"
expect 'exit code, by SIGKILL after the grace time' "$(coracle inspect "$name" | jq '.[0].State.ExitCode')" 137
show rm "$name"
show rmi localhost/web:1.0
none() { tr '\n\0' '  ' | grep . || echo none; }
expect 'containers left' "$(ls -A "$dir/store/containers" | none)" none
expect 'cgroups left' "$(find /sys/fs/cgroup -name "*$id*" | none)" none
expect 'mounts left' "$(grep "$dir" /proc/self/mountinfo | none)" none
expect 'process left' "$(cat "/proc/$pid/cmdline" 2>/dev/null | none)" none
curl --silent --max-time 5 "http://$address/" > "$dir/answer" && expect 'the port' open closed
printf '\n%sAll as it should be.%s\n' "$green" "$plain"

# Tells how a container sees itself and its machine, a point a line: NAME=VALUE. What is random has its name in capitals instead.
tr '\0' '\n' < /proc/1/environ | sed "s/$(hostname)/HOSTNAME/; s/^/env /"
echo "args=$(tr '\0' ' ' < /proc/1/cmdline | sed 's/-c .*/-c SCRIPT/')"
echo "user=$(id -u):$(id -g) $(id -G)"
echo "cwd=$(pwd)"
echo "umask=$(umask)"
echo "oom_score_adj=$(cat /proc/1/oom_score_adj)"
echo "root=$(ls -A / | tr '\n' ' ')"
hostname | grep -Eq '^[0-9a-f]{12}$' && echo "hostname=12 digits of the id"
[ "$(hostname)" = "$(cat /etc/hostname)" ] && echo "/etc/hostname=the host name"
grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status | sed 's/:\t/=/'
awk 'NR > 1 { name = substr($0, 1, 26); sub(/ *$/, "", name); print "limit " name "=" $(NF - 2) " " $(NF - 1) }' /proc/1/limits |
    sed 's/^\(limit Max \(nice\|realtime\) priority=\)[^ ]* /\1/'

# Of files that engines bring, where they keep them is theirs; of the root, its layers.
awk '{
    for (i = 7; $i != "-"; i++);
    super = $(i + 3)
    if ($5 ~ "^/(etc|run)/") { kind = "file"; super = "" } else kind = $(i + 1)
    gsub(/(lowerdir|upperdir|workdir)\+?=[^,]*|,?(inode64|xino=off|index=off|metacopy=off|redirect_dir=[a-z]*|uuid=[a-z]*|volatile)/, "", super)
    gsub(/,+/, ",", super); sub(/,$/, "", super)
    print "mount " $5 "=" kind " " $6 " " super
}' /proc/1/mountinfo
find /dev ! -path '/dev/pts/*' ! -path '/dev/shm/*' | while read -r f; do
    if [ -L "$f" ]; then echo "$f=link to $(readlink "$f")"; else stat -c '%n=%F %a %u:%g %t:%T' "$f"; fi
done
sed 's/^[0-9]*:\([^:]*\):\(.*\)$/cgroup \1=\2/; s/=\/..*/=PATH/' /proc/1/cgroup
cd /sys/fs/cgroup && for f in memory.max cpu.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
    [ -e $f ] && echo "$f=$(cat $f)"
done
ip -o link | awk '{ sub(/@.*|:$/, "", $2); print "link " $2 "=" $5 }'
address=$(ip -o -4 address show dev eth0 2>/dev/null | awk '{ sub(/\/.*/, "", $4); print $4 }')
sed "s/$(hostname)/HOSTNAME/; s/^${address:-none}\b/ADDRESS/" /etc/hosts | awk 'NF && !/^#/ { name = $1; $1 = ""; print "/etc/hosts " name "=" $0 }'
awk '/^(nameserver|search|options)/ { print "/etc/resolv.conf " $1 "=" $0 }' /etc/resolv.conf
for s in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range kernel/domainname; do
    echo "/proc/sys/$s=$(cat /proc/sys/$s)"
done

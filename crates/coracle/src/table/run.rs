//! The flags of `run`: those of runc, and those of Docker for images.

#[cfg(feature = "image")]
use super::COUNT;
use super::{
    BUNDLE, CONFIG, CONSOLE_SOCKET, DETACH, NO_NEW_KEYRING, NO_PIVOT, PID_FILE, PIDFD_SOCKET,
    PRESERVE_FDS,
};
#[cfg(feature = "image")]
use crate::flags::Kind;
use crate::flags::{Flag, Table, flags};

/// Those that only mean something for a bundle. `--detach` does for both.
#[cfg(feature = "image")]
pub(crate) const OF_BUNDLES: &[&str] = &[
    "bundle",
    "config",
    "console-socket",
    "pidfd-socket",
    "keep",
    "pid-file",
    "no-subreaper",
    "no-pivot",
    "no-new-keyring",
    "preserve-fds",
];

#[cfg(not(feature = "image"))]
pub(super) const DESCRIPTION: &str = "\
Creates a container from a bundle, starts it, waits for its process and deletes it.
What it runs is \"args\" in the bundle's config.json; see \"coracle spec --help\".";

#[cfg(feature = "image")]
pub(super) const DESCRIPTION: &str = "\
With a container's id: creates the container from a bundle, starts it, waits for its
process and deletes it. What it runs is \"args\" in the bundle's config.json; see
\"coracle spec --help\".

With an image, which is anything with a \"/\", a \":\" or an \"@\" in it: pulls the image
unless it is there, and runs it with Docker's and podman's flags. Flags stand before
the image: what follows it is the command. A container of an image stays, with its log,
until \"coracle rm\".

       # coracle run -d --name web -p 8080:80 docker.io/library/nginx:1";

#[cfg(feature = "image")]
const SIZE: Kind = Kind::Size;

/// runc's flags, and behind them others.
macro_rules! with_runcs {
    ($($more:expr),* $(,)?) => {
        flags![
            BUNDLE,
            CONFIG,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            DETACH,
            Flag::switch("keep", "do not delete the container when it has ended"),
            PID_FILE,
            Flag::switch(
                "no-subreaper",
                "do not adopt and reap processes that the container leaves behind",
            ),
            NO_PIVOT,
            NO_NEW_KEYRING,
            PRESERVE_FDS,
            $($more),*
        ]
    };
}

#[cfg(not(feature = "image"))]
pub(super) const FLAGS: Table = with_runcs![];

#[cfg(feature = "image")]
pub(super) const FLAGS: Table = with_runcs![
    Flag::switch(
        "rootfs",
        "the first argument is a directory to use as the root, not an image",
    ),
    Flag::text(
        "name",
        "name of the container (default: the beginning of its id)",
    ),
    Flag::switch("rm", "remove the container when it has ended"),
    Flag::switch("interactive,i", "keep standard input open"),
    Flag::switch("tty,t", "give the container a terminal"),
    Flag::switch(
        "init",
        "put an init that forwards signals and reaps processes in front of the command",
    ),
    Flag::text("entrypoint", "run this instead of the image's entrypoint",),
    Flag::text("pull=missing", "always, missing or never"),
    Flag::text(
        "platform",
        "os/arch[/variant] of the image (default: this machine's)",
    ),
    Flag::switch(
        "tls-verify",
        "verify the registry's certificate; =false also allows plain http",
    ),
    Flag::text("cidfile", "file to write the container's id to"),
    Flag::text(
        "restart=no",
        "no, on-failure[:n], always or unless-stopped: what happens when it ends",
    ),
    Flag::text(
        "stop-signal",
        "signal that asks the container to end (default: the image's, or SIGTERM)",
    ),
    Flag::of(
        COUNT,
        "stop-timeout=10",
        "seconds until the stop signal is followed by SIGKILL",
    ),
    Flag::list(
        "log-opt",
        "max-size=SIZE (default 10m) or max-file=N (default 3) of the log; can be repeated",
    ),
    Flag::list(
        "env,e",
        "NAME=value, or NAME for our own value; can be repeated",
    ),
    Flag::list("env-file", "file with one of these a line; can be repeated",),
    Flag::list("label,l", "NAME=value, shown by inspect; can be repeated",),
    Flag::list(
        "annotation",
        "NAME=value in the runtime's configuration; can be repeated",
    ),
    Flag::text("user,u", "user[:group], by name or number"),
    Flag::list("group-add", "one more group; can be repeated"),
    Flag::text("workdir,w", "working directory inside the container"),
    Flag::text(
        "hostname,h",
        "host name (default: the beginning of the container's id)",
    ),
    Flag::text(
        "network,net=bridge",
        "bridge, host, none, container:ID or cni:NAME",
    ),
    Flag::list(
        "publish,p",
        "[[IP:]PORT:]PORT[/PROTOCOL] of the host to the container; can be repeated",
    ),
    Flag::switch("publish-all,P", "publish every port that the image exposes",),
    Flag::text("ip", "address in the network"),
    Flag::list("dns", "address of a name server; can be repeated"),
    Flag::list("add-host", "NAME:ADDRESS for /etc/hosts; can be repeated",),
    Flag::list(
        "volume,v",
        "[SOURCE:]DESTINATION[:OPTIONS], a directory or the name of a volume; can be repeated",
    ),
    Flag::list(
        "mount",
        "type=bind|volume|tmpfs,source=…,target=…; can be repeated",
    ),
    Flag::list("tmpfs", "DESTINATION[:OPTIONS]; can be repeated"),
    Flag::switch("read-only", "make the root read-only"),
    Flag::text("shm-size", "size of /dev/shm (default 64m)"),
    Flag::of(SIZE, "memory,m", "most memory, in bytes, or with k, m, g",),
    Flag::of(
        SIZE,
        "memory-swap",
        "most memory and swap together; -1 for no limit (default: twice the memory)",
    ),
    Flag::of(SIZE, "memory-reservation", "memory that is reclaimed last",),
    Flag::text("cpus", "number of CPUs, as 1.5"),
    Flag::text("cpuset-cpus", "CPUs to use, as 0-2,4"),
    Flag::of(
        COUNT,
        "cpu-shares,c",
        "share of the CPU relative to other containers",
    ),
    Flag::of(
        Kind::Number(-1, i64::MAX),
        "pids-limit",
        "highest number of processes; -1 for no limit",
    ),
    Flag::list(
        "ulimit",
        "NAME=SOFT[:HARD], as nofile=1024; can be repeated",
    ),
    Flag::text(
        "cgroup-parent",
        "cgroup (with systemd: slice) that the container's is made in",
    ),
    Flag::list("cap-add", "add a capability, or ALL; can be repeated"),
    Flag::list(
        "cap-drop",
        "take a capability away, or ALL; can be repeated",
    ),
    Flag::switch(
        "privileged",
        "every capability and device, nothing masked: the container can do what root can",
    ),
    Flag::list(
        "security-opt",
        "no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, label=disable|CONTEXT or systempaths=unconfined",
    ),
    Flag::list(
        "device",
        "SOURCE[:DESTINATION[:rwm]], a device of the host; can be repeated",
    ),
    Flag::list(
        "sysctl",
        "NAME=value of the container's namespaces; can be repeated",
    ),
    Flag::text(
        "userns=host",
        "host, auto (ids of its own; for root) or keep-id (a user is itself; not for root)",
    ),
];

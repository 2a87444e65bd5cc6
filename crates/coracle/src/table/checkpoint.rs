//! The flags of `checkpoint` and `restore`.

use super::{BUNDLE, CONSOLE_SOCKET, DETACH, NO_PIVOT, PID_FILE};
use crate::flags::{Flag, Kind, Table, flags};

const WORK_PATH: Flag = Flag::text(
    "work-path",
    "directory for criu's log and other by-products (default: that of the images)",
);
const PARENT_PATH: Flag = Flag::text(
    "parent-path",
    "directory of an earlier checkpoint, relative to --image-path",
);
const TCP_ESTABLISHED: Flag = Flag::switch("tcp-established", "keep established TCP connections");
const TCP_CLOSE: Flag = Flag::switch("tcp-close", "close established TCP connections");
const EXT_UNIX_SK: Flag = Flag::switch(
    "ext-unix-sk",
    "allow unix sockets that are connected to outside",
);
const SHELL_JOB: Flag = Flag::switch(
    "shell-job",
    "allow a session and a terminal that belong to somebody outside",
);
const LAZY_PAGES: Flag = Flag::switch(
    "lazy-pages",
    "move memory when it is touched, by userfaultfd(2)",
);
const FILE_LOCKS: Flag = Flag::switch("file-locks", "keep file locks");
const MANAGE_CGROUPS_MODE: Flag = Flag::text(
    "manage-cgroups-mode",
    "what of the cgroups is kept: soft, full, strict or ignore (default: soft)",
);
const NETWORK_LOCK: Flag = Flag::text(
    "network-lock",
    "what keeps TCP connections quiet meanwhile: iptables, nftables or skip",
);
const EMPTY_NS: Flag = Flag::list(
    "empty-ns",
    "do not keep what is in a namespace; always so for \"network\", the only one there is",
);
const AUTO_DEDUP: Flag = Flag::switch(
    "auto-dedup",
    "take memory that a later image holds out of the earlier ones",
);

pub(super) const CHECKPOINT: Table = flags![
    Flag::text(
        "image-path",
        "directory for the images (default: ./checkpoint)",
    ),
    WORK_PATH,
    PARENT_PATH,
    Flag::switch("leave-running", "let the container go on running"),
    TCP_ESTABLISHED,
    Flag::switch(
        "tcp-skip-in-flight",
        "leave TCP connections out that are not accepted yet",
    ),
    TCP_CLOSE,
    Flag::switch(
        "link-remap",
        "give files that are deleted, but still open, a name again",
    ),
    EXT_UNIX_SK,
    SHELL_JOB,
    LAZY_PAGES,
    Flag::of(
        Kind::Number(-1, i32::MAX as i64),
        "status-fd=-1",
        "descriptor that gets a null byte when lazy pages can be asked for",
    ),
    Flag::text(
        "page-server",
        "ADDRESS:PORT of the page server that gets the memory",
    ),
    FILE_LOCKS,
    Flag::switch(
        "pre-dump",
        "write only memory, and let the container go on running",
    ),
    MANAGE_CGROUPS_MODE,
    NETWORK_LOCK,
    EMPTY_NS,
    AUTO_DEDUP,
];

pub(super) const RESTORE: Table = flags![
    CONSOLE_SOCKET,
    Flag::text(
        "image-path",
        "directory of the images (default: ./checkpoint)",
    ),
    WORK_PATH,
    PARENT_PATH,
    TCP_ESTABLISHED,
    TCP_CLOSE,
    EXT_UNIX_SK,
    SHELL_JOB,
    FILE_LOCKS,
    MANAGE_CGROUPS_MODE,
    NETWORK_LOCK,
    BUNDLE,
    DETACH,
    PID_FILE,
    Flag::switch(
        "no-subreaper",
        "do not reap processes that the container leaves behind",
    ),
    NO_PIVOT,
    EMPTY_NS,
    AUTO_DEDUP,
    LAZY_PAGES,
    Flag::text(
        "lsm-profile",
        "TYPE:NAME of the security profile to use instead, as in apparmor:PROFILE or selinux:LABEL",
    ),
    Flag::text("lsm-mount-context", "SELinux context to mount with instead"),
];

pub(super) const CHECKPOINT_DESCRIPTION: &str = "\
Writes the processes of a container into a directory, by criu, which has to be installed.
The container is deleted then, unless it is left running; \"coracle restore\" with the same
bundle goes on where it was:

       # coracle checkpoint --image-path /var/tmp/images ubuntu01
       # coracle restore --image-path /var/tmp/images --bundle /bundle ubuntu01";

pub(super) const RESTORE_DESCRIPTION: &str = "\
Goes on with a container that \"coracle checkpoint\" has written down. The bundle has to be
what it was, and the id must not be in use.";

//! The one table of commands and flags. Parsing, help, manual pages and completions read it.

mod checkpoint;
mod run;

use crate::Outcome;
use crate::commands::{self, Invocation};
use crate::flags::{Flag, Kind, Order, Table, flags};
use crate::sys;

#[cfg(feature = "image")]
pub(crate) use run::OF_BUNDLES;

/// One command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// One line for the list of commands.
    pub(crate) summary: &'static str,
    /// The positional arguments as the usage line shows them.
    pub(crate) args: &'static str,
    pub(crate) arity: Arity,
    pub(crate) order: Order,
    pub(crate) description: &'static str,
    pub(crate) flags: Table,
    /// What it prints is parsed by engines together with standard error, so no warning may stand beside it.
    pub(crate) answers: bool,
    pub(crate) run: fn(&Invocation<'_>) -> Outcome,
}

/// How many positional arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arity {
    Exactly(u8),
    AtLeast(u8),
    Between(u8, u8),
}

impl Command {
    /// Whether these arguments are a person's who knows Docker, and not an engine's that knows runc: what is wrong is then said in one line.
    pub(crate) fn is_dockers(&self, args: &[String]) -> bool {
        let is_in = |table: &[Command]| table.iter().any(|other| other.name == self.name);
        let is_runcs = is_in(QUICK) || sys::with_all(|| is_in(OTHERS));
        // No id of a bundle's container has these, and an image mostly has one.
        let has_image = || args.iter().any(|arg| arg.contains([':', '@']));
        !is_runcs || self.name == "run" && cfg!(feature = "image") && has_image()
    }
}

impl Arity {
    /// The error is the end of runc's sentence.
    pub(crate) fn check(self, count: usize) -> Result<(), String> {
        match self {
            Arity::Exactly(wanted) if count != usize::from(wanted) => {
                Err(format!("exactly {wanted} argument(s)"))
            }
            Arity::AtLeast(least) | Arity::Between(least, _) if count < usize::from(least) => {
                Err(format!("a minimum of {least} argument(s)"))
            }
            Arity::Between(_, most) if count > usize::from(most) => {
                Err(format!("a maximum of {most} argument(s)"))
            }
            _ => Ok(()),
        }
    }
}

/// Every command, in the order of the help.
pub(crate) fn commands() -> impl Iterator<Item = &'static Command> + Clone {
    sys::with_all(|| {
        #[cfg(feature = "image")]
        let (images, containers) = (crate::images::COMMANDS, crate::containers::COMMANDS);
        #[cfg(not(feature = "image"))]
        let (images, containers): (&[Command], &[Command]) = (&[], &[]);
        // `help` comes last, in runc's too.
        let mut all: Vec<_> = OTHERS.iter().collect();
        for command in QUICK {
            let next = all.iter().position(|other| other.name > command.name);
            all.insert(next.unwrap_or(all.len()), command);
        }
        all.extend(containers.iter().chain(images));
        all.into_iter()
    })
}

/// Finds a command by its name or alias.
pub(crate) fn command(name: &str) -> Option<&'static Command> {
    let is_it = |command: &&Command| command.name == name || command.aliases.contains(&name);
    QUICK.iter().find(is_it).or_else(|| commands().find(is_it))
}

/// Numbers from nothing up.
const COUNT: Kind = Kind::Number(0, i64::MAX);
const ANY: Kind = Kind::Number(i64::MIN, i64::MAX);
/// Group ids; the highest number means "no group" to the kernel.
const IDS: Kind = Kind::Numbers(0, u32::MAX as i64 - 1);
/// How many descriptors a process can be handed.
const FDS: Kind = Kind::Number(0, i32::MAX as i64 - 3);

/// The flags that stand before the command.
pub(crate) const GLOBAL: Table = flags![
    Flag::switch(
        "debug",
        "log everything that is done, also on standard error",
    ),
    Flag::text(
        "log",
        "append the log to this file (default is standard error)",
    ),
    Flag::text("log-format=text", "format of the log: text or json"),
    Flag::text(
        "log-level=info",
        "what is logged: error, warning, info or debug",
    ),
    Flag::text(
        "root",
        "directory for the state of containers, best on a tmpfs (default: /run/coracle, or $XDG_RUNTIME_DIR/coracle when not root)",
    ),
    #[cfg(feature = "network")]
    Flag::text(
        "store",
        "directory for images and what is made of them (default: /var/lib/coracle, or ~/.local/share/coracle when not root)",
    ),
    Flag::switch(
        "systemd-cgroup",
        "let systemd make the cgroups; cgroupsPath then is \"slice:prefix:name\", as in \"system.slice:coracle:434234\"",
    ),
    Flag::text(
        "cgroup-manager",
        "who makes the cgroups: cgroupfs, systemd or disabled (default: cgroupfs)",
    ),
    Flag::text(
        "rootless=auto",
        "go on when cgroups may not be made: true, false or auto",
    ),
    Flag::switch("help,h", "show help"),
    Flag::switch("version,v", "print the version"),
];

// Flags that several commands share.
const BUNDLE: Flag = Flag::text(
    "bundle,b",
    "directory of the bundle (default: the current directory)",
);
const CONFIG: Flag = Flag::text(
    "config,f",
    "configuration to use instead of the bundle's config.json",
);
const CONSOLE_SOCKET: Flag = Flag::text(
    "console-socket",
    "unix socket that receives a descriptor of the terminal's master end",
);
const PIDFD_SOCKET: Flag = Flag::text(
    "pidfd-socket",
    "unix socket that receives a pidfd of the process",
);
const PID_FILE: Flag = Flag::text("pid-file", "file to write the process id to");
const NO_PIVOT: Flag = Flag::switch(
    "no-pivot",
    "do not use pivot_root(2); needed when the root filesystem is on a ramdisk",
);
const NO_NEW_KEYRING: Flag = Flag::switch(
    "no-new-keyring",
    "keep the caller's session keyring instead of making one for the container",
);
const PRESERVE_FDS: Flag = Flag::of(
    FDS,
    "preserve-fds=0",
    "pass N more descriptors on (standard ones + $LISTEN_FDS + N in all)",
);
const DETACH: Flag = Flag::switch("detach,d", "do not wait for the process");
const FORMAT: Flag = Flag::text("format,f=table", "table or json");
const REGEX: Flag = Flag::switch(
    "regex,r",
    "the id is a regular expression: every container with a matching id is meant",
);

const ID: &str = "<container-id>";

/// Those that engines wait for: with nothing relocated but what they need themselves.
const QUICK: &[Command] = &[
    Command {
        flags: flags![
            BUNDLE,
            CONFIG,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PRESERVE_FDS,
        ],
        description: "\
Makes a container from a bundle. Its process is ready and waits for \"coracle start\".
What it runs is \"args\" in the bundle's config.json; see \"coracle spec --help\".",
        ..Command::of("create", "create a container", commands::create)
    },
    Command {
        flags: flags![
            Flag::switch(
                "force,f",
                "kill the container first when it is still running",
            ),
            REGEX,
        ],
        description: "\
Releases everything that a stopped container still holds. A created container that
was never started is killed. With --force a missing container is no error.",
        ..Command::of(
            "delete",
            "delete a container and what it holds",
            commands::delete,
        )
    },
    Command {
        args: "<container-id> <command> [arguments...]  || --process process.json <container-id>",
        arity: Arity::AtLeast(1),
        order: Order::FlagsFirst,
        flags: flags![
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            Flag::text("cwd,workdir,w", "working directory inside the container"),
            Flag::list(
                "env,e",
                "add NAME=value to the environment; can be repeated",
            ),
            Flag::switch("tty,t", "give the process a terminal"),
            Flag::switch(
                "interactive,i",
                "hand standard input on, which for a container of a bundle is always done",
            ),
            Flag::switch(
                "privileged",
                "give the process every capability, in a container of an image",
            ),
            Flag::text(
                "user,u",
                "run as uid[:gid], in a container of an image also by name",
            ),
            Flag::of(IDS, "additional-gids,g", "add a group id; can be repeated",),
            Flag::text("process,p", "take the whole process from a process.json"),
            DETACH,
            PID_FILE,
            Flag::text("process-label", "SELinux label of the process"),
            Flag::text("apparmor", "AppArmor profile of the process"),
            Flag::switch("no-new-privs", "keep the process from gaining privileges"),
            Flag::list("cap,c", "add a capability; can be repeated"),
            PRESERVE_FDS,
            Flag::list(
                "cgroup",
                "run in a sub-cgroup of the container: [controller,..:]path; can be repeated",
            ),
            Flag::switch(
                "ignore-paused",
                "allow it in a paused container; the process runs when that is resumed",
            ),
        ],
        description: "\
Flags stand before the container's id: what follows it belongs to the command. A list
of the processes in the container, when it has ps:

       # coracle exec <container-id> ps",
        ..Command::of(
            "exec",
            "run one more process in a container",
            commands::exec,
        )
    },
    Command {
        args: "<container-id> [signal]",
        arity: Arity::Between(1, 2),
        flags: flags![
            Flag::switch("all,a", "send it to every process in the container"),
            REGEX,
        ],
        description: "\
The signal is a number or a name with or without SIG (default: SIGTERM):

       # coracle kill ubuntu01 KILL",
        ..Command::of(
            "kill",
            "send a signal to a container's first process",
            commands::kill,
        )
    },
    Command {
        args: "",
        arity: Arity::Exactly(0),
        answers: true,
        flags: flags![FORMAT, Flag::switch("quiet,q", "show only the ids")],
        description: "Only containers below the global option --root are known.",
        ..Command::of("list", "list containers", commands::list)
    },
    Command {
        flags: run::FLAGS,
        #[cfg(feature = "image")]
        args: "<container-id>  || <image> [command] [arguments...]  || --rootfs <directory> <command> [arguments...]",
        #[cfg(feature = "image")]
        arity: Arity::AtLeast(1),
        #[cfg(feature = "image")]
        order: Order::Decided(crate::containers::names_an_image),
        description: run::DESCRIPTION,
        ..Command::of("run", "create and start a container", commands::run)
    },
    Command {
        description: "Lets the process of a created container run what its configuration says.",
        ..Command::of("start", "start a created container", commands::start)
    },
    Command {
        answers: true,
        description: "Prints the state of a container as JSON.",
        ..Command::of("state", "show the state of a container", commands::state)
    },
];

/// The other ones that runc has, and those about the machine.
const OTHERS: &[Command] = &[
    Command {
        args: "",
        arity: Arity::Exactly(0),
        flags: flags![FORMAT],
        description: "\
Looks at the kernel and the machine as the calling user: namespaces, cgroups, file
systems, drivers. Each line is ok, limited or missing, with advice where it is not ok.
The exit status is 1 when something is missing that no container runs without. Nothing
is changed.",
        ..Command::of(
            "check",
            "show what this kernel and machine offer",
            commands::check,
        )
    },
    Command {
        flags: checkpoint::CHECKPOINT,
        description: checkpoint::CHECKPOINT_DESCRIPTION,
        ..Command::of(
            "checkpoint",
            "write a running container into files",
            commands::checkpoint,
        )
    },
    Command {
        args: "bash || zsh || fish",
        arity: Arity::AtLeast(1),
        order: Order::FlagsFirst,
        description: "\
Prints what makes a shell complete commands, flags, containers and images. For the
shell at hand, and for every one from now on:

       # . <(coracle completion bash)
       # coracle completion bash > /etc/bash_completion.d/coracle

The shell then asks with \"coracle completion of\" and the words typed so far.",
        ..Command::of(
            "completion",
            "print the completion for a shell",
            commands::completion,
        )
    },
    Command {
        flags: flags![
            Flag::of(Kind::Duration, "interval=5s", "time between two statistics"),
            Flag::switch("stats", "print the statistics once and end"),
        ],
        description: "\
Prints one JSON object per line: statistics at each interval, and a message
whenever the kernel kills a process of the container for want of memory.",
        ..Command::of(
            "events",
            "show statistics and out-of-memory events of a container",
            commands::events,
        )
    },
    Command {
        args: "",
        arity: Arity::Exactly(0),
        answers: true,
        description: "Prints a JSON document as the runtime specification's features.md describes it.",
        ..Command::of(
            "features",
            "show what this runtime implements",
            commands::features,
        )
    },
    Command {
        args: "[command]",
        arity: Arity::Between(0, 1),
        description: "\
Prints the manual page of this program, or of one command:

       # coracle man run | man -l -",
        ..Command::of("man", "print a manual page", commands::man)
    },
    #[cfg(feature = "network")]
    Command {
        args: "ls  || inspect [network...]  || reload",
        arity: Arity::AtLeast(1),
        flags: flags![Flag::text("format=table", "table or json, for ls")],
        description: "\
Lists the networks that containers are attached to, or shows them as JSON, or puts
bridge and firewall rules back in force after somebody has flushed the firewall:

       # coracle network reload",
        ..Command::of(
            "network",
            "show the networks of containers, or repair them",
            commands::network,
        )
    },
    Command {
        description: "Freezes all processes of a container until \"coracle resume\".",
        ..Command::of(
            "pause",
            "pause all processes in a container",
            commands::pause,
        )
    },
    Command {
        args: "<container-id> [ps options]",
        arity: Arity::AtLeast(1),
        order: Order::FlagsFirst,
        answers: true,
        flags: flags![FORMAT],
        description: "\
The table is what the host's ps(1) prints with the given options (default: -ef), of
which only the lines of this container's processes are shown. \"coracle list\" shows
the containers.",
        ..Command::of("ps", "show the processes in a container", commands::ps)
    },
    Command {
        flags: checkpoint::RESTORE,
        description: checkpoint::RESTORE_DESCRIPTION,
        ..Command::of(
            "restore",
            "go on with a container that was checkpointed",
            commands::restore,
        )
    },
    Command {
        description: "Thaws what \"coracle pause\" froze.",
        ..Command::of(
            "resume",
            "resume all processes in a paused container",
            commands::resume,
        )
    },
    Command {
        args: "",
        arity: Arity::Exactly(0),
        flags: flags![
            BUNDLE,
            Flag::switch(
                "rootless",
                "write one for a container of a user who is not root",
            ),
        ],
        description: "\
Writes a config.json to start from; it runs a shell in the directory \"rootfs\". From
there to a running container:

    mkdir rootfs
    tar -C rootfs -xf root-filesystem.tar
    coracle spec
    sed -i 's;\"sh\";\"/hello\";' config.json
    coracle run container1",
        ..Command::of("spec", "write a new config.json", commands::spec)
    },
    Command {
        flags: flags![
            Flag::text(
                "resources,r",
                "file with the resources to change, '-' for standard input; the flags below are then not read",
            ),
            Flag::of(
                Kind::Number(0, 1000),
                "blkio-weight",
                "block I/O weight, from 10 to 1000",
            ),
            Flag::of(
                COUNT,
                "cpu-period",
                "CPU period of the quota, in microseconds; 0 for the default",
            ),
            Flag::of(
                ANY,
                "cpu-quota",
                "CPU time in each period, in microseconds; -1 for no limit",
            ),
            Flag::of(
                COUNT,
                "cpu-burst",
                "CPU time that may be saved for later periods, in microseconds",
            ),
            Flag::of(
                COUNT,
                "cpu-share",
                "share of the CPU relative to other containers",
            ),
            Flag::of(
                COUNT,
                "cpu-rt-period",
                "period of the real-time limit, in microseconds",
            ),
            Flag::of(
                ANY,
                "cpu-rt-runtime",
                "real-time CPU time in each period, in microseconds",
            ),
            Flag::text("cpuset-cpus", "CPUs to use, as 0-2,4"),
            Flag::text("cpuset-mems", "memory nodes to use"),
            Flag::of(
                Kind::Size,
                "memory",
                "memory limit in bytes, or with k, m, g; -1 for no limit",
            ),
            Flag::of(
                Kind::Number(0, 1),
                "cpu-idle",
                "1 runs the container only when nothing else wants the CPU",
            ),
            Flag::of(
                Kind::Size,
                "memory-reservation",
                "memory that is reclaimed last, in bytes",
            ),
            Flag::of(
                Kind::Size,
                "memory-swap",
                "memory and swap together, in bytes; -1 for no limit",
            ),
            Flag::of(
                ANY,
                "pids-limit",
                "highest number of processes; -1 for no limit",
            ),
            Flag::text(
                "l3-cache-schema",
                "schema of Intel RDT/CAT for the level 3 cache",
            ),
            Flag::text(
                "mem-bw-schema",
                "schema of Intel RDT/MBA for the memory bandwidth",
            ),
        ],
        description: "\
Changes resource limits. What is not given stays as it is; devices are never touched.
A file for --resources has the form of \"linux.resources\" in config.json:

       { \"memory\": { \"limit\": 67108864 }, \"cpu\": { \"quota\": 50000, \"period\": 100000 } }",
        ..Command::of(
            "update",
            "change the resource limits of a container",
            commands::update,
        )
    },
    Command {
        aliases: &["h"],
        args: "[command]",
        arity: Arity::Between(0, 1),
        ..Command::of(
            "help",
            "show a list of commands, or help for one command",
            commands::help,
        )
    },
];

impl Command {
    /// The common case: one container's id, and flags on either side of it.
    pub(crate) const fn of(
        name: &'static str,
        summary: &'static str,
        run: fn(&Invocation<'_>) -> Outcome,
    ) -> Self {
        Command {
            name,
            aliases: &[],
            summary,
            args: ID,
            arity: Arity::Exactly(1),
            order: Order::Mixed,
            description: "",
            flags: flags![],
            answers: false,
            run,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::flags::Flags;

    #[test]
    fn names_are_unique() {
        let names = commands().flat_map(|command| command.aliases.iter().chain([&command.name]));
        assert_eq!(names.clone().count(), names.collect::<BTreeSet<_>>().len());
        for flags in commands().map(|command| command.flags).chain([GLOBAL]) {
            let names = flags.iter().flat_map(Flag::names);
            assert_eq!(
                names.clone().count(),
                names.collect::<BTreeSet<_>>().len(),
                "{flags:?}"
            );
        }
    }

    #[test]
    fn defaults_are_valid_values() {
        for flags in commands().map(|command| command.flags).chain([GLOBAL]) {
            for flag in flags.iter().filter(|flag| !flag.default().is_empty()) {
                assert_ne!(flag.kind, Kind::Switch, "{flag:?}");
                let args = vec![format!("--{}={}", flag.name(), flag.default())];
                assert!(Flags::parse(flags, args, Order::Mixed).is_ok(), "{flag:?}");
            }
        }
    }

    #[test]
    fn commands_of_another_command_line_take_their_flags_first() {
        let first = commands().filter(|command| matches!(command.order, Order::FlagsFirst));
        assert_eq!(
            first.map(|command| command.name).collect::<Vec<_>>(),
            ["completion", "exec", "ps"]
        );
    }

    #[test]
    fn wrong_counts_are_told_in_runcs_words() {
        assert_eq!(Arity::Exactly(1).check(1), Ok(()));
        assert_eq!(
            Arity::Exactly(1).check(2),
            Err("exactly 1 argument(s)".into())
        );
        assert_eq!(
            Arity::AtLeast(1).check(0),
            Err("a minimum of 1 argument(s)".into())
        );
        assert_eq!(
            Arity::Between(1, 2).check(3),
            Err("a maximum of 2 argument(s)".into())
        );
    }
}

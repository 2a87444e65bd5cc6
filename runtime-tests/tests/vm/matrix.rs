//! The axes, and the cells that are run.

/// Kernels, as `vm kernels` lists them.
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];

/// What the bounded part does without.
pub(crate) const LEFT_OUT: &str = "all behaviours on 5.10, 6.1 and the newest kernel, on cgroup v1 and hybrid, by systemd and as \
    ordinary users; all engines; most containers of images, networks and images; machines that are started again; \
    small machines; crun and runc for comparison: run `make vm-test`";

/// One guest and the tests in it.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) kernel: &'static str,
    /// `v1`, `hybrid` or `v2`.
    pub(crate) cgroup: &'static str,
    /// The cgroup manager: `cgroupfs` or `systemd`.
    pub(crate) driver: &'static str,
    /// `root`, or what `ROOTLESS` says.
    pub(crate) user: &'static str,
    /// The test program; or `containerd`, the longest group of `engines`, which has machines of its own.
    pub(crate) suite: &'static str,
    /// Another runtime of the guest; Coracle if empty.
    pub(crate) runtime: &'static str,
    /// Which of the tests; all if empty.
    pub(crate) tests: &'static [&'static str],
    /// MiB.
    pub(crate) memory: &'static str,
}

/// What the group of containerd's tests is called in `engines`.
const CONTAINERD: &str = "containerd::";

const PLAIN: Cell = Cell {
    kernel: "6.12",
    cgroup: "v2",
    driver: "cgroupfs",
    user: "root",
    suite: "behaviours",
    runtime: "",
    tests: &[],
    memory: "2048",
};

impl Cell {
    /// Its axes in one word.
    pub(crate) fn name(&self) -> String {
        let mut parts = vec![self.kernel, self.cgroup, self.driver, self.user, self.suite];
        parts.extend(
            self.runtime
                .rsplit('/')
                .next()
                .filter(|name| !name.is_empty()),
        );
        if self.memory != PLAIN.memory {
            parts.push("small");
        }
        parts.join("-")
    }

    /// The arguments of `vm`. Engines need systemd beside them, whoever makes the cgroups; `reboot` has its tests around one.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let program = match self.suite {
            "containerd" => "engines",
            suite => suite,
        };
        let systemd = self.driver == "systemd" || program == "engines";
        let init = if systemd { "systemd" } else { "minimal" };
        let mut words = vec![
            "test",
            "--no-snapshot",
            "--kernel",
            self.kernel,
            "--cgroup",
            self.cgroup,
            "--init",
            init,
        ];
        words.extend([
            "--suite",
            program,
            "--memory",
            self.memory,
            "--time",
            "3600",
        ]);
        if self.driver == "systemd" {
            words.extend(["--env", "CGROUP_MANAGER=systemd"]);
        }
        let rootless = format!("ROOTLESS={}", self.user);
        if self.user != "root" {
            words.extend(["--env", &rootless]);
        }
        if !self.runtime.is_empty() {
            words.extend(["--runtime", self.runtime]);
        }
        if self.suite == "reboot" {
            words.push("--reboot");
        }
        words.push("--");
        words.extend(self.tests);
        words.into_iter().map(str::to_owned).collect()
    }
}

/// 6.12 in full, and of the rest as much as shows that it works at all. The longest first.
pub(crate) fn bounded() -> Vec<Cell> {
    let smoke = |kernel| Cell {
        kernel,
        tests: &["lifecycle::", "limits::"],
        ..PLAIN
    };
    vec![
        PLAIN,
        Cell {
            driver: "systemd",
            tests: &["systemd::", "limits::", "update::"],
            ..PLAIN
        },
        Cell {
            driver: "systemd",
            suite: "engines",
            tests: &[
                "podman::a_kill_for",
                "podman::limits",
                "containerd::tasks::a_task",
            ],
            ..PLAIN
        },
        Cell {
            driver: "systemd",
            user: "delegated",
            suite: "engines",
            tests: &["podman::limits"],
            ..PLAIN
        },
        smoke("newest"),
        smoke("6.1"),
        smoke("5.10"),
        Cell {
            kernel: "5.10",
            suite: "containers",
            tests: &["monitor::a_memory", "flags::limits", "images::a_published"],
            ..PLAIN
        },
        Cell {
            driver: "systemd",
            suite: "containers",
            tests: &["monitor::a_memory", "flags::limits", "monitor::stop"],
            ..PLAIN
        },
    ]
}

/// Every cell there is.
pub(crate) fn everything() -> Vec<Cell> {
    let mut cells = Vec::new();
    let engines = Cell {
        suite: "engines",
        tests: &["--skip", CONTAINERD],
        ..PLAIN
    };
    for kernel in KERNELS {
        let plain = Cell { kernel, ..PLAIN };
        cells.extend([
            Cell {
                driver: "systemd",
                suite: "containerd",
                tests: &[CONTAINERD],
                ..plain.clone()
            },
            Cell {
                kernel,
                driver: "systemd",
                ..engines.clone()
            },
            Cell {
                kernel,
                driver: "systemd",
                user: "delegated",
                ..engines.clone()
            },
            plain.clone(),
            Cell {
                cgroup: "hybrid",
                ..plain.clone()
            },
            Cell {
                cgroup: "v1",
                ..plain.clone()
            },
            Cell {
                driver: "systemd",
                ..plain.clone()
            },
            Cell {
                user: "own",
                ..plain.clone()
            },
            Cell {
                user: "delegated",
                ..plain.clone()
            },
            Cell {
                driver: "systemd",
                suite: "containers",
                ..plain.clone()
            },
            Cell {
                suite: "reboot",
                ..plain.clone()
            },
        ]);
        cells.extend(["containers", "network", "images"].map(|suite| Cell {
            suite,
            ..plain.clone()
        }));
    }
    cells.extend([
        Cell {
            user: "delegated",
            suite: "containers",
            tests: &["flags::", "monitor::"],
            ..PLAIN
        },
        Cell {
            cgroup: "hybrid",
            suite: "containers",
            ..PLAIN
        },
        Cell {
            suite: "portability",
            ..PLAIN
        },
        engines.clone(),
        Cell {
            user: "own",
            ..engines.clone()
        },
        Cell {
            memory: "512",
            tests: &["limits::", "update::", "lifecycle::"],
            ..PLAIN
        },
    ]);
    cells.extend(["/usr/bin/crun", "/usr/sbin/runc"].map(|runtime| Cell {
        runtime,
        driver: "systemd",
        ..engines.clone()
    }));
    cells
}

//! The axes, and the cells that are run.

/// Kernels, as `vm kernels` lists them.
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];

/// What the bounded part does without.
pub(crate) const LEFT_OUT: &str = "all behaviours on 5.10, 6.1 and the newest kernel, on cgroup v1 and hybrid, by systemd and as \
    ordinary users; all engines; most containers of images, networks and images; the shim and Kubernetes' calls; machines that are started again; \
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
    /// The test program; or `containerd`, the longest group of `engines`, and `selinux`, those of `behaviours` that need it, which have
    /// machines of their own.
    pub(crate) suite: &'static str,
    /// Another runtime of the guest; Coracle if empty.
    pub(crate) runtime: &'static str,
    /// Which of the tests; all if empty.
    pub(crate) tests: &'static [&'static str],
    /// MiB.
    pub(crate) memory: &'static str,
}

/// What runs on every kernel: cgroup, driver, user and suite. The longest first.
const ON_EVERY_KERNEL: [&str; 14] = [
    "v2 systemd root engines",
    "v2 systemd delegated engines",
    "v2 cgroupfs root behaviours",
    "hybrid cgroupfs root behaviours",
    "v1 cgroupfs root behaviours",
    "v2 systemd root behaviours",
    "v2 cgroupfs own behaviours",
    "v2 cgroupfs delegated behaviours",
    "v2 systemd root containers",
    "v2 cgroupfs root reboot",
    "v2 cgroupfs root containers",
    "v2 cgroupfs root network",
    "v2 cgroupfs root images",
    "v2 cgroupfs root shim",
];

/// What runs on one as well as on another.
const ON_SOME: [(&str, &str); 11] = [
    ("6.12", "v2 systemd root containerd"),
    ("newest", "v2 systemd root containerd"),
    ("6.12", "v2 systemd root cri"),
    ("newest", "v2 systemd root cri"),
    ("5.10", "v2 cgroupfs root selinux"),
    ("6.12", "hybrid cgroupfs root selinux"),
    ("newest", "v2 cgroupfs root selinux"),
    ("6.12", "hybrid cgroupfs root containers"),
    ("6.12", "v2 cgroupfs root portability"),
    ("6.12", "v2 cgroupfs root engines"),
    ("6.12", "v2 cgroupfs own engines"),
];

const MEMORY: &str = "2048";

/// A machine, by kernel and axes as they are in the lists, with all tests of its suite.
fn cell(kernel: &'static str, axes: &'static str) -> Cell {
    let mut axes = axes.split(' ');
    let mut next = || axes.next().expect("cgroup, driver, user and suite");
    let (cgroup, driver, user, suite) = (next(), next(), next(), next());
    Cell {
        kernel,
        cgroup,
        driver,
        user,
        suite,
        runtime: "",
        tests: match suite {
            "engines" => &["--skip", "containerd::"],
            "containerd" => &["containerd::"],
            "selinux" => &["lsm::"],
            _ => &[],
        },
        memory: MEMORY,
    }
}

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
        if self.memory != MEMORY {
            parts.push("small");
        }
        parts.join("-")
    }

    /// The arguments of `vm`. Engines need systemd beside them, whoever makes the cgroups; `reboot` has its tests around one.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let program = match self.suite {
            "containerd" => "engines",
            "selinux" => "behaviours",
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
        if self.suite == "selinux" {
            words.extend(["--append", "security=selinux selinux=1"]);
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
    let some = |kernel, axes, tests| Cell {
        tests,
        ..cell(kernel, axes)
    };
    let smoke = |kernel| {
        let tests = &["lifecycle::", "limits::"];
        some(kernel, "v2 cgroupfs root behaviours", tests)
    };
    vec![
        cell("6.12", "v2 cgroupfs root behaviours"),
        some(
            "6.12",
            "v2 systemd root behaviours",
            &["systemd::", "limits::", "update::"],
        ),
        some(
            "6.12",
            "v2 systemd root engines",
            &[
                "podman::a_kill_for",
                "podman::limits",
                "containerd::tasks::a_task",
            ],
        ),
        some("6.12", "v2 systemd delegated engines", &["podman::limits"]),
        smoke("newest"),
        smoke("6.1"),
        smoke("5.10"),
        some(
            "5.10",
            "v2 cgroupfs root containers",
            &["monitor::a_memory", "flags::limits", "images::a_published"],
        ),
        some(
            "6.12",
            "v2 systemd root containers",
            &["monitor::a_memory", "flags::limits", "monitor::stop"],
        ),
    ]
}

/// Every cell there is.
pub(crate) fn everything() -> Vec<Cell> {
    let on_every = |kernel| ON_EVERY_KERNEL.map(|axes| cell(kernel, axes));
    let mut cells: Vec<_> = KERNELS.into_iter().flat_map(on_every).collect();
    cells.extend(ON_SOME.map(|(kernel, axes)| cell(kernel, axes)));
    cells.extend([
        Cell {
            tests: &["flags::", "monitor::"],
            ..cell("6.12", "v2 cgroupfs delegated containers")
        },
        Cell {
            memory: "512",
            tests: &["limits::", "update::", "lifecycle::"],
            ..cell("6.12", "v2 cgroupfs root behaviours")
        },
    ]);
    cells.extend(["/usr/bin/crun", "/usr/sbin/runc"].map(|runtime| Cell {
        runtime,
        ..cell("6.12", "v2 systemd root engines")
    }));
    cells
}

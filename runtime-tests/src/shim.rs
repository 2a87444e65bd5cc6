//! Which containerd and which shim are under test.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::runtime::{is_coracle, runtime};

const CORACLE: &str = "containerd-shim-coracle-v2";
const RUNC: &str = "containerd-shim-runc-v2";

/// A shim's binary. containerd knows it by a name that is made of the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim {
    program: PathBuf,
}

impl Shim {
    /// The shim under test: `$SHIM`; or Coracle's, which lies beside the runtime; beneath another runtime, to prove the tests,
    /// that for runc.
    pub fn under_test() -> Self {
        match env::var_os("SHIM") {
            Some(path) => Self {
                program: fs::canonicalize(&path)
                    .unwrap_or_else(|e| panic!("SHIM={}: {e}", path.display())),
            },
            None if is_coracle() => Self {
                program: runtime().with_file_name(CORACLE),
            },
            None => Self::runc(),
        }
    }

    /// containerd's own shim, above the runtime under test.
    pub fn runc() -> Self {
        Self {
            program: program(RUNC).unwrap_or_else(|| PathBuf::from("/usr/bin").join(RUNC)),
        }
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The file's name.
    pub fn file_name(&self) -> &str {
        let name = self.program.file_name().expect("a file has a name");
        name.to_str().expect("the name is text")
    }

    /// What containerd calls it: `containerd-shim-coracle-v2` is `io.containerd.coracle.v2`.
    pub fn runtime_type(&self) -> String {
        let name = self.file_name().trim_start_matches("containerd-shim-");
        format!("io.containerd.{}", name.replace('-', "."))
    }

    /// It takes the runtime's path from the options, as containerd's own does.
    pub fn is_runc(&self) -> bool {
        self.file_name() == RUNC
    }
}

/// The directories in which containerd's programs are looked for: `$CONTAINERD`, and the path.
pub(crate) fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    match env::var("CONTAINERD") {
        Ok(dir) => format!("{dir}:{path}"),
        Err(_) => path,
    }
}

fn program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// containerd and its client are there.
pub fn has_containerd() -> bool {
    program("containerd").is_some() && program("ctr").is_some()
}

/// Major and minor number of the containerd under test.
pub fn containerd_version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let program = program("containerd").expect("containerd is installed");
        let answer = Command::new(program).arg("--version").output();
        let answer = String::from_utf8_lossy(&answer.expect("it starts").stdout).into_owned();
        // `containerd github.com/containerd/containerd/v2 2.1.9+ds1 …`
        let mut numbers = answer
            .split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .split('.');
        let mut number = || numbers.next()?.trim_start_matches('v').parse().ok();
        number()
            .zip(number())
            .unwrap_or_else(|| panic!("containerd has no version: {answer}"))
    })
}

//! Programs, run: each test compiles a profile and asks what becomes of a call.

mod interpreter;
#[cfg(feature = "libseccomp-oracle")]
mod oracle;
mod precedence;
mod profiles;
mod refused;

use crate::abi::Abi;
use crate::program::{Program, compile_for};
use crate::syscalls::Syscall;
use interpreter::{Data, run};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const EPERM: u32 = 0x0005_0001;
const EINVAL: u32 = 0x0005_0016;
const ENOSYS: u32 = 0x0005_0026;

const DOCKER_26: &str = include_str!("../../tests/profiles/docker-26.amd64.json");
const DOCKER_29: &str = include_str!("../../tests/profiles/docker-29.amd64.json");
const DOCKER_29_ARM: &str = include_str!("../../tests/profiles/docker-29.arm64.json");
const PODMAN: &str = include_str!("../../tests/profiles/podman-4.3.amd64.json");

fn profile(text: &str) -> LinuxSeccomp {
    serde_json::from_str(text).unwrap()
}

/// The section with these members, with ERRNO (EPERM) as its default action unless it has one.
fn section(mut members: Value) -> LinuxSeccomp {
    let object = members.as_object_mut().unwrap();
    object
        .entry("defaultAction")
        .or_insert(json!("SCMP_ACT_ERRNO"));
    serde_json::from_value(members).unwrap()
}

fn program(section: &LinuxSeccomp) -> Program {
    compile_for(Abi::X86_64, section).unwrap()
}

/// What becomes of a call, known by name.
fn answer(program: &Program, abi: Abi, name: &str, args: &[u64]) -> u32 {
    numbered(
        program,
        abi,
        Syscall::named(name).unwrap().number(abi).unwrap(),
        args,
    )
}

/// What becomes of a call, known by number.
fn numbered(program: &Program, abi: Abi, number: u32, args: &[u64]) -> u32 {
    let mut data = Data {
        number,
        audit_arch: abi.audit_arch(),
        args: [0; 6],
    };
    data.args[..args.len()].copy_from_slice(args);
    run(&program.instructions, &data).0
}

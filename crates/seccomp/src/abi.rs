//! The ABIs through which a program can call the kernel.

use crate::Error;
use oci_spec::runtime::{Arch, LinuxSeccomp};

/// Names of the architectures that [`Abi`] stands for, besides `SCMP_ARCH_NATIVE`.
pub(crate) static ARCHITECTURES: [&str; 6] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// A system call ABI; its value is its column in the table of system calls. All of them are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
compile_error!("there is no table of system calls for this processor: see tables.sh");

/// How much of an argument an ABI's programs can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Bits32,
    Bits64,
}

impl Abi {
    /// The ABI of the processor that this crate is compiled for.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const NATIVE: Self = Self::X86_64;
    /// The ABI of the processor that this crate is compiled for.
    #[cfg(target_arch = "aarch64")]
    pub(crate) const NATIVE: Self = Self::Aarch64;
    /// The ABI of the processor that this crate is compiled for.
    #[cfg(target_arch = "riscv64")]
    pub(crate) const NATIVE: Self = Self::Riscv64;

    /// The `AUDIT_ARCH_*` value with which the kernel announces a call of this ABI. x32 has none of its own.
    pub(crate) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// x32 counts as a 32-bit ABI, as with libseccomp, although the kernel passes its arguments in full.
    pub(crate) fn width(self) -> Width {
        match self {
            Self::X86_64 | Self::Aarch64 | Self::Riscv64 => Width::Bits64,
            Self::X86 | Self::X32 | Self::Arm => Width::Bits32,
        }
    }

    fn from_profile(arch: Arch, native: Self) -> Option<Self> {
        Some(match arch {
            Arch::ScmpArchNative => native,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            _ => return None,
        })
    }
}

/// The ABIs that the section lists, each once, the native one first.
pub(crate) fn listed(section: &LinuxSeccomp, native: Abi) -> Result<Vec<Abi>, Error> {
    let mut abis = vec![native];
    for (index, &arch) in section.architectures().iter().flatten().enumerate() {
        let Some(abi) = Abi::from_profile(arch, native) else {
            let reason = format!(
                "{arch} is not supported (supported: {})",
                ARCHITECTURES.join(", ")
            );
            return Err(Error::new(format!(".architectures[{index}]"), reason));
        };
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

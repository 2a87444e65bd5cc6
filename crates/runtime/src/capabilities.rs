//! Capability sets (capabilities(7)): from the configuration's names to bits, and into the kernel.

use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::{Context, Result, sys};

/// Names by the kernel's number.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The kernel's number of each `oci_spec::runtime::Capability`, which are declared in alphabetical order.
const NUMBERS: [u8; 41] = [
    30, 37, 29, 36, 39, 40, 0, 1, 2, 3, 4, 14, 15, 5, 28, 9, 33, 32, 27, 12, 10, 11, 13, 38, 6, 31,
    8, 7, 21, 22, 18, 16, 23, 20, 19, 17, 24, 25, 26, 34, 35,
];

/// The five sets of a process, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Sets {
    /// The configured sets; a process without `process.capabilities` has none.
    pub(crate) fn new(configured: Option<&LinuxCapabilities>) -> Self {
        let Some(configured) = configured else {
            return Self::default();
        };
        Sets {
            bounding: bits(configured.bounding()),
            effective: bits(configured.effective()),
            permitted: bits(configured.permitted()),
            inheritable: bits(configured.inheritable()),
            ambient: bits(configured.ambient()),
        }
    }

    /// Adds one capability by number, as `exec --cap` does: not inheritable, so it is gone at the next unprivileged execve(2).
    pub(crate) fn add(&mut self, number: u32) {
        for set in [&mut self.bounding, &mut self.effective, &mut self.permitted] {
            *set |= 1 << number;
        }
    }

    /// Leaves out what this process itself may not hand on, with runc's warning.
    pub(crate) fn limit_to(&mut self, available: u64) {
        let missing = (self.bounding | self.permitted | self.inheritable) & !available;
        if missing != 0 {
            let names = NAMES
                .iter()
                .enumerate()
                .filter(|(n, _)| missing >> n & 1 == 1)
                .map(|(_, name)| *name);
            log::debug!(
                "leaving out capabilities that are not available here: {}",
                names.collect::<Vec<_>>().join(", ")
            );
        }
        for set in [
            &mut self.bounding,
            &mut self.effective,
            &mut self.permitted,
            &mut self.inheritable,
            &mut self.ambient,
        ] {
            *set &= available;
        }
        // The kernel's rule. runc's own `spec` breaks it, and nobody expects an error there.
        self.ambient &= self.permitted & self.inheritable;
    }

    /// Drops everything that is not in the bounding set, out of what there is if that is known. Needs CAP_SETPCAP, so it comes before
    /// [`Sets::apply`].
    pub(crate) fn apply_bounding(&self, there: Option<u64>) -> Result<()> {
        let dropped = there.unwrap_or(u64::MAX) & !self.bounding;
        for capability in (0..64).filter(|n| dropped >> n & 1 == 1) {
            match sys::credentials::drop_bounding(capability) {
                Ok(()) => {}
                // Past the kernel's last capability.
                Err(nix::errno::Errno::EINVAL) if capability > 0 => break,
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("drop {} from the bounding set", name(capability))
                    });
                }
            }
        }
        Ok(())
    }

    /// Sets the other four.
    pub(crate) fn apply(&self) -> Result<()> {
        sys::credentials::set_capabilities(self.effective, self.permitted, self.inheritable)
            .context("set the process's capabilities")?;
        for capability in (0..64).filter(|n| self.ambient >> n & 1 == 1) {
            sys::credentials::raise_ambient(capability)
                .with_context(|| format!("can't raise ambient capability {}", name(capability)))?;
        }
        Ok(())
    }
}

fn name(capability: u32) -> &'static str {
    NAMES
        .get(capability as usize)
        .copied()
        .unwrap_or("an unknown capability")
}

/// The number of `CAP_X` or `X`, in any case.
pub(crate) fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| known[4..] == *bare)
        .map(|n| n as u32)
}

fn bits(set: &Option<Capabilities>) -> u64 {
    set.iter().flatten().fold(0, |bits, capability| {
        bits | 1 << NUMBERS[*capability as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_bit() {
        for (number, name) in NAMES.iter().enumerate() {
            let sets = serde_json::json!({ "bounding": [name] });
            let sets = Sets::new(Some(&serde_json::from_value(sets).unwrap()));
            assert_eq!(
                sets,
                Sets {
                    bounding: 1 << number,
                    ..Sets::default()
                },
                "{name}"
            );
        }
    }

    #[test]
    fn names_of_flags() {
        assert_eq!(number("net_raw"), Some(13));
        assert_eq!(number("CAP_BPF"), Some(39));
        assert_eq!(number("CAP_FLY"), None);
    }
}

//! The section, checked: what the profile says, before any ABI comes into it.

use crate::Error;
use crate::action::{NO_SUCH_CALL, lets_pass, return_value};
use crate::condition::Condition;
use crate::syscalls::Syscall;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

/// What to do when one of several sets of conditions holds.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The value that the filter returns.
    pub(crate) action: u32,
    /// Conditions that must all hold, sorted by argument; each set is enough. An empty set always holds.
    pub(crate) alternatives: Vec<Vec<Condition>>,
}

/// All that a profile says.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The value that the filter returns where no rule applies.
    pub(crate) default: u32,
    /// The value for a call that is newer than the profile.
    pub(crate) newer: u32,
    /// In the section's order and number.
    pub(crate) rules: Vec<Rule>,
    /// Every call that a rule names, with the position of the rule.
    pub(crate) named: Vec<(Syscall, u32)>,
    /// Names that no ABI has.
    pub(crate) skipped: Vec<String>,
    /// Whether a rule asks for a listener.
    pub(crate) notify: bool,
}

impl Rules {
    pub(crate) fn from_profile(section: &LinuxSeccomp) -> Result<Self, Error> {
        let action = section.default_action();
        if action == LinuxSeccompAction::ScmpActNotify {
            return Err(Error::new(
                ".defaultAction",
                "SCMP_ACT_NOTIFY cannot be used as default action",
            ));
        }
        let default = return_value(action, section.default_errno_ret(), || {
            ".defaultErrnoRet".into()
        })?;
        let syscalls = section.syscalls().as_deref().unwrap_or_default();
        let mut all = Self {
            default,
            newer: if lets_pass(action) {
                default
            } else {
                NO_SUCH_CALL
            },
            rules: Vec::with_capacity(syscalls.len()),
            named: Vec::with_capacity(512),
            skipped: Vec::new(),
            notify: false,
        };
        for (index, syscall) in syscalls.iter().enumerate() {
            all.add(index, syscall)?;
        }
        Ok(all)
    }

    fn add(&mut self, index: usize, syscall: &LinuxSyscall) -> Result<(), Error> {
        let field = |name: &str| format!(".syscalls[{index}].{name}");
        let notify = syscall.action() == LinuxSeccompAction::ScmpActNotify;
        for name in syscall.names() {
            // The runtime itself writes to its pipe between installing the filter and handing the listener on.
            if notify && name == "write" {
                return Err(Error::new(
                    field("names"),
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                ));
            }
            match Syscall::named(name) {
                Some(call) => self.named.push((call, index as u32)),
                None if name.is_empty() => {
                    return Err(Error::new(
                        field("names"),
                        "an empty string is not a valid syscall",
                    ));
                }
                None => self.skipped.push(name.clone()),
            }
        }
        self.notify |= notify;
        self.rules.push(Rule {
            action: return_value(syscall.action(), syscall.errno_ret(), || field("errnoRet"))?,
            alternatives: alternatives(index, syscall)?,
        });
        Ok(())
    }
}

/// All conditions together, or each for itself if two of them are about the same argument.
fn alternatives(index: usize, syscall: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, Error> {
    let mut conditions = Vec::new();
    for (position, arg) in syscall.args().iter().flatten().enumerate() {
        conditions.push(Condition::from_profile(arg, || {
            format!(".syscalls[{index}].args[{position}]")
        })?);
    }
    conditions.sort_by_key(|condition| condition.argument());
    let repeated = conditions
        .windows(2)
        .any(|pair| pair[0].argument() == pair[1].argument());
    Ok(match repeated {
        true => conditions
            .into_iter()
            .map(|condition| vec![condition])
            .collect(),
        false => vec![conditions],
    })
}

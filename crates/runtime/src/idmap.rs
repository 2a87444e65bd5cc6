//! Id mappings of new user namespaces (user_namespaces(7)): written directly, or by newuidmap(1) and newgidmap(1).

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::statvfs::FsFlags;
use nix::unistd::{Pid, SysconfVar, User, getegid, geteuid, sysconf};
use oci_spec::runtime::LinuxIdMapping;

use crate::procfs::Procfs;
use crate::protocol::Channel;
use crate::sys::process::{Cloned, clone, exit_now};
use crate::sys::wait::{Whose, ended};
use crate::{Context, Error, Result, sys};

/// The kernel takes at most this many lines per map.
const MAX_LINES: usize = 340;

/// The mappings of a user namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mappings {
    pub uids: Vec<LinuxIdMapping>,
    pub gids: Vec<LinuxIdMapping>,
}

impl Mappings {
    /// Checks the mappings of a container (`linux.uidMappings`, `linux.gidMappings`).
    pub(crate) fn new(
        uids: Option<&[LinuxIdMapping]>,
        gids: Option<&[LinuxIdMapping]>,
    ) -> Result<Self> {
        let checked =
            |field: &str, mappings: Option<&[LinuxIdMapping]>| match mappings.unwrap_or_default() {
                [] => Err(Error::invalid(format!(
                    "linux.{field}: user namespaces enabled, but no mapping found"
                ))),
                mappings if !mappings.iter().any(|mapping| mapping.container_id() == 0) => {
                    Err(Error::invalid(format!(
                        "linux.{field}: id 0 of the container is not mapped"
                    )))
                }
                mappings => check(&format!("linux.{field}"), mappings),
            };
        Ok(Mappings {
            uids: checked("uidMappings", uids)?,
            gids: checked("gidMappings", gids)?,
        })
    }

    /// Checks the mappings of one mount (`mounts[index].uidMappings`, `.gidMappings`).
    pub(crate) fn of_mount(
        index: usize,
        uids: &[LinuxIdMapping],
        gids: &[LinuxIdMapping],
    ) -> Result<Self> {
        Ok(Mappings {
            uids: check(&format!("mounts[{index}].uidMappings"), uids)?,
            gids: check(&format!("mounts[{index}].gidMappings"), gids)?,
        })
    }

    /// A new user namespace with these mappings and no process in it: it lives as long as the descriptor.
    pub(crate) fn namespace(&self, procfs: &Procfs) -> Result<OwnedFd> {
        let (ours, theirs) = Channel::pair()?;
        match clone(libc::CLONE_NEWUSER as u64, None).context("make a user namespace")? {
            Cloned::Child { .. } => {
                drop(ours);
                // Until the namespace is open, or the runtime is gone.
                let _ = theirs.receive();
                exit_now(0)
            }
            Cloned::Parent { pid, .. } => {
                drop(theirs);
                let namespace = self.write(procfs, pid).and_then(|()| {
                    procfs
                        .open_namespace(pid, "user")
                        .context("open the user namespace")
                });
                drop(ours);
                ended(Whose::Pid(pid), 0).context("reap the process in the user namespace")?;
                namespace
            }
        }
    }

    /// Writes the maps of the process `pid`, which waits in its new user namespace.
    pub(crate) fn write(&self, procfs: &Procfs, pid: Pid) -> Result<()> {
        let privileged = geteuid().is_root();
        let own = |mappings: &[LinuxIdMapping], id: u32| matches!(mappings, [one] if one.size() == 1 && one.host_id() == id);
        let own_gid = own(&self.gids, getegid().as_raw());
        if !privileged && own_gid {
            // An ordinary user may map its own group only where setgroups(2) is given up.
            procfs
                .write(&format!("{pid}/setgroups"), b"deny")
                .context("deny setgroups in the user namespace")?;
        }
        let write = |file: &str, program: &str, mappings: &[LinuxIdMapping], direct: bool| {
            if direct {
                return match procfs.write(&format!("{pid}/{file}"), lines(mappings).as_bytes()) {
                    // Where the runtime is root only inside a user namespace of its own, the range may be more than it was given.
                    Err(Errno::EPERM) => Err(Error::failed(format!(
                        "write {file}: operation not permitted: the mappings must lie inside those of the runtime's own user namespace, \
                         and mapping its root takes CAP_SETFCAP"
                    ))),
                    written => written.with_context(|| format!("write {file}")),
                };
            }
            run(program, pid, mappings)
        };
        write("gid_map", "newgidmap", &self.gids, privileged || own_gid)?;
        write(
            "uid_map",
            "newuidmap",
            &self.uids,
            privileged || own(&self.uids, geteuid().as_raw()),
        )
    }

    /// The host's number of a user of the container.
    pub(crate) fn host_uid(&self, uid: u32) -> Option<u32> {
        self.uids.iter().find_map(|mapping| {
            let offset = uid.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
        })
    }
}

/// What the kernel demands of any map; `field` is for the message.
fn check(field: &str, mappings: &[LinuxIdMapping]) -> Result<Vec<LinuxIdMapping>> {
    if mappings.len() > MAX_LINES {
        return Err(Error::invalid(format!(
            "{field}: more than the kernel's {MAX_LINES} mappings"
        )));
    }
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    if page.is_some_and(|page| lines(mappings).len() as libc::c_long >= page) {
        return Err(Error::invalid(format!(
            "{field}: as text, longer than the page that the kernel takes"
        )));
    }
    match mappings.iter().any(|mapping| mapping.size() == 0) {
        true => Err(Error::invalid(format!("{field}: size of a mapping is 0"))),
        false => Ok(mappings.to_vec()),
    }
}

fn lines(mappings: &[LinuxIdMapping]) -> String {
    let mut text = String::with_capacity(32 * mappings.len());
    for mapping in mappings {
        let _ = writeln!(
            text,
            "{} {} {}",
            mapping.container_id(),
            mapping.host_id(),
            mapping.size()
        );
    }
    text
}

/// newuidmap(1) and newgidmap(1) check /etc/subuid and /etc/subgid and write the map with their own rights.
fn run(program: &str, pid: Pid, mappings: &[LinuxIdMapping]) -> Result<()> {
    let numbers = mappings
        .iter()
        .flat_map(|m| [m.container_id(), m.host_id(), m.size()])
        .map(|n| n.to_string());
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers)
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::failed(format!(
                "{program} not found in $PATH, which mapping more than the caller's own id takes: install the uidmap package, or map only {} (size 1)",
                if program == "newuidmap" { geteuid().as_raw() } else { getegid().as_raw() }
            )),
            _ => Err::<(), _>(error)
                .with_context(|| format!("run {program}"))
                .unwrap_err(),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let ranges: Vec<_> = mappings
        .iter()
        .map(|mapping| format!("{}:{}", mapping.host_id(), mapping.size()))
        .collect();
    let hint = hint(program, &said).unwrap_or_default();
    Err(Error::failed(format!(
        "{program} for {} (first id:count on the host) failed: {}{hint}",
        ranges.join(" "),
        said.trim()
    )))
}

/// What to do about what newuidmap(1) or newgidmap(1) has said.
fn hint(program: &str, said: &str) -> Option<String> {
    if said.contains("not allowed") {
        let file = format!("/etc/sub{}", &program[3..6]);
        let user = geteuid();
        let name = User::from_uid(user).ok().flatten().map(|user| user.name);
        let name = name.unwrap_or_else(|| user.to_string());
        let has_entry = std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .any(|line| {
                let owner = line.split(':').next();
                owner == Some(&name) || owner == Some(&user.to_string())
            });
        return Some(match has_entry {
            true => format!(": map only ids that {file} gives to {name}"),
            false => format!(
                ": {file} gives {name} no ids: usermod --add-sub{}s 100000-165535 {name}",
                &program[3..6]
            ),
        });
    }
    if crate::userns::status("NoNewPrivs:").is_some_and(|value| value == "1") {
        return Some(": it cannot gain rights where no_new_privs is set".into());
    }
    let file = in_path(program)?;
    let metadata = std::fs::metadata(&file).ok()?;
    let setuid = metadata.mode() & 0o4000 != 0 && metadata.uid() == 0;
    let file_shown = file.display();
    if !setuid && !sys::credentials::has_file_capabilities(&file) {
        return Some(format!(
            ": {file_shown} is neither setuid root nor has it file capabilities: reinstall the uidmap package"
        ));
    }
    let flags = nix::sys::statvfs::statvfs(&file).ok()?.flags();
    flags
        .contains(FsFlags::ST_NOSUID)
        .then(|| format!(": {file_shown} lies on a file system that is mounted nosuid"))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        serde_json::from_value(
            serde_json::json!({ "containerID": container, "hostID": host, "size": size }),
        )
        .unwrap()
    }

    #[test]
    fn one_line_each() {
        let mappings = [mapping(0, 1000, 1), mapping(1, 100000, 65535)];
        assert_eq!(lines(&mappings), "0 1000 1\n1 100000 65535\n");
    }

    #[test]
    fn refused() {
        let one = [mapping(0, 1000, 1)];
        assert!(Mappings::new(None, Some(&one)).is_err());
        assert!(Mappings::new(Some(&[mapping(0, 0, 0)]), Some(&one)).is_err());
        assert!(Mappings::new(Some(&vec![mapping(0, 0, 1); 341]), Some(&one)).is_err());
        assert!(Mappings::new(Some(&[mapping(1, 0, 1)]), Some(&one)).is_err());
        let long = vec![mapping(0, 4_000_000_000, 4_000_000_000); 340];
        let error = Mappings::new(Some(&long), Some(&one)).unwrap_err();
        assert!(error.to_string().contains("as text"), "{error}");
    }

    #[test]
    fn a_mount_need_not_map_root() {
        let five = [mapping(5, 1000, 1)];
        assert!(Mappings::of_mount(3, &five, &five).is_ok());
        let error = Mappings::of_mount(3, &five, &[mapping(0, 0, 0)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "mounts[3].gidMappings: size of a mapping is 0"
        );
    }
}

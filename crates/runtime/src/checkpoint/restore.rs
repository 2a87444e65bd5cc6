//! `restore`: a container from the images of a checkpoint and a bundle like the one that it was made from.
//!
//! It is made as by `create`, up to its cgroup. Its processes are criu's work; the first of them becomes our child (`rst_sibling`), is
//! put on record as soon as criu tells of it, and is a container's process like any other from then on.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::criu::{self, Criu, HANDED};
use super::images::Images;
use super::rpc::{
    CgroupRoot, ExternalMount, InheritFd, JoinNamespace, Kind, Notify, Opts, Request, Version,
};
use super::stdio::Stream;
use super::{CriuOptions, external_key, external_mount, text};
use crate::config::Bundle;
use crate::directory::{Stage, check_id};
use crate::foreground::{Foreground, fit_terminal};
use crate::hooks::Lifetime;
use crate::launch::{Undo, begin, finish_cgroup, locate_cgroup, run_runtime_hooks};
use crate::mounts::{Mount, Source, UserNamespaces, staged};
use crate::namespaces::{self, CLONE_NEWTIME, Joined};
use crate::plan::Plan;
use crate::process::Streams;
use crate::procfs::Procfs;
use crate::rootfs::Root;
use crate::state::{Container, ProcessId};
use crate::{Context, Error, Result, Settings, config, json, process, sys, terminal};

/// The options of [`restore`].
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The container's new id.
    pub id: String,
    /// What `checkpoint` has as well.
    pub criu: CriuOptions,
    /// The directory with `config.json`; the working directory when `None`.
    pub bundle: Option<PathBuf>,
    /// A unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// Where to write the pid of the container's init.
    pub pid_file: Option<PathBuf>,
    /// Do not wait for the container.
    pub detach: bool,
    /// Do not become the reaper of what the container leaves behind.
    pub no_subreaper: bool,
    /// `apparmor:PROFILE` or `selinux:LABEL` instead of the one that was written down.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts that have one.
    pub lsm_mount_context: Option<String>,
}

/// Restores a container. Returns its exit status (128 + signal when a signal ended it), 0 when detached.
pub fn restore(settings: &Settings, options: &RestoreOptions) -> Result<i32> {
    if options.detach {
        bring_back(settings, options)?.undo.release();
        return Ok(0);
    }
    let reap = !options.no_subreaper;
    if reap {
        // Without a pid namespace of its own the container's orphans come to us.
        let _ = sys::process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    }
    let foreground = Foreground::prepare()?;
    let mut restored = bring_back(settings, options)?;
    let master = restored.terminal.as_ref();
    master
        .into_iter()
        .for_each(|master| fit_terminal(master.as_fd()));
    let status = foreground.supervise(
        restored.pid,
        restored.pidfd.as_fd(),
        restored.terminal,
        reap,
    )?;
    restored.undo.delete()?;
    Ok(status)
}

/// A container that runs again, and goes away unless it is released.
struct Restored {
    undo: Undo,
    /// Its process, our child.
    pid: Pid,
    pidfd: OwnedFd,
    /// The master of its terminal, when nobody else asked for it.
    terminal: Option<OwnedFd>,
}

fn bring_back(settings: &Settings, options: &RestoreOptions) -> Result<Restored> {
    // Nothing exists yet: whatever is wrong with the input is found here.
    criu::check_rights()?;
    check_id(&options.id)?;
    let Bundle {
        path: bundle,
        spec,
        bytes: config,
    } = config::read(options.bundle.as_deref(), None)?;
    let plan = Plan::new(&spec, &bundle)?;
    let (own_console, console) = terminal::receiver(
        plan.process.terminal.is_some(),
        options.detach,
        options.console_socket.as_deref(),
    )?;
    let mut images = Images::open(&options.criu, "restore.log")?;
    let annotations = spec.annotations().iter().flatten();
    let annotations = annotations.map(|(name, value)| (name.clone(), value.clone()));
    let mut opts = options.opts(&annotations.collect(), &images)?;
    let procfs = Procfs::open()?;
    let joined = plan.namespaces.open()?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.context("open /dev/null")?;
    let handed = join(&plan, &joined, &mut opts, null.as_fd())?;
    let (location, unit) = locate_cgroup(settings, &plan, &options.id)?;

    // From here on everything is undone on failure.
    let (mut undo, cgroup) = begin(settings, &options.id, &bundle, &plan, &spec, location)?;
    if let Some(cgroup) = &cgroup {
        finish_cgroup(cgroup, &plan)?;
    }
    let container = &mut undo.container;
    container.record.note_stdio(&plan, &Streams::look());
    container.directory.write_config(&config)?;
    let stage = absolute(container.directory.path())?;
    let sources = open_sources(&plan, &procfs, &joined)?;
    let criu = Criu::start_with(libc::CLONE_NEWNS, cgroup.as_ref(), &handed, || {
        staged::stage(&plan.mounts, sources, &plan.rootfs, &stage)
    })?;
    if let Some(unit) = unit {
        unit.take(container, criu.pid(), &plan)?;
    }
    options.check_version(&criu)?;
    images.open_inside(criu.pid())?;
    images.name(&mut opts);
    opts.root = text(&absolute(&plan.rootfs)?, "root.path")?;
    opts.cg_root = cgroup_roots(criu.pid())?;
    opts.ext_mnt = outer_mounts(container, &plan, &stage)?;
    let mut arrival = Arrival {
        undo,
        pidfd: None,
        plan: &plan,
        config: &config,
        console,
    };
    arrival.wait(criu, opts, &images)?;
    arrival.finish(own_console, options.pid_file.as_deref())
}

/// A container on its way.
struct Arrival<'a> {
    undo: Undo,
    /// Of its process, once there is one.
    pidfd: Option<OwnedFd>,
    plan: &'a Plan,
    config: &'a [u8],
    /// Who gets the master of its terminal.
    console: Option<OwnedFd>,
}

impl Arrival<'_> {
    /// Has criu do it.
    fn wait(&mut self, criu: Criu, opts: Opts, images: &Images) -> Result<()> {
        let request = Request {
            kind: Kind::Restore as i32,
            opts: Some(opts),
            ..Request::default()
        };
        let answer = criu.ask(&request, &mut |notify, fd| self.notified(notify, fd))?;
        images.check(&answer, "restore it")?;
        criu.finish().map(drop)
    }

    /// What is ours to do at the points that criu comes to.
    fn notified(&mut self, notify: &Notify, fd: Option<OwnedFd>) -> Result<()> {
        match (&*notify.script, &self.console, fd) {
            // Its first process is there, in its namespaces, and waits.
            ("setup-namespaces", ..) => {
                self.record(notify.pid)?;
                let lifetime = Lifetime {
                    container: self.pidfd.as_ref().map(AsFd::as_fd),
                    foreground: None,
                };
                run_runtime_hooks(&self.undo.container.record, self.plan, notify.pid, lifetime)
            }
            ("orphan-pts-master", Some(console), Some(master)) => {
                terminal::send_terminal(console.as_fd(), master.as_fd())
            }
            // Everything is as it was, and stands still for a last moment.
            ("post-restore", ..) => self.keep_config(notify.pid),
            _ => Ok(()),
        }
    }

    /// From here on it may live without us: whoever deletes the container finds it.
    fn record(&mut self, pid: i32) -> Result<()> {
        let pid = Pid::from_raw(pid);
        self.undo.child = Some(pid);
        let pidfd = sys::process::pidfd_open(pid);
        let pidfd = pidfd.context("open the restored process")?;
        let container = &mut self.undo.container;
        container.record.init = Some(ProcessId::of(pid, pidfd.as_fd())?);
        self.pidfd = Some(pidfd);
        if let Some(group) = &container.record.intel_rdt {
            group.add(pid.as_raw())?;
        }
        container.directory.write_record(&container.record)
    }

    /// criu gives a container the clocks that it had, by a time namespace: `exec` has to join that as well.
    fn keep_config(&self, pid: i32) -> Result<()> {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).ok();
        if self.plan.namespaces.is_private(CLONE_NEWTIME) || of(&pid.to_string()) == of("self") {
            return Ok(());
        }
        let config = with_time_namespace(self.config)?;
        self.undo.container.directory.write_config(&config)
    }

    fn finish(mut self, own_console: Option<OwnedFd>, pid_file: Option<&Path>) -> Result<Restored> {
        let (Some(pid), Some(pidfd)) = (self.undo.child, self.pidfd) else {
            return Err(Error::failed(
                "criu did not tell of the container's process",
            ));
        };
        // With our copy closed, there is an end to what we wait for.
        self.console = None;
        let terminal = own_console
            .map(|console| terminal::receive(console.as_fd()))
            .transpose()?;
        if let Some(path) = pid_file {
            process::write_pid_file(path, pid)?;
        }
        let directory = &mut self.undo.container.directory;
        directory.mark(Stage::Started)?;
        directory.unlock()?;
        Ok(Restored {
            undo: self.undo,
            pid,
            pidfd,
            terminal,
        })
    }
}

impl RestoreOptions {
    fn opts(&self, annotations: &BTreeMap<String, String>, images: &Images) -> Result<Opts> {
        let mut opts = self.criu.opts(annotations)?;
        // What it can use of a device is up to its cgroup.
        opts.evasive_devices = true;
        opts.rst_sibling = true;
        opts.lsm_profile.clone_from(&self.lsm_profile);
        opts.lsm_mount_context.clone_from(&self.lsm_mount_context);
        for (fd, stream) in (0..).zip(images.read_streams()?) {
            let (key, fd) = match stream {
                Stream::Own => continue,
                Stream::Outer(key) => (key, fd),
                Stream::Null(key) => (key, HANDED),
            };
            // Several may have been one and the same.
            if !opts.inherit_fd.iter().any(|inherited| inherited.key == key) {
                opts.inherit_fd.push(InheritFd { key, fd });
            }
        }
        Ok(opts)
    }

    fn check_version(&self, criu: &Criu) -> Result<()> {
        for (flag, given) in [
            ("--lsm-profile", &self.lsm_profile),
            ("--lsm-mount-context", &self.lsm_mount_context),
        ] {
            if given.is_some() {
                criu.needs(
                    Version {
                        major: 3,
                        minor: 16,
                    },
                    flag,
                )?;
            }
        }
        Ok(())
    }
}

/// Namespaces that are joined: those that were outside at the checkpoint are handed to criu, which enters the others by path. All that it
/// is handed comes back, `first` in front.
fn join<'a>(
    plan: &Plan,
    joined: &'a [Joined],
    opts: &mut Opts,
    first: BorrowedFd<'a>,
) -> Result<Vec<BorrowedFd<'a>>> {
    let mut handed = vec![first];
    for (open, (flag, path)) in joined.iter().zip(&plan.namespaces.joined) {
        if let Some(key) = external_key(*flag) {
            opts.inherit_fd.push(InheritFd {
                key: key.to_owned(),
                fd: HANDED + handed.len() as i32,
            });
            handed.push(open.as_fd());
            continue;
        }
        let name = namespaces::name(*flag);
        if *flag == libc::CLONE_NEWCGROUP {
            let text = format!("linux.namespaces: criu cannot join a {name} namespace");
            return Err(Error::invalid(text));
        }
        opts.join_ns.push(JoinNamespace {
            ns: namespaces::file(name).to_owned(),
            ns_file: text(path, "linux.namespaces")?,
        });
    }
    Ok(handed)
}

/// The binds that only the runtime can open: those with mapped ids.
fn open_sources(plan: &Plan, procfs: &Procfs, joined: &[Joined]) -> Result<Vec<Option<OwnedFd>>> {
    let mut user_namespaces = UserNamespaces::new(plan, procfs, joined);
    let open = |mount: &Mount| match mount.is_idmapped() {
        true => match mount.open_source(&mut user_namespaces)? {
            Some(Source::Tree(tree)) => Ok(Some(tree)),
            // criu makes new file systems itself.
            _ => Ok(None),
        },
        false => Ok(None),
    };
    plan.mounts.iter().map(open).collect()
}

/// Where the container's processes go instead of the cgroups that they were in: where criu is already.
fn cgroup_roots(criu: Pid) -> Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{criu}/cgroup");
    let table = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let root = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(CgroupRoot {
            ctrl: controllers.to_owned(),
            path: path.to_owned(),
        })
    };
    Ok(table.lines().filter_map(root).collect())
}

/// Where criu gets from what is not the container's own.
fn outer_mounts(container: &Container, plan: &Plan, stage: &Path) -> Result<Vec<ExternalMount>> {
    let rootfs = Root::at(Root::find(&plan.rootfs)?);
    let location = container.record.cgroup.as_ref();
    let externals = staged::externals(&plan.mounts, &rootfs, stage, location, &plan.namespaces)?;
    let hosts = |path: &Path| (path.to_owned(), path.to_owned());
    let devices = plan.devices.iter().flatten();
    let devices = devices.map(|device| hosts(&device.path));
    let masks = plan.masked.first().map(|_| hosts(Path::new("/dev/null")));
    externals
        .into_iter()
        .chain(devices)
        .chain(masks)
        .map(|(key, val)| external_mount(&key, &val))
        .collect()
}

fn with_time_namespace(config: &[u8]) -> Result<Vec<u8>> {
    let damaged = |error| Error::failed(format!("config.json: {error}"));
    let mut config: Value = json::parse(config).map_err(damaged)?;
    if let Some(namespaces) = config.pointer_mut("/linux/namespaces")
        && let Some(namespaces) = namespaces.as_array_mut()
    {
        namespaces.push(json!({ "type": "time" }));
    }
    serde_json::to_vec(&config).map_err(damaged)
}

/// criu has a working directory of its own.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_namespace_is_added() {
        let config = br#"{"linux":{"namespaces":[{"type":"pid"}]}}"#;
        let changed = with_time_namespace(config).unwrap();
        assert_eq!(
            changed,
            br#"{"linux":{"namespaces":[{"type":"pid"},{"type":"time"}]}}"#
        );
    }
}

//! `NOTIFY_SOCKET`: a service manager that starts a container hears from it that it is ready (sd_notify(3)).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use runtime_tests::{Container, has_program, is_coracle, requires, rootless};

struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn of(c: &Container) -> Self {
        let path = c.dir().join("manager.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let timeout = std::time::Duration::from_secs(100);
        socket.set_read_timeout(Some(timeout)).unwrap();
        Manager {
            socket,
            path: path.to_str().unwrap().to_owned(),
        }
    }

    fn start(&self, mut command: Command) -> Child {
        command.env("NOTIFY_SOCKET", &self.path).spawn().unwrap()
    }

    /// The next message and its descriptor.
    fn hears(&self) -> (String, Option<OwnedFd>) {
        let mut text = [0; 4096];
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut buffers = [std::io::IoSliceMut::new(&mut text)];
        let message = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut buffers,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .unwrap();
        let fd = message.cmsgs().unwrap().find_map(|control| match control {
            // SAFETY: the kernel has just made it for this message.
            ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(fds[0]) }),
            _ => None,
        });
        let length = message.bytes;
        (String::from_utf8_lossy(&text[..length]).into_owned(), fd)
    }

    fn hears_that_it_is_ready(&self, main_pid: impl FnOnce() -> i64) {
        assert_eq!(self.hears().0, "READY=1\n");
        assert_eq!(self.hears().0, format!("MAINPID={}\n", main_pid()));
        // runc 1.1 does not wait until that has been read.
        if !is_coracle() {
            return;
        }
        let (barrier, pipe) = self.hears();
        assert_eq!(barrier, "BARRIER=1");
        drop(pipe.expect("a pipe to be closed"));
    }
}

fn service() -> Container {
    Container::inside(&["notify-and-wait"])
}

#[test]
fn start_waits_until_the_service_is_ready() {
    let c = service();
    let manager = Manager::of(&c);
    let mut create = c.bundle_command("create", &[]);
    create.env("NOTIFY_SOCKET", &manager.path);
    c.to_files(create).ok();
    let mut start = manager.start(c.command(&["start", &c.id]));
    manager.hears_that_it_is_ready(|| c.pid());
    assert!(start.wait().unwrap().success());
    assert_eq!(c.status(), "running");
    c.delete_force().ok();
    c.assert_nothing_left();
}

#[test]
fn a_foreground_run_forwards_it_too() {
    let c = service();
    let manager = Manager::of(&c);
    let mut run = manager.start(c.bundle_command("run", &[]));
    // The runtime stays, and so it is what the manager is to watch.
    manager.hears_that_it_is_ready(|| run.id().into());
    c.kill("KILL").ok();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    c.assert_nothing_left();
}

#[test]
fn a_detached_run_waits_until_the_service_is_ready() {
    let c = service();
    let manager = Manager::of(&c);
    let mut run = manager.start(c.bundle_command("run", &["--detach"]));
    manager.hears_that_it_is_ready(|| c.pid());
    assert!(run.wait().unwrap().success());
}

#[test]
fn a_service_that_ends_before_it_is_ready_keeps_nobody_waiting() {
    requires!(is_coracle(), "runc 1.3 waits for ever");
    let c = Container::new("test \"$NOTIFY_SOCKET\" = /run/notify/notify.sock && touch /seen");
    let manager = Manager::of(&c);
    let mut run = manager.start(c.bundle_command("run", &["--detach"]));
    assert!(run.wait().unwrap().success());
    assert!(c.rootfs().join("seen").exists());
}

#[test]
fn the_socket_is_there_for_everybody_and_the_directory_is_not_writable() {
    requires!(is_coracle(), "runc 1.3 waits for ever");
    requires!(
        rootless().is_none() && has_program("setpriv"),
        "another user is needed"
    );
    let mut c = Container::new("stat -c '%a %F' /run/notify/notify.sock; touch /run/notify/x");
    c.set(
        "/process/user",
        serde_json::json!({ "uid": 1000, "gid": 1000 }),
    );
    let manager = Manager::of(&c);
    let mut run = c.bundle_command("run", &[]);
    run.env("NOTIFY_SOCKET", &manager.path);
    let output = c.to_files(run);
    assert_eq!(output.stdout, "777 socket\n");
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}

//! Ctrl-C while an image arrives.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use runtime_tests::{Home, Registry, Terminal, eventually, need_root, requires};

use super::has_tools;

/// The way to a registry that stalls: so many bytes come, then neither more nor an end.
struct Stalling {
    address: SocketAddr,
    /// How many bytes are still to come.
    left: Arc<AtomicUsize>,
}

impl Stalling {
    fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(0));
        let (registry, counter) = (registry.address.clone(), Arc::clone(&left));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&registry).unwrap());
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let left = Arc::clone(&counter);
                thread::spawn(move || answer(from, to, &left));
                thread::spawn(move || {
                    let _ = io::copy(&mut &client, &mut &server);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        Stalling { address, left }
    }

    fn allow(&self, bytes: usize) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

/// Moves what a server says, as far as it may come. The client's connection stays open when no more may.
fn answer(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(count))
            })
            .unwrap();
        let allowed = count.min(before);
        if to.write_all(&buffer[..allowed]).is_err() || allowed < count {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The sizes of the blobs that have come in part.
fn partial(home: &Home) -> Vec<u64> {
    let entries = fs::read_dir(home.store().join("images/partial"));
    let sizes = entries.into_iter().flatten().flatten();
    sizes.map(|entry| entry.metadata().unwrap().len()).collect()
}

/// Neither an image, nor a layer, nor a container.
#[track_caller]
fn assert_nothing_visible(home: &Home) {
    assert_eq!(home.coracle(&["images", "-q"]).ok(), "");
    for place in ["layers", "containers", "names"] {
        let entries = fs::read_dir(home.store().join(place));
        let names = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [""; 0], "{place}");
    }
}

/// As a shell has it for what it runs in the foreground; in the background it is ignored, and stays so.
fn mind_interrupts() {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
}

/// What has come is not fetched again.
#[test]
fn ctrl_c_ends_a_pull_and_a_run_that_the_next_try_goes_on_with() {
    requires!(
        has_tools(),
        "docker-registry, htpasswd, openssl, skopeo or umoci is not installed"
    );
    need_root();
    mind_interrupts();
    let (maker, registry) = (Home::new(), Registry::plain());
    let layout = maker.make_layout(6_000_000);
    maker.coracle(&["pull", "-q", &layout]).ok();
    let direct = registry.image("app:1");
    maker.coracle(&["push", "-q", "layout:v1", &direct]).ok();

    let (home, way) = (Home::new(), Stalling::before(&registry));
    let image = format!("{}/app:1", way.address);
    let mut come = 0;
    for args in [
        &["pull", &image][..],
        &["run", "--rm", "--network=none", &image, "true"],
    ] {
        way.allow(2_000_000);
        let mut terminal = Terminal::open();
        let settings = terminal.settings();
        let mut child = terminal.start(&home.coracle_command(args));
        let now = eventually("a part has come, and no more", || {
            let stalled = way.left.load(Ordering::SeqCst) == 0;
            let size = partial(&home).iter().sum::<u64>();
            (stalled && size > come + 1_000_000).then_some(size)
        });
        terminal.type_in("\x03");
        let status = eventually("it ends", || child.try_wait().unwrap());
        // Which a shell calls 130.
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{args:?}");
        assert_eq!(terminal.settings(), settings);
        assert!(
            !terminal.seen().contains("\x1b[?25l"),
            "the cursor is there"
        );
        assert_nothing_visible(&home);
        assert!(partial(&home).iter().sum::<u64>() >= now, "it stays");
        come = now;
    }
    way.allow(usize::MAX);
    home.coracle(&["pull", &image]).ok();
    let fetched = usize::MAX - way.left.load(Ordering::SeqCst);
    assert!(fetched < 6_000_000 - 1_000_000, "{fetched} bytes once more");
    assert_eq!(home.digest(&image), maker.digest("layout:v1"));
    assert_eq!(partial(&home), [0; 0]);
}

#[test]
fn an_interrupted_pull_ends_at_once() {
    mind_interrupts();
    let home = Home::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/app", silent.local_addr().unwrap());
    let mut pull = home
        .coracle_command(&["pull", &image])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    kill(Pid::from_raw(pull.id().cast_signed()), Signal::SIGINT).unwrap();
    let status = eventually("the pull ends", || pull.try_wait().unwrap());
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
}

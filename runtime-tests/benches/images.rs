//! Times pull and unpack of a large image from a registry on loopback: Coracle, skopeo with umoci, and podman in turn (A B C A B C …).
//!
//! `cargo bench -p runtime-tests --bench images -- [--rounds N]`. Stores are on a tmpfs and new for each run. The ratio is the median
//! of the ratios round by round, so a slow minute hits all sides; processor time and memory are those of all the processes of a side.
//! The floor is what nobody can leave out: hashing what comes, inflating it, hashing that, writing it.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use image::Hasher;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use runtime_tests::{Registry, has_program, need_root, number_of, runtime, shell};
use tempfile::TempDir;

const LAYERS: usize = 5;
/// What a layer has before it is compressed: together more than 300 MB afterwards.
const LAYER_SIZE: u64 = 200_000_000;
/// Where the files of the layers come from.
const FILES: &str = "/usr";

fn main() -> ExitCode {
    need_root();
    let args: Vec<String> = env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--measure") {
        return measure(&args[at + 1..]);
    }
    for program in ["docker-registry", "skopeo", "umoci", "podman"] {
        if !has_program(program) {
            println!("skipped: {program} is not installed");
            return ExitCode::SUCCESS;
        }
    }
    compare(number_of("--rounds", 5));
    ExitCode::SUCCESS
}

/// One way to get an image unpacked: a line of shell, in an empty directory.
struct Peer {
    name: &'static str,
    line: String,
    costs: Vec<Cost>,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Cost {
    /// In seconds.
    clock: f64,
    /// In seconds, of all processes.
    processor: f64,
    /// Of the largest process, in MB.
    memory: f64,
}

fn compare(rounds: usize) {
    let (registry, layers) = (Registry::plain(), directory());
    let name = registry.image("bench:1");
    let size = make(layers.path(), &name);
    println!(
        "{LAYERS} layers, {} MB compressed, {rounds} rounds",
        size / 1_000_000
    );
    let coracle = format!("{} --store store", runtime().display());
    let mut peers = [
        ("coracle pull", format!("{coracle} pull -q {name}")),
        ("coracle unpack", format!("{coracle} unpack -q {name} bundle")),
        (
            "skopeo, umoci",
            format!(
                "skopeo copy -q --src-tls-verify=false docker://{name} oci:layout:1 && umoci unpack --image layout:1 bundle"
            ),
        ),
        (
            "podman pull",
            format!("podman --root $PWD/root --runroot $PWD/run --storage-driver overlay pull -q --tls-verify=false {name}"),
        ),
    ]
    .map(|(name, line)| Peer {
        name,
        line,
        costs: Vec::new(),
    });
    for _ in 0..rounds {
        for peer in &mut peers {
            peer.costs.push(run(&peer.line));
        }
    }
    println!(
        "{:16}{:>9}{:>9}{:>9}   clock and CPU of \"coracle pull\", times this",
        "", "clock", "CPU", "peak RSS"
    );
    for peer in &peers {
        let of = |part: fn(&Cost) -> f64| median(peer.costs.iter().map(part));
        let ratio = |part: fn(&Cost) -> f64| {
            let pairs = std::iter::zip(&peers[0].costs, &peer.costs);
            median(pairs.map(|(ours, theirs)| part(ours) / part(theirs)))
        };
        println!(
            "{:16}{:>7.2} s{:>7.2} s{:>6.1} MB   {:.2} {:.2}",
            peer.name,
            of(|cost| cost.clock),
            of(|cost| cost.processor),
            of(|cost| cost.memory),
            ratio(|cost| cost.clock),
            ratio(|cost| cost.processor)
        );
    }
    let floors = (0..rounds).map(|_| floor(layers.path()));
    println!(
        "{:16}{:>18.2} s   inflate, hash both, write; by one thread",
        "floor",
        median(floors)
    );
}

/// An image of this machine's files, in a layout and in the registry; gives the compressed size of its layers.
fn make(directory: &Path, name: &str) -> u64 {
    let found = shell(&format!(
        "find {FILES} -xdev -type f -printf '%s %P\\n' | sort -k 2"
    ));
    let mut files = found.lines().filter_map(|line| {
        let (size, path) = line.split_once(' ')?;
        Some((size.parse::<u64>().ok()?, path))
    });
    let dir = directory.display();
    shell(&format!(
        "cd {dir} && umoci init --layout layout && umoci new --image layout:1"
    ));
    for layer in 0..LAYERS {
        let (mut list, mut size) = (String::new(), 0);
        while size < LAYER_SIZE
            && let Some((length, path)) = files.next()
        {
            size += length;
            list += &format!("{path}\0");
        }
        assert!(size >= LAYER_SIZE, "{FILES} has too few files");
        fs::write(directory.join("list"), list).expect("a file");
        shell(&format!(
            "cd {dir} && tar -C {FILES} --format=pax --numeric-owner --null --verbatim-files-from -T list -cf {layer}.tar &&
            umoci raw add-layer --image layout:1 {layer}.tar && rm {layer}.tar"
        ));
    }
    shell(&format!(
        "cd {dir} && umoci config --image layout:1 --config.cmd true && skopeo copy -q --dest-tls-verify=false oci:layout:1 docker://{name}"
    ));
    blobs(directory)
        .iter()
        .map(|blob| blob.metadata().expect("a file").len())
        .sum()
}

/// The layers of the layout.
fn blobs(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory.join("layout/blobs/sha256")).expect("a layout");
    all.map(|entry| entry.expect("a blob").path())
        .filter(|path| path.metadata().expect("a file").len() > 1_000_000)
        .collect()
}

/// Runs a line in a directory of its own, under a process that knows of nothing else.
fn run(line: &str) -> Cost {
    let directory = directory();
    let own = env::current_exe().expect("the benchmark's own path");
    let answer = Command::new(own)
        .args(["--measure", line])
        .current_dir(directory.path())
        .stderr(Stdio::inherit())
        .output()
        .expect("the benchmark starts");
    assert!(answer.status.success(), "{line}");
    // Podman's store has mounts of its own.
    let _ = Command::new("umount")
        .arg(directory.path().join("root/overlay"))
        .stderr(Stdio::null())
        .status();
    let said = String::from_utf8(answer.stdout).expect("text");
    let numbers: Vec<f64> = said
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    let [clock, processor, memory] = numbers[..] else {
        panic!("{said}");
    };
    Cost {
        clock,
        processor,
        memory,
    }
}

/// In a process of its own: runs a line of shell, and prints what it and its children took.
fn measure(line: &[String]) -> ExitCode {
    let begun = Instant::now();
    let status = Command::new("sh")
        .arg("-c")
        .args(line)
        .stdout(Stdio::null())
        .status()
        .expect("a shell");
    let clock = begun.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    println!(
        "{clock} {} {}",
        seconds(&usage),
        usage.max_rss() as f64 / 1e3
    );
    match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The processor time of what cannot be left out, in seconds.
fn floor(layers: &Path) -> f64 {
    let place = directory();
    let begun = own_time();
    let mut buffer = vec![0; 128 << 10];
    for blob in blobs(layers) {
        each(File::open(&blob).expect("a blob"), &mut buffer, |_| {});
        let mut out = File::create(place.path().join("layer")).expect("a file");
        let inflated = MultiGzDecoder::new(File::open(&blob).expect("a blob"));
        each(inflated, &mut buffer, |piece| {
            out.write_all(piece).expect("room")
        });
    }
    own_time() - begun
}

/// Reads and hashes to the end.
fn each(mut from: impl Read, buffer: &mut [u8], mut then: impl FnMut(&[u8])) {
    let mut hasher = Hasher::default();
    loop {
        match from.read(buffer).expect("a layer") {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                then(&buffer[..count]);
            }
        }
    }
    drop(hasher.finish());
}

fn own_time() -> f64 {
    seconds(&getrusage(UsageWho::RUSAGE_SELF).expect("getrusage"))
}

fn seconds(usage: &Usage) -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in("/dev/shm")
        .expect("/dev/shm is writable")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! Unpacks blobs without a store: `unpack BUNDLE BLOB DIFF_ID [BLOB DIFF_ID…]`, or `unpack --layers STORE BLOB DIFF_ID…`.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use image::unpack::{self, Layer};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args[0] == unpack::NAME {
        unpack::serve();
    }
    let overlay = args[1] == "--layers";
    let (target, rest) = args[1 + usize::from(overlay)..]
        .split_first()
        .expect("a directory");
    let layers = rest.chunks_exact(2).map(|pair| Layer {
        blob: File::open(&pair[0]).expect("a blob"),
        diff_id: pair[1].parse().expect("a digest"),
    });
    let result = match overlay {
        true => image::layers::ensure(Path::new(target), layers.collect()).map(|paths| {
            for path in paths {
                println!("{}", path.display());
            }
        }),
        false => unpack::rootfs(Path::new(target), layers.collect()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

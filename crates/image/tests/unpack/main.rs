//! Layers into trees, by jailed processes: this program is its own unpacker, as `coracle` is.

mod corpus;
mod jail;
mod results;
mod tar;
mod umoci;

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args[0].as_str() {
        image::unpack::NAME => image::unpack::serve(&std::env::args().skip(1).collect::<Vec<_>>()),
        jail::NAME => jail::probe(&args[1], args[2] == "free"),
        _ => {}
    }
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    for tests in [corpus::TESTS, jail::TESTS, results::TESTS, umoci::TESTS] {
        for (name, test) in tests {
            if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
                continue;
            }
            let passed = catch_unwind(test).is_ok();
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            failed += usize::from(!passed);
        }
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A test with its name.
type Test = (&'static str, fn());

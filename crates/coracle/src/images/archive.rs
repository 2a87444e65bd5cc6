//! `save` and `load`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use image::{Format, Image, Reference};

use super::named;
use super::progress::Bars;
use super::transfer::pull_options;
use crate::commands::{Invocation, answer, failure};
use crate::{Failure, Outcome};

pub(super) fn load(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let input = flags.text("input").unwrap_or("-");
    if input == "-" && io::stdin().is_terminal() {
        return Err(Failure::new(
            "load: no archive comes from a terminal: name a file with --input",
        ));
    }
    let options = pull_options(invocation)?;
    let store = invocation.store()?;
    let progress = Bars::new(flags.is_set("quiet"));
    let images = image::load(&store, Path::new(input), &options, &progress)?;
    answer(&images.iter().map(loaded).collect::<String>())
}

fn loaded(image: &Image) -> String {
    if image.names.is_empty() {
        return format!("Loaded image ID: {}\n", image.id());
    }
    let familiar = |name: &String| {
        name.parse()
            .map_or(name.clone(), |name: Reference| name.familiar())
    };
    image
        .names
        .iter()
        .map(|name| format!("Loaded image: {}\n", familiar(name)))
        .collect()
}

pub(super) fn save(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let format: Format = flags.text("format").unwrap_or_default().parse()?;
    let store = invocation.store()?;
    let _hold = store.hold()?;
    let images = named(invocation, &store)?;
    match flags.text("output") {
        None | Some("-") if io::stdout().is_terminal() => {
            return Err(Failure::new(
                "save: an archive is nothing for a terminal: name a file with --output",
            ));
        }
        None | Some("-") => image::save(&store, &images, format, &mut io::stdout().lock())?,
        Some(path) => {
            let mut file = Replacement::of(Path::new(path))?;
            image::save(&store, &images, format, &mut file.output)?;
            file.finish()?;
        }
    }
    Ok(0)
}

/// A file that replaces another one when it is complete; what is no file, such as a pipe, is written at once.
struct Replacement {
    output: BufWriter<File>,
    path: PathBuf,
    temporary: Option<PathBuf>,
}

impl Replacement {
    fn of(path: &Path) -> Result<Self, Failure> {
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = (!is_special).then(|| path.with_file_name(name));
        let open = temporary.as_deref().unwrap_or(path);
        let file = OpenOptions::new()
            .write(true)
            .create(!is_special)
            .truncate(!is_special)
            .open(open);
        let file = file.map_err(|error| failure(format!("write {}", path.display()), error))?;
        Ok(Replacement {
            output: BufWriter::with_capacity(256 << 10, file),
            path: path.to_owned(),
            temporary,
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let written = self.output.flush().and_then(|()| match &self.temporary {
            Some(temporary) => fs::rename(temporary, &self.path),
            None => Ok(()),
        });
        written.map_err(|error| failure(format!("write {}", self.path.display()), error))?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

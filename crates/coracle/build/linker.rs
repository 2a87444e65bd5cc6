//! In front of the linker: gcc(1) finds this program as `ld`, by `-B`. It looks at what is to be linked, and tells the linker by parts of its
//! script what shall lie side by side:
//!
//! - functions that start containers, in the order of order.txt, and in the same order the constants that they refer to: the kernel maps 16
//!   pages around each that a process needs;
//! - places in the source that a panic names (`core::panic::Location`): some 1,800, each with an address to relocate, which none but the
//!   panic's message reads. They are left alone until then (src/sys/relocation.rs).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use object::read::elf::ElfFile64;
use object::{
    Endianness, Object as _, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex,
};

/// The parts of the script, and what they tell to lie side by side.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Functions,
    Constants,
    Locations,
}

impl Part {
    const ALL: [Part; 3] = [Part::Functions, Part::Constants, Part::Locations];

    /// Where it is, in the directory for `-B`.
    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(match self {
            Part::Functions => "functions.ld",
            Part::Constants => "constants.ld",
            Part::Locations => "locations.ld",
        })
    }
}

/// What `cc` would have called, in the directory for `-B`.
const REAL: &str = "the-linker";

/// Makes a directory for `-B` below this one. The parts are empty until this program has been called.
pub(crate) fn install(out: &Path, cc: &OsStr) -> io::Result<PathBuf> {
    let directory = out.join("linker");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory)?;
    for part in Part::ALL {
        fs::write(part.path(&directory), "")?;
    }
    let answer = Command::new(cc).arg("-print-prog-name=ld").output()?;
    let real = String::from_utf8_lossy(&answer.stdout);
    let real = find(real.trim()).ok_or(io::ErrorKind::NotFound)?;
    symlink(real, directory.join(REAL))?;
    symlink(env::current_exe()?, directory.join("ld"))?;
    Ok(directory)
}

/// A program's path, as a shell would find it.
fn find(name: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH")?;
    let mut paths = env::split_paths(&directories).map(|directory| directory.join(name));
    paths.find(|path| path.is_file())
}

/// Whether this program is to be the linker, and what it was called by.
pub(crate) fn called() -> Option<PathBuf> {
    let name = PathBuf::from(env::args_os().next()?);
    (name.file_name() == Some(OsStr::new("ld"))).then_some(name)
}

/// Writes the parts of the script and becomes the linker.
pub(crate) fn main(name: &Path) -> io::Error {
    let directory = name.parent().expect("it was called by its path");
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    // All that is Rust's has become one.
    let is_rusts = |arg: &&OsString| arg.to_string_lossy().ends_with(".rcgu.o");
    let mut objects = args.iter().filter(is_rusts);
    let written = match (objects.next(), objects.next()) {
        (Some(path), None) => write_parts(Path::new(path), directory),
        _ => Ok(()),
    };
    match written {
        Ok(()) => Command::new(directory.join(REAL)).args(args).exec(),
        Err(error) => error,
    }
}

fn write_parts(path: &Path, directory: &Path) -> io::Result<()> {
    let data = fs::read(path)?;
    let object = ElfFile64::parse(&*data).map_err(io::Error::other)?;
    let object = Object::of(&object);
    let (functions, constants) = object.in_order();
    for (part, names) in [
        (Part::Functions, functions),
        (Part::Constants, constants),
        (Part::Locations, object.locations()),
    ] {
        let statement = |name| format!("*({name})\n");
        let statements: String = names.into_iter().map(statement).collect();
        fs::write(part.path(directory), statements)?;
    }
    Ok(())
}

/// An object file and the names of its sections.
struct Object<'data> {
    file: &'data ElfFile64<'data, Endianness>,
    names: BTreeMap<usize, &'data str>,
}

impl<'data> Object<'data> {
    fn of(file: &'data ElfFile64<'data, Endianness>) -> Self {
        let named = |section: object::read::elf::ElfSection64<'data, 'data>| {
            let name = section.name_bytes().ok()?;
            Some((section.index().0, str::from_utf8(name).ok()?))
        };
        let names = file.sections().filter_map(named).collect();
        Object { file, names }
    }

    /// The sections of functions in order.txt, and of the constants that they refer to.
    fn in_order(&self) -> (Vec<String>, Vec<String>) {
        let mut found: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, name) in &self.names {
            if let Some(function) = function(name) {
                found.entry(function).or_default().push(*index);
            }
        }
        let (mut functions, mut constants) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for name in include_str!("../order.txt").lines() {
            let own = found.remove(name).unwrap_or_default();
            // The C library's lie in an archive.
            if own.is_empty() && !name.starts_with("_R") {
                functions.push(format!(".text.{name}"));
            }
            for index in own {
                functions.push(self.names[&index].to_owned());
                self.constants_of(index, &mut seen, &mut constants);
            }
        }
        (functions, constants)
    }

    /// Adds the constants that a section refers to, by itself or by tables.
    fn constants_of(&self, from: usize, seen: &mut HashSet<usize>, constants: &mut Vec<String>) {
        let Ok(section) = self.file.section_by_index(SectionIndex(from)) else {
            return;
        };
        for (_, relocation) in section.relocations() {
            let Some((to, _)) = self.target(&relocation) else {
                continue;
            };
            let name = self.names.get(&to).copied().unwrap_or_default();
            let is_constant = name.starts_with(".rodata.") && !is_shared(name);
            let is_table = name.starts_with(".data.rel.ro.") && self.is_location(to) != Some(true);
            if (is_constant || is_table) && seen.insert(to) {
                if is_constant {
                    constants.push(name.to_owned());
                }
                self.constants_of(to, seen, constants);
            }
        }
    }

    /// The sections that hold nothing but one place in the source each.
    fn locations(&self) -> Vec<String> {
        let is_location = |index: &usize| self.is_location(*index) == Some(true);
        let found = self.names.iter().filter(|(index, _)| is_location(index));
        found.map(|(_, name)| (*name).to_owned()).collect()
    }

    /// `{ file: &str, line: u32, column: u32 }`, and the file is one of Rust.
    fn is_location(&self, index: usize) -> Option<bool> {
        let section = self.file.section_by_index(SectionIndex(index)).ok()?;
        if section.size() != 24 || !self.names[&index].starts_with(".data.rel.ro.") {
            return Some(false);
        }
        let mut relocations = section.relocations();
        let ((0, file), None) = (relocations.next()?, relocations.next()) else {
            return Some(false);
        };
        let data = section.data().ok()?;
        let length = u64::from_le_bytes(data[8..16].try_into().ok()?);
        let number = |at| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
        let (texts, start) = self.target(&file)?;
        let texts = self.file.section_by_index(SectionIndex(texts)).ok()?;
        let name = texts.data_range(start, length).ok()??;
        Some(name.ends_with(b".rs") && number(16) > 0 && number(20) > 0)
    }

    /// The section that an address lies in, and where in it.
    fn target(&self, relocation: &object::Relocation) -> Option<(usize, u64)> {
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            return None;
        };
        let symbol = self.file.symbol_by_index(symbol).ok()?;
        let offset = symbol.address().wrapping_add_signed(relocation.addend());
        Some((symbol.section_index()?.0, offset))
    }
}

/// Constants of one size, and texts that end with 0, which the linker makes one of where they are equal: main.rs places them.
fn is_shared(section: &str) -> bool {
    section.starts_with(".rodata.cst") || section.starts_with(".rodata.str")
}

/// The name of the function whose section this is, as order.txt has it.
fn function(section: &str) -> Option<String> {
    let name = section.strip_prefix(".text.")?;
    let name = name.strip_prefix("unlikely.").unwrap_or(name);
    // One that several compilation units have gets a number at its end.
    Some(without_hashes(match name.rsplit_once('.') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }))
}

/// A name in v0 mangling without what tells crates of one name apart, which changes with their features and dependencies:
/// `Cs4fqI2P2rA04_3std` becomes `C3std`.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hash = part.find(|letter: char| !letter.is_ascii_alphanumeric());
        match hash {
            Some(end) if part[end..].starts_with('_') => {
                result.push('C');
                result.push_str(&part[end + 1..]);
            }
            _ => {
                result.push_str("Cs");
                result.push_str(part);
            }
        }
    }
    result
}

//! In front of the linker: gcc(1) finds this program as `ld`, by `-B`. It looks at what is to be linked, and tells the linker by parts of its
//! script what shall lie side by side:
//!
//! - functions that start containers, in the order of order.txt, and in the same order the constants that they refer to: the kernel maps 16
//!   pages around each that a process needs;
//! - places in the source that a panic names (`core::panic::Location`): some 1,800, each with an address to relocate, which none but the
//!   panic's message reads; and constants with addresses that cannot be got at but by way of [`BEHIND`]. Both are relocated when their
//!   time comes (src/sys/relocation.rs).

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
    Rest,
}

impl Part {
    pub(crate) const ALL: [Part; 4] = [
        Part::Functions,
        Part::Constants,
        Part::Locations,
        Part::Rest,
    ];

    /// Where it is, in the directory for `-B`.
    pub(crate) fn path(self, directory: &Path) -> PathBuf {
        directory.join(match self {
            Part::Functions => "functions.ld",
            Part::Constants => "constants.ld",
            Part::Locations => "locations.ld",
            Part::Rest => "rest.ld",
        })
    }
}

/// The function that is only executed when all constants have been relocated, once for each kind of work (src/sys/relocation.rs).
const BEHIND: &str = "7coracle3sys10relocation6behind";

/// What `cc` would have called, in the directory for `-B`.
const REAL: &str = "the-linker";

/// Makes a directory for `-B` below this one. The parts are empty until this program has been called.
pub(crate) fn install(out: &Path, cc: &OsStr) -> io::Result<PathBuf> {
    let directory = out.join("linker");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory)?;
    empty_parts(&directory)?;
    let answer = Command::new(cc).arg("-print-prog-name=ld").output()?;
    let real = String::from_utf8_lossy(&answer.stdout);
    let real = find(real.trim()).ok_or(io::ErrorKind::NotFound)?;
    symlink(real, directory.join(REAL))?;
    symlink(env::current_exe()?, directory.join("ld"))?;
    Ok(directory)
}

fn empty_parts(directory: &Path) -> io::Result<()> {
    let mut parts = Part::ALL.into_iter();
    parts.try_for_each(|part| fs::write(part.path(directory), ""))
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
        // What has been told of another object may be wrong of these.
        _ => empty_parts(directory),
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
        (Part::Rest, object.behind()),
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
        for to in self.targets(from) {
            let name = self.names.get(&to).copied().unwrap_or_default();
            let is_constant = name.starts_with(".rodata.") && !is_shared(name);
            if (is_constant || self.is_table(to)) && seen.insert(to) {
                if is_constant {
                    constants.push(name.to_owned());
                }
                self.constants_of(to, seen, constants);
            }
        }
    }

    /// The sections of constants with addresses that nothing refers to, in however many steps, but by way of [`BEHIND`].
    fn behind(&self) -> Vec<String> {
        let is_behind = |name: &str| name.starts_with(".text.") && name.contains(BEHIND);
        let behind = self.names.iter().filter(|(_, name)| is_behind(name));
        let mut seen: HashSet<usize> = behind.map(|(index, _)| *index).collect();
        if seen.is_empty() {
            return Vec::new();
        }
        // What other files may know by name, and what is executed before `main`.
        let global = self.file.symbols().filter(|symbol| symbol.is_global());
        let global = global.filter_map(|symbol| Some(symbol.section_index()?.0));
        let is_start = |(_, name): &(&usize, &&str)| name.contains("_array");
        let starts = self.names.iter().filter(is_start).map(|(index, _)| *index);
        let mut rest: Vec<usize> = global.chain(starts).collect();
        seen.extend(&rest);
        while let Some(from) = rest.pop() {
            rest.extend(self.targets(from).into_iter().filter(|to| seen.insert(*to)));
        }
        let is_behind = |index: &usize| !seen.contains(index) && self.is_table(*index);
        let found = self.names.iter().filter(|(index, _)| is_behind(index));
        found.map(|(_, name)| (*name).to_owned()).collect()
    }

    /// The sections that hold nothing but one place in the source each.
    fn locations(&self) -> Vec<String> {
        let found = self.names.iter();
        let found = found.filter(|(index, _)| self.is_location(**index));
        found.map(|(_, name)| (*name).to_owned()).collect()
    }

    /// Nothing but one place in the source.
    fn is_location(&self, index: usize) -> bool {
        let file = self.file_of_location(index);
        file.is_some_and(|name| name.ends_with(b".rs"))
    }

    /// What `file` is, if this has the form `{ file: &str, line: u32, column: u32 }`.
    fn file_of_location(&self, index: usize) -> Option<&'data [u8]> {
        let section = self.file.section_by_index(SectionIndex(index)).ok()?;
        if section.size() != 24 || !self.names.get(&index)?.starts_with(".data.rel.ro.") {
            return None;
        }
        let mut relocations = section.relocations();
        let ((0, file), None) = (relocations.next()?, relocations.next()) else {
            return None;
        };
        let data = section.data().ok()?;
        let length = u64::from_le_bytes(data[8..16].try_into().ok()?);
        let number = |at| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
        if number(16) == 0 || number(20) == 0 {
            return None;
        }
        let (texts, start) = self.target(&file)?;
        let texts = self.file.section_by_index(SectionIndex(texts)).ok()?;
        texts.data_range(start, length).ok()?
    }

    /// Constants with addresses, which no panic needs.
    fn is_table(&self, index: usize) -> bool {
        let name = self.names.get(&index);
        let has_addresses = name.is_some_and(|name| name.starts_with(".data.rel.ro."));
        has_addresses && !self.is_location(index)
    }

    /// The sections that one refers to.
    fn targets(&self, from: usize) -> Vec<usize> {
        let section = self.file.section_by_index(SectionIndex(from));
        let relocations = section
            .into_iter()
            .flat_map(|section| section.relocations());
        let targets = relocations.filter_map(|(_, relocation)| self.target(&relocation));
        targets.map(|(section, _)| section).collect()
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
    let (mut result, mut rest) = (String::new(), name);
    while let Some((before, behind)) = rest.split_once("Cs") {
        result.push_str(before);
        let hash_end = behind.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
        if let Some(next) = hash_end.strip_prefix('_') {
            result.push('C');
            rest = next;
        } else {
            result.push_str("Cs");
            rest = behind;
        }
    }
    result + rest
}

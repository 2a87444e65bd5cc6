//! The log of a container: a JSON object for each line, as Docker's json-file driver writes it, in `log` and, once that has become too
//! large, `log.1`, `log.2`, … in the container's directory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use humantime::{format_rfc3339_nanos, parse_rfc3339};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use runtime::{Context, Result};
use serde::{Deserialize, Serialize};

use super::control::{CHUNK, Stream};

/// The file that is written to.
pub(crate) const LOG_FILE: &str = "log";

/// `--log-opt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogOptions {
    /// Bytes after which a file is put aside.
    pub(crate) max_size: u64,
    /// How many files are kept.
    pub(crate) max_files: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            max_size: 10 << 20,
            max_files: 3,
        }
    }
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    #[serde(borrow)]
    pub(crate) log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) time: std::borrow::Cow<'a, str>,
}

impl Entry<'_> {
    /// When it was written.
    pub(crate) fn time(&self) -> Option<SystemTime> {
        parse_rfc3339(&self.time).ok()
    }
}

/// Writes the log.
#[derive(Debug)]
pub(crate) struct Log {
    directory: File,
    options: LogOptions,
    /// `None` while it cannot be opened.
    file: Option<File>,
    size: u64,
    /// What has come of a line that is not complete, for each stream.
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Goes on with the log in a container's directory.
    pub(crate) fn open(directory: File, options: LogOptions) -> Self {
        let mut log = Log {
            directory,
            options,
            file: None,
            size: 0,
            partial: [Vec::new(), Vec::new()],
        };
        log.reopen();
        log
    }

    /// Takes what a container has written. A line that cannot be written, on a full disk say, is lost; the container never hears of it.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            // As Docker does: a longer line becomes several, of which only the last ends in a newline.
            while partial.len() + piece.len() > CHUNK {
                let (now, rest) = piece.split_at(CHUNK - partial.len());
                partial.extend_from_slice(now);
                self.write(stream, &partial);
                partial.clear();
                piece = rest;
            }
            partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.write(stream, &partial);
                partial.clear();
            }
        }
        self.partial[stream as usize] = partial;
    }

    /// Writes lines that never got their newline: the container has ended.
    pub(crate) fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                self.write(stream, &partial);
            }
        }
    }

    fn write(&mut self, stream: Stream, line: &[u8]) {
        let entry = Entry {
            log: String::from_utf8_lossy(line),
            stream: match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            }
            .into(),
            time: format_rfc3339_nanos(SystemTime::now()).to_string().into(),
        };
        let Ok(mut text) = serde_json::to_vec(&entry) else {
            return;
        };
        text.push(b'\n');
        if self.size + text.len() as u64 > self.options.max_size && self.size > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write(&text) {
                Ok(written) if written == text.len() => self.size += written as u64,
                // Half a line must not stand before the next one.
                Ok(_) => drop(file.set_len(self.size)),
                Err(_) => {}
            }
        }
    }

    fn rotate(&mut self) {
        let name = |number| match number {
            0 => LOG_FILE.to_owned(),
            number => format!("{LOG_FILE}.{number}"),
        };
        let oldest = self.options.max_files.saturating_sub(1);
        if oldest == 0 {
            let _ = unlinkat(&self.directory, LOG_FILE, UnlinkatFlags::NoRemoveDir);
        }
        for number in (0..oldest).rev() {
            let (from, to) = (name(number), name(number + 1));
            let _ = renameat(&self.directory, from.as_str(), &self.directory, to.as_str());
        }
        self.reopen();
    }

    fn reopen(&mut self) {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.file = openat(&self.directory, LOG_FILE, flags, mode)
            .ok()
            .map(File::from);
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.size = metadata.map_or(0, |metadata| metadata.len());
    }
}

/// Reads a log, and goes on reading as it grows.
#[derive(Debug)]
pub(crate) struct LogReader {
    directory: File,
    file: Option<BufReader<File>>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// A reader that stands at the end of what there is, and the last lines before that (all of them for `None`).
    pub(crate) fn open(directory: File, tail: Option<usize>) -> Result<(Self, VecDeque<Vec<u8>>)> {
        let mut reader = LogReader {
            directory,
            file: None,
            inode: 0,
            partial: Vec::new(),
        };
        let mut lines = VecDeque::new();
        let mut keep = |line: Vec<u8>| {
            lines.push_back(line);
            if tail.is_some_and(|tail| lines.len() > tail) {
                lines.pop_front();
            }
        };
        let older = (1..).map_while(|number| reader.open_file(&format!("{LOG_FILE}.{number}")));
        let older: Vec<File> = older.collect();
        for file in older.into_iter().rev() {
            for line in BufReader::new(file).split(b'\n') {
                keep(line.context("read the log")?);
            }
        }
        reader.read_on(&mut keep)?;
        Ok((reader, lines))
    }

    /// Hands out the lines that have been written since.
    pub(crate) fn read_on(&mut self, take: &mut dyn FnMut(Vec<u8>)) -> Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                while file
                    .read_until(b'\n', &mut self.partial)
                    .context("read the log")?
                    > 0
                {
                    if self.partial.ends_with(b"\n") {
                        self.partial.pop();
                        take(std::mem::take(&mut self.partial));
                    }
                }
            }
            // Put aside meanwhile? Then there is nothing more to come in the old one.
            match self.open_file(LOG_FILE) {
                Some(file) if inode(&file) != self.inode => {
                    self.inode = inode(&file);
                    self.partial.clear();
                    self.file = Some(BufReader::new(file));
                }
                _ => return Ok(()),
            }
        }
    }

    fn open_file(&self, name: &str) -> Option<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&self.directory, name, flags, Mode::empty())
            .ok()
            .map(File::from)
    }
}

fn inode(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> (std::path::PathBuf, File) {
        let unique = format!("coracle-log-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let file = File::open(&path).unwrap();
        (path, file)
    }

    fn texts(lines: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| {
                let entry: Entry<'_> = serde_json::from_slice(&line).unwrap();
                assert!(entry.time().is_some());
                format!("{}:{}", entry.stream, entry.log)
            })
            .collect()
    }

    #[test]
    fn lines_are_whole_whatever_pieces_they_come_in() {
        let (path, dir) = directory("pieces");
        let mut log = Log::open(dir.try_clone().unwrap(), LogOptions::default());
        log.take(Stream::Stdout, b"on");
        log.take(Stream::Stderr, b"bad \xff\n");
        log.take(Stream::Stdout, b"e\ntwo\nthr");
        log.flush();
        let (_, lines) = LogReader::open(dir, None).unwrap();
        let expected = [
            "stderr:bad \u{fffd}\n",
            "stdout:one\n",
            "stdout:two\n",
            "stdout:thr",
        ];
        assert_eq!(texts(lines), expected);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_chunk() {
        let (path, dir) = directory("endless");
        let mut log = Log::open(dir.try_clone().unwrap(), LogOptions::default());
        (0..10).for_each(|_| log.take(Stream::Stdout, &[b'x'; 10_000]));
        assert!(log.partial[0].len() <= CHUNK);
        log.take(Stream::Stdout, b"\n");
        let (_, lines) = LogReader::open(dir, None).unwrap();
        let texts = texts(lines);
        assert_eq!(texts.len(), 7);
        assert!(texts[5].ends_with('x') && texts[6].ends_with("x\n"));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn files_are_put_aside_and_the_oldest_forgotten() {
        let (path, dir) = directory("rotation");
        let options = LogOptions {
            max_size: 500,
            max_files: 3,
        };
        let mut log = Log::open(dir.try_clone().unwrap(), options);
        let (mut reader, _) = LogReader::open(dir.try_clone().unwrap(), None).unwrap();
        let mut followed = Vec::new();
        for number in 0..100 {
            log.take(Stream::Stdout, format!("{number}\n").as_bytes());
            reader.read_on(&mut |line| followed.push(line)).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        for name in names {
            assert!(std::fs::metadata(path.join(name)).unwrap().len() <= 500);
        }
        assert_eq!(followed.len(), 100, "a follower sees all");
        let (_, lines) = LogReader::open(dir.try_clone().unwrap(), None).unwrap();
        assert!(lines.len() < 100);
        assert_eq!(texts(lines).last().unwrap(), "stdout:99\n");
        let (_, tail) = LogReader::open(dir, Some(4)).unwrap();
        assert_eq!(texts(tail)[0], "stdout:96\n");
        std::fs::remove_dir_all(path).unwrap();
    }
}

//! What is in a directory that is open already.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::{Whence, lseek};

use super::check;

/// Where the name begins in a `struct linux_dirent64`, and where its kind and its length are.
const NAME: usize = 19;
const KIND: usize = 18;
const LENGTH: usize = 16;

/// The names in a directory but for `.` and `..`.
pub(crate) fn names(directory: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = Vec::new();
    lseek(directory, 0, Whence::SeekSet)?;
    each_entry(directory, &mut [0; 2048], |name, _| {
        names.push(name.to_owned())
    })?;
    Ok(names)
}

/// Calls `found` for each further entry of a directory but for `.` and `..`, with its name and its kind (`DT_*`): getdents64(2), without the
/// second descriptor and the memory that opendir(3) takes. `buffer` has room for one entry at least (280 bytes).
pub(crate) fn each_entry(
    directory: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut found: impl FnMut(&CStr, u8),
) -> nix::Result<()> {
    loop {
        // SAFETY: the kernel writes at most as many bytes as the buffer has.
        let filled = check(unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        })?;
        let mut rest = &buffer[..filled as usize];
        if rest.is_empty() {
            return Ok(());
        }
        while rest.len() > NAME {
            let length = usize::from(u16::from_ne_bytes([rest[LENGTH], rest[LENGTH + 1]]));
            let (entry, others) = rest.split_at(length.clamp(NAME, rest.len()));
            let name = CStr::from_bytes_until_nul(&entry[NAME..]).unwrap_or_default();
            if name != c"." && name != c".." {
                found(name, entry[KIND]);
            }
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir, remove_dir_all, write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn all_names_more_than_once() {
        let path = std::env::temp_dir().join(format!("coracle-names-{}", std::process::id()));
        create_dir(&path).unwrap();
        let wanted: Vec<_> = (0..200)
            .map(|n| format!("a-name-that-takes-room-{n:03}"))
            .collect();
        for name in &wanted {
            write(path.join(name), "").unwrap();
        }
        let directory = File::open(&path).unwrap();
        for _ in 0..2 {
            let mut found = names(directory.as_fd()).unwrap();
            found.sort();
            assert!(found.iter().map(|name| name.to_str().unwrap()).eq(&wanted));
        }
        remove_dir_all(&path).unwrap();
    }
}

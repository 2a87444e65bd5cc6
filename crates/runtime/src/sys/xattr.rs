//! Extended attributes of open files (xattr(7)).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::check;

/// The kernel's own limit of a value, and of a list of names.
const MAX: usize = 64 << 10;

/// flistxattr(2); none where the file system has none.
pub(crate) fn list(file: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = vec![0_u8; MAX];
    // SAFETY: pointer and length are those of the buffer.
    let length =
        check(
            unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) }
                as libc::c_long,
        );
    match length {
        Ok(length) => {
            let names = names[..length as usize].split_inclusive(|byte| *byte == 0);
            Ok(names
                .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
                .map(CStr::to_owned)
                .collect())
        }
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// fgetxattr(2); `None` where the file or its file system has none of this name.
pub(crate) fn get(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; MAX];
    // SAFETY: pointer and length are those of the buffer, and the name is a C string.
    let length = check(unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    } as libc::c_long);
    match length {
        Ok(length) => {
            value.truncate(length as usize);
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// fsetxattr(2).
pub(crate) fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are those of the slice, and the name is a C string.
    check(
        unsafe {
            libc::fsetxattr(
                file.as_raw_fd(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        }
        .into(),
    )
    .map(drop)
}

//! Extended attributes of open files (xattr(7)).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::check;

/// fgetxattr(2) of a value of at most 64 bytes; `None` where the file or its file system has none of this name.
pub(crate) fn get(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 64];
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
        Ok(length) => Ok(Some(value[..length as usize].to_vec())),
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

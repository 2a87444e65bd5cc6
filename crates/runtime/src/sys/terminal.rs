//! The size of a terminal's window (ioctl_tty(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Rows, columns and pixels.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> nix::Result<libc::winsize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one struct winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) };
    check(result.into())?;
    Ok(size)
}

/// Sets what [`window_size`] gives (on either end of a pty).
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> nix::Result<()> {
    // SAFETY: TIOCSWINSZ reads one struct winsize.
    let result = unsafe {
        libc::ioctl(
            terminal.as_raw_fd(),
            libc::TIOCSWINSZ as _,
            std::ptr::from_ref(size),
        )
    };
    check(result.into()).map(drop)
}

//! The program's own addresses. It may lie anywhere in memory, so each address among its constants is made one of this process at the start,
//! which copies the page that it is on: that is half of the page faults of a short command. build/linker.rs has put side by side what can wait:
//! places in the source (`core::panic::Location`), until a panic names one, and what cannot be got at but by way of [`with_all`]. Records of
//! `log` carry the names of such places too: `logging.rs` does not look at them.

use core::arch::asm;
use std::ops::Range;
use std::panic;
use std::sync::Once;

const WORD: usize = size_of::<usize>();

/// Entries of the dynamic section (ELF, gABI): its end, and the packed list of what is relocated.
const DT_NULL: usize = 0;
const DT_RELRSZ: usize = 35;
const DT_RELR: usize = 36;
/// The size of the list, hidden from the C library, which only looks at tags below 37.
const FOLLOWED: usize = DT_RELRSZ | 1 << 32;

/// The address of what the linker knows by a name: by that of the instruction, since no address among the constants is valid yet.
macro_rules! address_of {
    ($name:literal) => {{
        let address: usize;
        #[cfg(target_arch = "x86_64")]
        asm!(concat!("lea {}, [rip + ", $name, "]"), out(reg) address, options(pure, nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        asm!(concat!("adrp {0}, ", $name), concat!("add {0}, {0}, :lo12:", $name), out(reg) address,
            options(pure, nomem, nostack, preserves_flags));
        address
    }};
}

/// Relocates everything that cannot wait, instead of the C library's `_start`. What can lies between `locations` and `rest_end`, by the
/// linker's names.
///
/// # Safety
/// Nothing has been relocated yet.
pub(super) unsafe extern "C" fn relocate() {
    // SAFETY: this is the first time, and these two parts do not overlap with any other.
    unsafe {
        relocate_part(0..address_of!("locations"));
        relocate_part(address_of!("rest_end")..usize::MAX);
    }
}

/// Has the places in the source relocated when a panic names one.
pub(super) fn relocate_for_panics() {
    panic::set_hook(Box::new(|panic| {
        static ONCE: Once = Once::new();
        // SAFETY: they have waited, and this is the only time.
        ONCE.call_once(|| unsafe {
            relocate_part(address_of!("locations")..address_of!("locations_end"))
        });
        crate::logging::to_stderr(&format!("coracle: {panic}"));
    }));
}

/// Whether the rest has been relocated.
static REST: Once = Once::new();

/// Does what needs all of the program's constants. Those that nothing refers to but by way of such work are relocated now, the first time.
pub(crate) fn with_all<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: it has waited, and this is the only time.
    REST.call_once(|| unsafe {
        relocate_part(address_of!("locations_end")..address_of!("rest_end"))
    });
    behind(work)
}

/// build/linker.rs knows the way by this function's name: so it is a function, and like no other one that a compiler could have taken for it.
#[inline(never)]
fn behind<T>(work: impl FnOnce() -> T) -> T {
    if !REST.is_completed() {
        std::process::abort();
    }
    work()
}

/// Adds the program's place in memory to each address among its constants that lies in this part of it. The list has the place of one of them, or,
/// with its lowest bit set, one bit for each of the 63 words that follow (gABI, `SHT_RELR`).
///
/// # Safety
/// Nothing in this part has been relocated.
unsafe fn relocate_part(part: Range<usize>) {
    // SAFETY: the linker has written the lists, and they name words of this program that are written to by nobody else.
    unsafe {
        let program = address_of!("__ehdr_start");
        let (mut list, mut size) = (0, 0);
        let mut entry = address_of!("_DYNAMIC") as *mut [usize; 2];
        while (*entry)[0] != DT_NULL {
            match &mut *entry {
                [DT_RELR, value] => list = *value,
                [tag @ (DT_RELRSZ | FOLLOWED), value] => {
                    size = *value;
                    *tag = FOLLOWED;
                }
                _ => {}
            }
            entry = entry.add(1);
        }
        let relocate = |address: usize| {
            if part.contains(&address) {
                let word = address as *mut usize;
                *word = (*word).wrapping_add(program);
            }
        };
        let mut next = 0;
        for index in 0..size / WORD {
            let word = *((program + list) as *const usize).add(index);
            if word & 1 == 0 {
                relocate(program + word);
                next = program + word + WORD;
                continue;
            }
            let behind = next + 63 * WORD;
            if part.start < behind && next < part.end {
                let mut bits = word >> 1;
                while bits != 0 {
                    relocate(next + bits.trailing_zeros() as usize * WORD);
                    bits &= bits - 1;
                }
            }
            next = behind;
        }
    }
}

//! The program's own addresses. It may lie anywhere in memory, so each address among its constants is made one of this process at the start,
//! which copies the page that it is on: that is half of the page faults of a short command. Places in the source that a panic names
//! (`core::panic::Location`) would be another third of those pages: build/linker.rs has put them side by side, and they are left as they are
//! until there is a panic.

use core::arch::asm;
use std::io::Write;
use std::panic;
use std::sync::Once;

/// Entries of the dynamic section (ELF, gABI): its end, and the packed list of what is relocated.
const DT_NULL: usize = 0;
const DT_RELRSZ: usize = 35;
const DT_RELR: usize = 36;
/// The size of the list, once it has been followed. The C library only looks at tags below 37.
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

/// Relocates everything but places in the source, instead of the C library's `_start`.
///
/// # Safety
/// Nothing has been relocated yet.
pub(super) unsafe extern "C" fn relocate() {
    // SAFETY: none of it has been.
    unsafe { relocate_where(DT_RELRSZ, |is_location| !is_location) };
}

/// Has a panic relocate the places in the source before it names its own.
pub(super) fn relocate_locations_for_panics() {
    panic::set_hook(Box::new(|panic| {
        static ONCE: Once = Once::new();
        // SAFETY: they have been left alone, and this is the only time.
        ONCE.call_once(|| unsafe { relocate_where(FOLLOWED, |is_location| is_location) });
        let message = format!("coracle: {panic}\n");
        let _ = std::io::stderr().write_all(message.as_bytes());
    }));
}

/// Adds the program's place in memory to each address among its constants that is wanted. The list has the address of one of them, or, with its
/// lowest bit set, one bit for each of the 63 words that follow (gABI, `SHT_RELR`).
///
/// # Safety
/// None of those has been relocated; `size_tag` is what the size of the list has at this time.
unsafe fn relocate_where(size_tag: usize, wanted: impl Fn(bool) -> bool) {
    // SAFETY: the linker has written the lists, and they name words of this program that are written to by nobody else.
    unsafe {
        let program = address_of!("__ehdr_start");
        let locations = address_of!("locations")..address_of!("locations_end");
        let (mut list, mut size) = (0, 0);
        let mut entry = address_of!("_DYNAMIC") as *mut [usize; 2];
        while (*entry)[0] != DT_NULL {
            match &mut *entry {
                [DT_RELR, value] => list = *value,
                [tag, value] if *tag == size_tag => {
                    size = *value;
                    *tag = FOLLOWED;
                }
                _ => {}
            }
            entry = entry.add(1);
        }
        let relocate = |address: usize| {
            if wanted(locations.contains(&address)) {
                let word = address as *mut usize;
                *word = (*word).wrapping_add(program);
            }
        };
        let mut next = 0;
        for index in 0..size / size_of::<usize>() {
            let word = *((program + list) as *const usize).add(index);
            if word & 1 == 0 {
                next = program + word;
                relocate(next);
                next += size_of::<usize>();
                continue;
            }
            let mut bits = word >> 1;
            while bits != 0 {
                relocate(next + bits.trailing_zeros() as usize * size_of::<usize>());
                bits &= bits - 1;
            }
            next += 63 * size_of::<usize>();
        }
    }
}

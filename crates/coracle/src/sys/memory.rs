//! Memory for a program that lives for a millisecond: a first part that is there from the start, and is never given back.
//!
//! Each request of musl's own allocator for more is a system call, and so is much of what it gives back. Most commands need less than
//! [`FIRST`] in all; what stays long, as the monitor does, goes on with musl's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the first part. Pages of it that nobody touches take no memory.
const FIRST: usize = 256 << 10;

/// What malloc(3) aligns everything to, and who hands bytes to the kernel as structures (cmsg(3)) takes for granted.
const MALLOCS: usize = 16;

/// Behind the other variables (link.ld), so that those lie on few pages.
#[global_allocator]
#[unsafe(link_section = ".bss.large")]
static MEMORY: Memory = Memory {
    first: UnsafeCell::new([0; FIRST]),
};

/// How much of the first part is handed out.
static USED: AtomicUsize = AtomicUsize::new(0);

/// The first part, handed out from its beginning to its end, and after it the system's allocator.
struct Memory {
    first: UnsafeCell<[u8; FIRST]>,
}

// SAFETY: bytes of `first` are only touched by whom they were handed out to, and `USED` sees to it that nobody gets them twice.
unsafe impl Sync for Memory {}

impl Memory {
    /// Where the first part begins.
    fn start(&self) -> *mut u8 {
        self.first.get().cast()
    }

    /// How far into the first part an address lies; `None` when it is the system's.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = (block as usize).wrapping_sub(self.start() as usize);
        (offset < FIRST).then_some(offset)
    }

    /// Makes the block from `offset` to `old` end at `new`, if it is the last one that was handed out and there is room.
    fn resize_last(&self, old: usize, new: usize) -> bool {
        let (relaxed, fits) = (Ordering::Relaxed, new <= FIRST);
        fits && USED.compare_exchange(old, new, relaxed, relaxed).is_ok()
    }
}

// SAFETY: a block lies in the first part, aligned and for nobody else since `USED` has gone past it, or is the system's.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let aligned = |used: usize| {
            let start = self.start() as usize;
            (start + used).next_multiple_of(layout.align().max(MALLOCS)) - start
        };
        let end = |used| {
            aligned(used)
                .checked_add(layout.size())
                .filter(|end| *end <= FIRST)
        };
        match USED.try_update(Ordering::Relaxed, Ordering::Relaxed, end) {
            // SAFETY: `end` has just been found to lie within the first part.
            Ok(used) => unsafe { self.start().add(aligned(used)) },
            // SAFETY: what is asked of this function is passed on.
            Err(_) => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) => drop(self.resize_last(offset + layout.size(), offset)),
            // SAFETY: it came from there, with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: it came from there, with this layout.
            return unsafe { System.realloc(block, layout, size) };
        };
        if size <= layout.size() || self.resize_last(offset + layout.size(), offset + size) {
            return block;
        }
        // SAFETY: the caller has seen to it that size and alignment are valid, and the new block is another one, and larger.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size());
                self.dealloc(block, layout);
            }
            new
        }
    }
}

//! Where the kernel starts the program: [`program_entry`], which build/main.rs names to the linker, before the C library's `_start`.
//!
//! A command that puts a process into a container has the program executed a second time, from where the container cannot reach it
//! (`runtime::protect`). Each start relocates 45 kB of addresses, prepares the C library and reads arguments, some 20 page faults; the
//! first one does without them, if that is all that it is for. Where anything is missing here, `runtime::protect` sees to it later.
//!
//! Nothing has been relocated yet and there is no thread-local storage: no static addresses, no `errno`, no function of the C library.

use core::arch::{asm, naked_asm};
use core::ffi::c_char;
use core::mem::MaybeUninit;

use nix::libc;

use runtime::{SYS_OPEN_TREE_ATTR, system_call as call};

use super::OUT_OF_REACH;
use super::relocation::relocate;

/// The kernel's first instruction of this program, its stack as execve(2) leaves it: the number of arguments, and two lists that end with null.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn program_entry() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rdi, rsp", "call {}", "call {}", "xor edx, edx", "jmp _start", sym protect, sym relocate);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x0, sp", "bl {}", "bl {}", "mov x0, xzr", "b _start", sym protect, sym relocate);
}

/// Executes the program again from a read-only, detached copy of its mount. Returns where that is not needed, or not to be had.
///
/// # Safety
/// `stack` is the process's first one.
unsafe extern "C" fn protect(stack: *const usize) {
    // SAFETY: the stack has this form, and the kernel has put the arguments' strings above it.
    unsafe {
        let args = stack.add(1).cast::<*const c_char>();
        let environment = args.add(*stack + 1);
        if !(1..*stack).any(|index| enters_containers(*args.add(index))) {
            return;
        }
        let own = c"/proc/self/exe".as_ptr() as usize;
        let mut mount = MaybeUninit::<libc::statfs>::uninit();
        let asked = call(
            libc::SYS_statfs,
            [own, mount.as_mut_ptr() as usize, 0, 0, 0],
        );
        if asked != 0 {
            return;
        }
        // Where it is out of reach already, this is the second start.
        if mount.assume_init().f_flags & libc::ST_RDONLY != 0 {
            #[cfg(target_arch = "x86_64")]
            asm!("mov byte ptr [rip + {}], 1", sym OUT_OF_REACH, options(nostack));
            #[cfg(target_arch = "aarch64")]
            asm!("adrp {at}, {}", "strb {one:w}, [{at}, :lo12:{}]", sym OUT_OF_REACH, sym OUT_OF_REACH, at = out(reg) _, one = in(reg) 1,
                options(nostack));
            return;
        }
        let here = libc::AT_FDCWD as usize;
        let readonly = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
        let (at, size) = (readonly.as_ptr() as usize, size_of_val(&readonly));
        let (empty, how) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
        // The second start lets go of it, when it can wait for that.
        let flags = libc::OPEN_TREE_CLONE as usize;
        let mut is_set = 0;
        let mut copy = call(SYS_OPEN_TREE_ATTR, [here, own, flags, at, size]);
        if copy < 0 {
            copy = call(libc::SYS_open_tree, [here, own, flags, 0, 0]);
            if copy < 0 {
                return;
            }
            is_set = call(
                libc::SYS_mount_setattr,
                [copy as usize, empty, how, at, size],
            );
        }
        let copy = copy as usize;
        if is_set == 0 {
            let (args, environment) = (args as usize, environment as usize);
            call(libc::SYS_execveat, [copy, empty, args, environment, how]);
        }
        call(libc::SYS_close, [copy, 0, 0, 0, 0]);
    }
}

/// The commands that do, wherever else such a word may stand.
///
/// # Safety
/// `word` is a C string.
unsafe fn enters_containers(word: *const c_char) -> bool {
    let mut begins = [0; 8];
    for (index, byte) in begins.iter_mut().enumerate() {
        // SAFETY: no byte before it was the last one.
        *byte = unsafe { *word.add(index) } as u8;
        if *byte == 0 {
            break;
        }
    }
    matches!(
        &begins,
        b"run\0\0\0\0\0" | b"create\0\0" | b"exec\0\0\0\0" | b"restore\0"
    )
}

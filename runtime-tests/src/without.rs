//! Runs a command without some system calls: a seccomp filter answers them with an error, as a kernel that does not have them does
//! (`ENOSYS`), or the filter of a container engine around us (`EPERM`). The filter holds for all that the command starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

/// The calls that this crate's tests take away, and what they answer then.
#[derive(Debug, Clone, Default)]
pub struct Without(Vec<(libc::c_long, Errno)>);

impl Without {
    /// The calls of these names answer `ENOSYS`.
    pub fn calls(names: &[&str]) -> Self {
        Self::answering(Errno::ENOSYS, names)
    }

    /// The calls of these names answer `errno`.
    pub fn answering(errno: Errno, names: &[&str]) -> Self {
        Self(names.iter().map(|name| (number(name), errno)).collect())
    }

    /// What Linux 5.10 lacks of what later kernels have and the runtime may use.
    pub fn linux_5_10() -> Self {
        Self::calls(&["mount_setattr", "open_tree_attr"])
    }

    /// Puts the filter around a command.
    pub fn apply(&self, command: &mut Command) {
        if self.0.is_empty() {
            return;
        }
        let program = self.program();
        // SAFETY: the closure allocates nothing: it makes one system call with memory that the parent has filled.
        unsafe { command.pre_exec(move || install(&program)) };
    }

    /// The number is loaded; each call in question is compared, and answered in the instruction behind.
    fn program(&self) -> Vec<libc::sock_filter> {
        let instruction = |code: u32, jf, k| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        };
        let mut program = vec![instruction(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            0,
            0,
        )];
        for (number, errno) in &self.0 {
            let answer = libc::SECCOMP_RET_ERRNO | *errno as u32;
            program.push(instruction(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                1,
                *number as u32,
            ));
            program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, answer));
        }
        program.push(instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ALLOW,
        ));
        program
    }
}

/// Root needs no `no_new_privs` for it.
fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program during the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    Errno::result(answer).map(drop).map_err(io::Error::from)
}

/// This kernel has no call of this name, one of those that [`Without`] can take away.
pub fn kernel_lacks(name: &str) -> bool {
    // SAFETY: bad descriptors, bad flags, bad addresses and a size of 0: these calls refuse such arguments, and touch nothing.
    let answer = unsafe { libc::syscall(number(name), -1, 0, -1, 0, -1) };
    Errno::result(answer) == Err(Errno::ENOSYS)
}

fn number(name: &str) -> libc::c_long {
    // libc does not have it yet.
    const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
    match name {
        "clone3" => libc::SYS_clone3,
        "close_range" => libc::SYS_close_range,
        "faccessat2" => libc::SYS_faccessat2,
        "fsconfig" => libc::SYS_fsconfig,
        "fsmount" => libc::SYS_fsmount,
        "fsopen" => libc::SYS_fsopen,
        "keyctl" => libc::SYS_keyctl,
        "memfd_create" => libc::SYS_memfd_create,
        "mount_setattr" => libc::SYS_mount_setattr,
        "move_mount" => libc::SYS_move_mount,
        "open_tree" => libc::SYS_open_tree,
        "open_tree_attr" => SYS_OPEN_TREE_ATTR,
        "openat2" => libc::SYS_openat2,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "pivot_root" => libc::SYS_pivot_root,
        "sendmsg" => libc::SYS_sendmsg,
        "waitid" => libc::SYS_waitid,
        name => panic!("no test takes {name}(2) away"),
    }
}

//! System call names and numbers.
//!
//! One table serves all ABIs, so that a name is looked up once per profile. At compile time it is packed into one string
//! of names and arrays of small numbers: no pointers, so nothing to relocate at the start of the process.

mod table;

use crate::abi::Abi;
use std::cmp::Ordering;
use std::num::NonZeroU8;
use table::ROWS;

/// A name, and its number in each ABI.
type Row = (&'static str, [u16; 6]);

/// Stands for a call that an ABI does not have.
const NONE: u16 = u16::MAX;

/// Set in the number of every x32 call.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Where arm's private calls begin, such as `cacheflush`, and how they are written in the table.
pub(crate) const ARM_PRIVATE: u32 = 0xf_0000;
const ARM_PRIVATE_IN_TABLE: u16 = 0xf000;

static NAMES: [u8; NAMES_LEN] = packed_names();
static NAME_STARTS: [u16; ROWS.len() + 1] = name_starts();
static NUMBERS: [[u16; 6]; ROWS.len()] = numbers();

const NAMES_LEN: usize = name_starts()[ROWS.len()] as usize;

const fn name_starts() -> [u16; ROWS.len() + 1] {
    let mut starts = [0; ROWS.len() + 1];
    let mut row = 0;
    while row < ROWS.len() {
        starts[row + 1] = starts[row] + ROWS[row].0.len() as u16;
        row += 1;
    }
    starts
}

const fn packed_names() -> [u8; NAMES_LEN] {
    let mut names = [0; NAMES_LEN];
    let (mut row, mut at) = (0, 0);
    while row < ROWS.len() {
        let (name, _) = names.split_at_mut(at + ROWS[row].0.len());
        name.split_at_mut(at)
            .1
            .copy_from_slice(ROWS[row].0.as_bytes());
        at += ROWS[row].0.len();
        row += 1;
    }
    names
}

const fn numbers() -> [[u16; 6]; ROWS.len()] {
    let mut numbers = [[NONE; 6]; ROWS.len()];
    let mut row = 0;
    while row < ROWS.len() {
        numbers[row] = ROWS[row].1;
        row += 1;
    }
    numbers
}

/// A system call that at least one ABI has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syscall(u16);

impl Syscall {
    /// `None` if no ABI has a call of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, ROWS.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match Self(middle as u16).name().cmp(name.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(Self(middle as u16)),
            }
        }
        None
    }

    /// The number that the kernel reports when a program makes this call by `abi`.
    pub(crate) fn number(self, abi: Abi) -> Option<u32> {
        let number = NUMBERS[usize::from(self.0)][abi as usize];
        match abi {
            _ if number == NONE => None,
            Abi::X32 => Some(u32::from(number) | X32_BIT),
            Abi::Arm if number >= ARM_PRIVATE_IN_TABLE => {
                Some(u32::from(number - ARM_PRIVATE_IN_TABLE) + ARM_PRIVATE)
            }
            _ => Some(u32::from(number)),
        }
    }

    /// The call that this one can also be made through, and the code that it has there as the first argument. Of our
    /// ABIs only x86 has such calls.
    pub(crate) fn multiplexed(self, abi: Abi) -> Option<(u32, NonZeroU8)> {
        if abi != Abi::X86 {
            return None;
        }
        const SOCKETCALL: u32 = 102;
        const IPC: u32 = 117;
        let (number, code) = match self.name() {
            b"socket" => (SOCKETCALL, 1),
            b"bind" => (SOCKETCALL, 2),
            b"connect" => (SOCKETCALL, 3),
            b"listen" => (SOCKETCALL, 4),
            b"accept" => (SOCKETCALL, 5),
            b"getsockname" => (SOCKETCALL, 6),
            b"getpeername" => (SOCKETCALL, 7),
            b"socketpair" => (SOCKETCALL, 8),
            b"send" => (SOCKETCALL, 9),
            b"recv" => (SOCKETCALL, 10),
            b"sendto" => (SOCKETCALL, 11),
            b"recvfrom" => (SOCKETCALL, 12),
            b"shutdown" => (SOCKETCALL, 13),
            b"setsockopt" => (SOCKETCALL, 14),
            b"getsockopt" => (SOCKETCALL, 15),
            b"sendmsg" => (SOCKETCALL, 16),
            b"recvmsg" => (SOCKETCALL, 17),
            b"accept4" => (SOCKETCALL, 18),
            b"recvmmsg" => (SOCKETCALL, 19),
            b"sendmmsg" => (SOCKETCALL, 20),
            b"semop" => (IPC, 1),
            b"semget" => (IPC, 2),
            b"semctl" => (IPC, 3),
            b"semtimedop" => (IPC, 4),
            b"msgsnd" => (IPC, 11),
            b"msgrcv" => (IPC, 12),
            b"msgget" => (IPC, 13),
            b"msgctl" => (IPC, 14),
            b"shmat" => (IPC, 21),
            b"shmdt" => (IPC, 22),
            b"shmget" => (IPC, 23),
            b"shmctl" => (IPC, 24),
            _ => return None,
        };
        Some((number, NonZeroU8::new(code)?))
    }

    fn name(self) -> &'static [u8] {
        let row = usize::from(self.0);
        &NAMES[usize::from(NAME_STARTS[row])..usize::from(NAME_STARTS[row + 1])]
    }
}

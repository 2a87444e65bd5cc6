//! System call names and numbers.
//!
//! One table serves all ABIs, so that a name is looked up once per profile. At compile time it is packed into one string
//! of names and arrays of small numbers: no pointers, so nothing to relocate at the start of the process.

mod table;

use crate::abi::Abi;
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
static PLACES: [u16; 2 * ROWS.len().next_power_of_two()] = places();
static CODES: [(u8, u8); ROWS.len()] = codes();

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

/// Rows by the hashes of their names: in the first free place from there on, [`NONE`] where there is none.
const fn places() -> [u16; PLACES.len()] {
    let mut places = [NONE; PLACES.len()];
    let mut row = 0;
    while row < ROWS.len() {
        let mut place = place_of(ROWS[row].0.as_bytes());
        while places[place] != NONE {
            place = next_place(place);
        }
        places[place] = row as u16;
        row += 1;
    }
    places
}

/// Where to begin to look for a name (FNV-1a).
const fn place_of(name: &[u8]) -> usize {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % PLACES.len()
}

const fn next_place(place: usize) -> usize {
    (place + 1) % PLACES.len()
}

const SOCKETCALL: u8 = 102;
const IPC: u8 = 117;

/// The calls of x86 that can also be made through another one, which one, and their codes as its first argument.
const MULTIPLEXED: [(&str, u8, u8); 32] = [
    ("socket", SOCKETCALL, 1),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("listen", SOCKETCALL, 4),
    ("accept", SOCKETCALL, 5),
    ("getsockname", SOCKETCALL, 6),
    ("getpeername", SOCKETCALL, 7),
    ("socketpair", SOCKETCALL, 8),
    ("send", SOCKETCALL, 9),
    ("recv", SOCKETCALL, 10),
    ("sendto", SOCKETCALL, 11),
    ("recvfrom", SOCKETCALL, 12),
    ("shutdown", SOCKETCALL, 13),
    ("setsockopt", SOCKETCALL, 14),
    ("getsockopt", SOCKETCALL, 15),
    ("sendmsg", SOCKETCALL, 16),
    ("recvmsg", SOCKETCALL, 17),
    ("accept4", SOCKETCALL, 18),
    ("recvmmsg", SOCKETCALL, 19),
    ("sendmmsg", SOCKETCALL, 20),
    ("semop", IPC, 1),
    ("semget", IPC, 2),
    ("semctl", IPC, 3),
    ("semtimedop", IPC, 4),
    ("msgsnd", IPC, 11),
    ("msgrcv", IPC, 12),
    ("msgget", IPC, 13),
    ("msgctl", IPC, 14),
    ("shmat", IPC, 21),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shmctl", IPC, 24),
];

/// [`MULTIPLEXED`] by rows; zeros for all other calls.
const fn codes() -> [(u8, u8); ROWS.len()] {
    let mut codes = [(0, 0); ROWS.len()];
    let mut at = 0;
    while at < MULTIPLEXED.len() {
        let (name, number, code) = MULTIPLEXED[at];
        let mut row = 0;
        while !is_same(name.as_bytes(), ROWS[row].0.as_bytes()) {
            row += 1;
        }
        codes[row] = (number, code);
        at += 1;
    }
    codes
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// A system call that at least one ABI has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syscall(u16);

impl Syscall {
    /// `None` if no ABI has a call of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let mut place = place_of(name.as_bytes());
        while PLACES[place] != NONE {
            let call = Self(PLACES[place]);
            if call.name() == name.as_bytes() {
                return Some(call);
            }
            place = next_place(place);
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

    /// The call that this one can also be made through, and the code that it has there as the first argument. Of our ABIs only x86 has such
    /// calls.
    pub(crate) fn multiplexed(self, abi: Abi) -> Option<(u32, NonZeroU8)> {
        if abi != Abi::X86 {
            return None;
        }
        let (number, code) = CODES[usize::from(self.0)];
        Some((u32::from(number), NonZeroU8::new(code)?))
    }

    fn name(self) -> &'static [u8] {
        let row = usize::from(self.0);
        &NAMES[usize::from(NAME_STARTS[row])..usize::from(NAME_STARTS[row + 1])]
    }
}

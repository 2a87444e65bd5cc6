//! Text without an allocation: numbers, paths, and the plan.

use core::ffi::CStr;

/// The digits of a number, at the end of `digits`.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// The number at the beginning of a text.
pub fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

/// A short text that is put together, and always ended by a null byte.
pub struct Text {
    bytes: [u8; 1024],
    length: usize,
}

impl Text {
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut text = Self { bytes: [0; 1024], length: 0 };
        for part in parts {
            text.add(part);
        }
        text
    }

    pub fn add(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        self.bytes[self.length..end].copy_from_slice(part);
        self.length = end;
        self.bytes[end] = 0;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// What is to be done: lines of words, each word ended by a null byte, each line by a record separator, since a word may have newlines.
/// A line's first word says what it is about.
#[derive(Clone, Copy)]
pub struct Plan<'a>(pub &'a [u8]);

impl<'a> Plan<'a> {
    pub fn lines(self) -> impl Iterator<Item = (&'a [u8], Words<'a>)> {
        self.0.split(|&byte| byte == 0x1e).filter_map(|line| {
            let mut words = Words(line);
            Some((words.next()?.to_bytes(), words))
        })
    }

    /// The words of the lines about one thing.
    pub fn about(self, what: &[u8]) -> impl Iterator<Item = Words<'a>> {
        self.lines().filter(move |(first, _)| *first == what).map(|(_, words)| words)
    }

    /// The number in the only line about something; 0 without one.
    pub fn number(self, what: &[u8]) -> u64 {
        self.about(what).map(|mut words| words.number()).next().unwrap_or(0)
    }
}

#[derive(Clone, Copy)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    pub fn word(&mut self) -> &'a CStr {
        self.next().unwrap_or_default()
    }

    pub fn number(&mut self) -> u64 {
        number(self.word().to_bytes())
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        let word = CStr::from_bytes_until_nul(self.0).ok()?;
        self.0 = &self.0[word.count_bytes() + 1..];
        Some(word)
    }
}

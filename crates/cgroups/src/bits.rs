//! Lists of CPUs and memory nodes.

/// As many as the kernel can be built for.
const MAX: usize = 8192;

/// A list such as `0-2,5` (cpuset(7), "Formats") as bits, the lowest byte first; `None` if it is none, or names one that no kernel has.
pub fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (
            first.trim().parse::<usize>().ok()?,
            last.trim().parse::<usize>().ok()?,
        );
        if first > last || last >= MAX {
            return None;
        }
        if bytes.len() <= last / 8 {
            bytes.resize(last / 8 + 1, 0_u8);
        }
        for bit in first..=last {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(bits("0-2,5"), Some(vec![0b10_0111]));
        assert_eq!(bits(" 9 , 0 - 1\n"), Some(vec![0b11, 0b10]));
        assert_eq!(bits("8191").map(|bytes| bytes.len()), Some(1024));
        for bad in [
            "",
            "-",
            "1-",
            "3-1",
            "a",
            "8192",
            "0-9876543210",
            "1,,2",
            "-1",
        ] {
            assert_eq!(bits(bad), None, "{bad}");
        }
    }
}

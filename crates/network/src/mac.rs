//! Link-layer addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A link-layer (MAC) address of six bytes; as text `02:c0:0a:59:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that belongs to an IPv4 address: whoever gets that again is known to the neighbours already. The first byte says
    /// "locally administered".
    pub(crate) fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Mac([0x02, 0xc0, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six bytes in hexadecimal with colons (or dashes) between them. The address of a group is none for an interface.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why| Error::invalid(format!("invalid MAC address {text:?}: {why}"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| invalid("six bytes like 02:42:0a:59:00:02 are wanted"))?;
        }
        if parts.next().is_some() {
            return Err(invalid("it has more than six bytes"));
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(invalid("it is no address of a single interface"));
        }
        Ok(Mac(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac: Mac = "02:C0:0a:59:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:c0:0a:59:00:02");
        assert_eq!(mac, Mac::of(Ipv4Addr::new(10, 89, 0, 2)));
        assert_eq!("02-c0-0a-59-00-02".parse::<Mac>().unwrap(), mac);
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "02:c0:0a:59:00",
            "02:c0:0a:59:00:02:03",
            "2:c0:0a:59:00:02",
            "+2:c0:0a:59:00:02",
            "02:c0:0a:59:00:0g",
            "01:c0:0a:59:00:02",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}

//! Which of an index's images runs here.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::descriptor::{Descriptor, media_type};
use crate::error::{Error, Kind, Result};

/// `os/architecture[/variant]` in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `v8` of arm64, `v3` of amd64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this machine runs best.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", level_of_amd64()),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The image of an index for this platform: operating system and architecture as they are, then the best variant, then
    /// the first. What has no platform is only taken where nothing else is offered.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Result<&'a Descriptor> {
        let images = || {
            manifests.iter().filter(|entry| {
                media_type::is_manifest(&entry.media_type)
                    || media_type::is_index(&entry.media_type)
            })
        };
        let matching: Vec<_> = images()
            .filter(|entry| {
                entry
                    .platform
                    .as_ref()
                    .is_some_and(|other| self.covers(other))
            })
            .collect();
        let by_variant = self.variants().into_iter().find_map(|wanted| {
            matching.iter().find(|entry| {
                let platform = entry.platform.as_ref();
                platform.is_some_and(|platform| platform.level() == wanted)
            })
        });
        if let Some(found) = by_variant.or(matching.first()) {
            return Ok(found);
        }
        let mut without = images().filter(|entry| entry.platform.is_none());
        if let (Some(only), None) = (without.next(), without.next()) {
            return Ok(only);
        }
        let offered: Vec<_> = images()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(ToString::to_string)
            .collect();
        Err(Error::new(
            Kind::NotFound,
            format!(
                "there is no image for {self}, only for: {}",
                offered.join(", ")
            ),
        ))
    }

    /// An error when an image is configured for something else.
    pub(crate) fn require(&self, image: &ImageConfiguration) -> Result<()> {
        let found = Platform {
            os: image.os().to_string(),
            architecture: image.architecture().to_string(),
            variant: None,
        };
        match self.covers(&found) {
            true => Ok(()),
            false => Err(Error::new(
                Kind::NotFound,
                format!("it is for {found}, not for {self}"),
            )),
        }
    }

    /// Operating system and architecture are the same.
    fn covers(&self, other: &Platform) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// The variant, with what it means when it is not told.
    fn level(&self) -> &str {
        match (&self.variant, self.architecture.as_str()) {
            (Some(variant), _) => variant,
            (None, "amd64") => "v1",
            (None, "arm64") => "v8",
            (None, "arm") => "v7",
            _ => "",
        }
    }

    /// The variants that run here, best first.
    fn variants(&self) -> Vec<&str> {
        let all: &[&str] = match self.architecture.as_str() {
            "amd64" => &["v4", "v3", "v2", "v1"],
            "arm" => &["v8", "v7", "v6", "v5"],
            _ => return vec![self.level()],
        };
        let from = all.iter().position(|level| *level == self.level());
        all[from.unwrap_or(all.len())..].to_vec()
    }
}

/// How much of the x86-64 levels this processor has.
fn level_of_amd64() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe")
        {
            return Some("v3");
        }
        if has!("sse4.2") && has!("ssse3") && has!("popcnt") && has!("cmpxchg16b") {
            return Some("v2");
        }
    }
    None
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(Error::invalid(format!(
                "platform {text:?} is not of the form os/architecture[/variant]"
            )));
        }
        let (architecture, implied) = match parts[1].to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), None),
            "aarch64" => ("arm64".to_owned(), None),
            "i386" => ("386".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7")),
            "armel" => ("arm".to_owned(), Some("v6")),
            other => (other.to_owned(), None),
        };
        Ok(Platform {
            os: parts[0].to_ascii_lowercase(),
            architecture,
            variant: parts.get(2).copied().or(implied).map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    /// An index with one image for each platform, its number in the size; `-` has none.
    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |(number, text): (usize, &&str)| Descriptor {
            platform: text.parse().ok(),
            ..Descriptor::new(media_type::MANIFEST, Digest::of(b""), number as u64)
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn the_best_variant_is_chosen() {
        for (wanted, offered, chosen) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some(1)),
            ("linux/amd64", &["windows/amd64", "linux/386"], None),
            (
                "linux/amd64",
                &["unknown/unknown", "linux/amd64", "linux/amd64/v3"],
                Some(1),
            ),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
                Some(1),
            ),
            (
                "linux/amd64/v3",
                &["linux/amd64/v3", "linux/amd64"],
                Some(0),
            ),
            ("linux/amd64/v9", &["linux/amd64"], Some(0)),
            (
                "linux/arm/v7",
                &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"],
                Some(1),
            ),
            ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], Some(0)),
            ("linux/arm64/v8", &["linux/arm64"], Some(0)),
            ("linux/arm64", &["linux/arm64/v8"], Some(0)),
            ("linux/amd64", &["-"], Some(0)),
            ("linux/amd64", &["-", "-"], None),
            ("linux/amd64", &["-", "linux/amd64"], Some(1)),
            ("linux/amd64", &["-", "unknown/unknown"], Some(0)),
            ("linux/amd64", &[], None),
        ] {
            let platform: Platform = wanted.parse().unwrap();
            let index = index(offered);
            let found = platform.choose(&index).ok().map(|found| found.size);
            assert_eq!(found, chosen, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn what_does_not_match_is_named() {
        let platform: Platform = "linux/s390x".parse().unwrap();
        let error = platform
            .choose(&index(&["linux/amd64", "unknown/unknown", "linux/arm/v7"]))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no image for linux/s390x, only for: linux/amd64, linux/arm/v7"
        );
    }

    #[test]
    fn other_words_for_the_same_platform() {
        for (text, platform) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), platform);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(Platform::host().os, "linux");
    }
}

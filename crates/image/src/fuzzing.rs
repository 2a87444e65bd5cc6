//! The parsers of what others write, for the targets below `fuzz/`. Only there with `--cfg fuzzing`.

#![expect(missing_docs, reason = "each is named after what it reads")]

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::convert::{self, Overrides};
use crate::descriptor::media_type::{INDEX, MANIFEST};
use crate::manifest::{self, Document};
use crate::{ImageConfiguration, Reference, auth, registry, unpack, users};

/// No document is an index to one reader and a manifest to another.
pub fn manifest(bytes: &[u8]) {
    let of = |expected| manifest::parse(bytes, expected).ok();
    let (plain, index, image) = (of(None), of(Some(INDEX)), of(Some(MANIFEST)));
    assert!(index.is_none() || image.is_none());
    match plain {
        Some((Document::Index(_), _)) => assert!(image.is_none()),
        Some((Document::Manifest(_), _)) => assert!(index.is_none()),
        None => {}
    }
}

/// What is accepted has a user who is nobody else, and an environment of names with values.
pub fn configuration(bytes: &[u8]) {
    let Ok(image) = serde_json::from_slice::<ImageConfiguration>(bytes) else {
        return;
    };
    let overrides = Overrides::default();
    let _ = convert::check(&image, &overrides);
    let _ = (convert::volumes(&image), convert::stop_signal(&image));
    // No directory with users in it.
    let root = File::open("/sys/fs").expect("every Linux has it");
    if let Ok(spec) = convert::spec(&image, root.as_fd(), &overrides) {
        let process = spec.process().as_ref().expect("it is there");
        assert!(process.user().uid() <= i32::MAX as u32 && process.user().gid() <= i32::MAX as u32);
        let env = process.env().iter().flatten();
        assert!(
            env.into_iter()
                .all(|entry| entry.find('=').is_some_and(|at| at > 0))
        );
        assert!(process.cwd().is_absolute());
    }
}

/// What is accepted is the same when it is read again.
pub fn reference(text: &str) {
    if let Ok(reference) = text.parse::<Reference>() {
        for again in [reference.to_string(), reference.familiar()] {
            assert_eq!(
                again.parse::<Reference>().ok().as_ref(),
                Some(&reference),
                "{again}"
            );
        }
    }
}

pub fn archive(bytes: &[u8]) {
    let mut blob = File::from(memfd_create("layer", MFdFlags::MFD_CLOEXEC).expect("a memfd"));
    blob.write_all(bytes)
        .and_then(|()| blob.rewind())
        .expect("memory");
    unpack::read(blob);
}

pub fn accounts(text: &str) {
    users::parse(text);
}

pub fn credentials(text: &str) {
    auth::parse(text);
}

pub fn challenge(text: &str) {
    registry::parse_challenge(text);
}

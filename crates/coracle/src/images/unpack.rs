//! `unpack`: a bundle for any runtime.

use std::path::Path;

use image::{Kind, Source};

use super::progress::Bars;
use super::transfer::pull_options;
use crate::Outcome;
use crate::commands::Invocation;

pub(super) fn unpack(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let (name, bundle) = (invocation.id(), Path::new(&flags.args[1]));
    let store = invocation.store()?;
    let options = pull_options(invocation)?;
    let image = match store.find(name) {
        // For another platform it has to be looked for again.
        Ok(image) if options.platform.is_none() => image,
        Err(error) if error.kind() != Kind::NotFound && name.parse::<Source>().is_err() => {
            return Err(error.into());
        }
        _ => {
            let bars = Bars::new(flags.is_set("quiet"));
            image::pull(&store, &name.parse()?, &options, &bars)?
        }
    };
    image::unpack::bundle(&store, &image, bundle)?;
    Ok(0)
}

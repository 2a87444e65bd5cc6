//! `unpack`: a bundle for any runtime.

use std::path::Path;

use image::Kind;

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
        Err(error) if error.kind() != Kind::NotFound => return Err(error.into()),
        // For another platform it has to be looked for again.
        Ok(image) if options.platform.is_none() => image,
        _ => {
            let bars = Bars::new(flags.is_set("quiet"));
            image::pull(&store, &name.parse()?, &options, &bars)?
        }
    };
    image::unpack::bundle(&store, &image, bundle)?;
    Ok(0)
}

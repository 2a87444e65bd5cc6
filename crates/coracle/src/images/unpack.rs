//! `unpack`: a bundle for any runtime.

use std::path::Path;

use super::progress::Bars;
use super::transfer::{obtain, pull_options};
use crate::Outcome;
use crate::commands::Invocation;
use crate::containers::Pull;

pub(super) fn unpack(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let (name, bundle) = (invocation.id(), Path::new(&flags.args[1]));
    let store = invocation.store()?;
    let options = pull_options(invocation)?;
    let bars = Bars::new(flags.is_set("quiet"));
    let image = obtain(&store, name, Pull::Missing, &options, &bars)?;
    image::unpack::bundle(&store, &image, bundle)?;
    Ok(0)
}

//! `pull` and `push`.

use image::{Context, Image, Kind, PullOptions, PushOptions, Reference, Source, Store};

use super::progress::Bars;
use super::{connection, name_of};
use crate::Outcome;
use crate::commands::{Invocation, answer};
use crate::containers::Pull;

/// The last line is the image's name, as Docker prints it: the name by which it can be run.
pub(super) fn pull(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let source: Source = invocation.id().parse()?;
    let options = PullOptions {
        unpack: flags.switch("unpack").unwrap_or(true),
        ..pull_options(invocation)?
    };
    let store = invocation.store()?;
    let before = digest_of(&store, &source);
    let image = image::pull(&store, &source, &options, &Bars::new(flags.is_set("quiet")))?;
    let name = match (&source, image.names.first()) {
        (Source::Registry(reference), _) => reference.to_string(),
        (_, Some(name)) => name.clone(),
        (_, None) => image.id().to_string(),
    };
    if flags.is_set("quiet") {
        return answer(&format!("{name}\n"));
    }
    let digest = &image.manifest.digest;
    let status = match before.as_ref() == Some(digest) {
        true => "Image is up to date",
        false => "Downloaded newer image",
    };
    answer(&format!(
        "Digest: {digest}\nStatus: {status} for {name}\n{name}\n"
    ))
}

/// The image that a name stands for: from the store, or as `policy` says from where the name leads.
pub(crate) fn obtain(
    store: &Store,
    name: &str,
    policy: Pull,
    options: &PullOptions,
    progress: &Bars,
) -> image::Result<Image> {
    let source: Source = name.parse()?;
    let pull = || image::pull(store, &source, options, progress);
    if !matches!(source, Source::Registry(_)) || policy == Pull::Always {
        return pull();
    }
    let may_pull = |error: &image::Error| error.kind() == Kind::NotFound && policy == Pull::Missing;
    let image = match store.find(name) {
        Err(error) if may_pull(&error) => return pull(),
        found => found?,
    };
    match options
        .platform
        .as_ref()
        .map(|wanted| image.require(store, wanted))
    {
        Some(Err(error)) if may_pull(&error) => pull().context(|| error.to_string()),
        Some(Err(error)) => Err(error),
        _ => Ok(image),
    }
}

/// How to pull, as the flags say.
pub(super) fn pull_options(invocation: &Invocation<'_>) -> image::Result<PullOptions> {
    let platform = invocation
        .flags
        .text("platform")
        .map(str::parse)
        .transpose()?;
    Ok(PullOptions {
        platform,
        connection: connection(invocation.flags),
        unpack: false,
    })
}

/// What the store has under the name already.
fn digest_of(store: &Store, source: &Source) -> Option<image::Digest> {
    match source {
        Source::Registry(reference) => {
            Some(store.find(&reference.to_string()).ok()?.manifest.digest)
        }
        _ => None,
    }
}

pub(super) fn push(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let store = invocation.store()?;
    let image = store.find(invocation.id())?;
    let to = match flags.args.get(1) {
        Some(destination) => destination
            .strip_prefix("docker://")
            .unwrap_or(destination)
            .to_owned(),
        // An id alone is no place to go.
        None => name_of(&image, invocation.id()).unwrap_or_else(|| invocation.id().to_owned()),
    };
    let to: Reference = to.parse()?;
    let options = PushOptions {
        connection: connection(flags),
    };
    image::push(
        &store,
        &image,
        &to,
        &options,
        &Bars::new(flags.is_set("quiet")),
    )?;
    if flags.is_set("quiet") {
        return answer(&format!("{to}\n"));
    }
    let digest = &image.manifest.digest;
    let name = to.tag().unwrap_or(digest.as_str());
    answer(&format!(
        "{name}: digest: {digest} size: {}\n",
        image.manifest.size
    ))
}

//! `kill` and `delete`: one container, or every container whose id matches a regular expression.

use regex_lite::Regex;
use runtime::Settings;

use super::{Invocation, failure};
use crate::{Failure, Outcome, signals};

pub(crate) fn kill(invocation: &Invocation<'_>) -> Outcome {
    let all = invocation.flags.is_set("all");
    let signal = invocation
        .flags
        .args
        .get(1)
        .map_or("SIGTERM", String::as_str);
    let signal = signals::parse(signal).map_err(Failure::new)?;
    #[cfg(feature = "image")]
    if !all
        && !invocation.flags.is_set("regex")
        && let Some(container) = invocation.container_of_image(&invocation.settings()?)?
    {
        crate::sys::with_all(|| crate::containers::kill(&container, signal))?;
        return Ok(0);
    }
    let settings = invocation.settings()?;
    let kill = |id: &str| runtime::kill(&settings, id, signal, all);
    if invocation.flags.is_set("regex") {
        return for_each(invocation, &settings, kill);
    }
    kill(&invocation.container_id(&settings)?)?;
    Ok(0)
}

pub(crate) fn delete(invocation: &Invocation<'_>) -> Outcome {
    let force = invocation.flags.is_set("force");
    let settings = invocation.settings()?;
    let delete = |id: &str| runtime::delete(&settings, id, force);
    if invocation.flags.is_set("regex") {
        return for_each(invocation, &settings, delete);
    }
    #[cfg(feature = "image")]
    if let Some(container) = invocation.container_of_image(&settings)? {
        let containers = invocation.containers()?;
        crate::sys::with_all(|| crate::containers::delete(&containers, &container, force))?;
        return Ok(0);
    }
    delete(invocation.id())?;
    Ok(0)
}

/// Does it for every container whose id matches, also when it fails for some; tells of each that failed.
fn for_each(
    invocation: &Invocation<'_>,
    settings: &Settings,
    act: impl Fn(&str) -> runtime::Result<()>,
) -> Outcome {
    let pattern = Regex::new(invocation.id())
        .map_err(|error| failure("invalid regular expression", error))?;
    let failures: Vec<String> = runtime::list(settings)?
        .iter()
        .filter(|container| pattern.is_match(&container.id))
        .filter_map(|container| Some(format!("{}: {}", container.id, act(&container.id).err()?)))
        .collect();
    if failures.is_empty() {
        Ok(0)
    } else {
        Err(Failure::new(failures.join("; ")))
    }
}

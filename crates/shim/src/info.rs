//! `-info`: what this shim and its runtime can do.

use std::io::Write;

use prost::Message;

use crate::Arguments;
use crate::bootstrap::Input;
use crate::error::{Context, Result};
use crate::protos::Any;
use crate::protos::bootstrap::{RuntimeInfo, RuntimeVersion};
use crate::runtime::Runtime;

/// Prints a `RuntimeInfo`. Options stand on standard input as with `start`.
pub(crate) fn info(arguments: &Arguments) -> Result<()> {
    let input = Input::read(arguments)?;
    let runtime = Runtime::new(&input.options, &arguments.namespace);
    let info = RuntimeInfo {
        name: "io.containerd.coracle.v2".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: input.any,
        features: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
                .to_owned(),
            value: runtime.features()?,
        }),
    };
    std::io::stdout()
        .write_all(&info.encode_to_vec())
        .context(|| "answer".to_owned())
}

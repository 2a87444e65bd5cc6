//! `checkpoint` and `restore`.

use std::path::PathBuf;

use runtime::{CheckpointOptions, CriuOptions, PageServer, RestoreOptions};

use super::{Invocation, prefixed};
use crate::flags::Flags;
use crate::{Failure, Outcome};

pub(crate) fn checkpoint(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let options = CheckpointOptions {
        criu: criu_options(flags)?,
        leave_running: flags.is_set("leave-running"),
        pre_dump: flags.is_set("pre-dump"),
        page_server: flags.text("page-server").map(page_server).transpose()?,
        status_fd: flags.number("status-fd").filter(|fd| *fd >= 0),
        tcp_skip_in_flight: flags.is_set("tcp-skip-in-flight"),
        link_remap: flags.is_set("link-remap"),
    };
    let settings = invocation.settings()?;
    #[cfg(feature = "image")]
    if invocation.container_of_image(&settings)?.is_some() {
        let text = "checkpoint is for containers of bundles, not of images";
        return Err(Failure::new(text));
    }
    runtime::checkpoint(&settings, invocation.id(), &options)
        .map_err(|error| prefixed("checkpoint", error))?;
    Ok(0)
}

pub(crate) fn restore(invocation: &Invocation<'_>) -> Outcome {
    let flags = invocation.flags;
    let options = RestoreOptions {
        id: invocation.id().to_owned(),
        criu: criu_options(flags)?,
        bundle: flags.get("bundle"),
        console_socket: flags.get("console-socket"),
        pid_file: flags.get("pid-file"),
        detach: flags.is_set("detach"),
        no_subreaper: flags.is_set("no-subreaper"),
        lsm_profile: flags.get("lsm-profile"),
        lsm_mount_context: flags.get("lsm-mount-context"),
    };
    runtime::restore(&invocation.settings()?, &options).map_err(|error| prefixed("restore", error))
}

fn criu_options(flags: &Flags) -> Result<CriuOptions, Failure> {
    if let Some(other) = flags
        .list("empty-ns")
        .iter()
        .find(|name| *name != "network")
    {
        return Err(Failure::new(format!(
            "--empty-ns: namespace {other:?} is not supported"
        )));
    }
    Ok(CriuOptions {
        image_path: flags
            .get("image-path")
            .unwrap_or_else(|| PathBuf::from("checkpoint")),
        work_path: flags.get("work-path"),
        parent_path: flags.get("parent-path"),
        tcp_established: flags.is_set("tcp-established"),
        tcp_close: flags.is_set("tcp-close"),
        ext_unix_sk: flags.is_set("ext-unix-sk"),
        shell_job: flags.is_set("shell-job"),
        file_locks: flags.is_set("file-locks"),
        auto_dedup: flags.is_set("auto-dedup"),
        lazy_pages: flags.is_set("lazy-pages"),
        manage_cgroups_mode: flags.get("manage-cgroups-mode"),
        network_lock: flags.get("network-lock"),
    })
}

/// `ADDRESS:PORT`, an IPv6 address in brackets.
fn page_server(text: &str) -> Result<PageServer, Failure> {
    let wrong = || Failure::new("use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = address
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bracketed {
        Some(address) => address,
        None if address.contains(':') => return Err(wrong()),
        None => address,
    };
    if address.is_empty() {
        return Err(wrong());
    }
    match port.parse() {
        Ok(port @ 1..) => Ok(PageServer {
            address: address.to_owned(),
            port,
        }),
        _ => Err(Failure::new(format!(
            "--page-server: invalid port number {port:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers() {
        let parsed = |text| page_server(text).map(|server| (server.address, server.port));
        assert_eq!(parsed("host:27").unwrap(), ("host".into(), 27));
        assert_eq!(parsed("[::1]:27").unwrap(), ("::1".into(), 27));
        for wrong in [
            "",
            "host",
            ":27",
            "host:",
            "host:0",
            "host:65536",
            "::1:27",
            "[]:1",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}

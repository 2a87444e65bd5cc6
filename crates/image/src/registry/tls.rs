//! Whom to believe over TLS, and what to show of oneself.

use std::fs;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Context, Error, Kind, Result};

/// Where distributions keep the authorities that they believe; the first that exists counts.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The configuration for one registry: the machine's authorities (Mozilla's, built in, where the machine has none), and from the
/// directories named after the registry (containers-certs.d(5)) `*.crt` as authorities and `*.cert` with `*.key` as ours.
pub(super) fn config(registry: &str, verify: bool) -> Result<TlsConfig> {
    let mut authorities = system_authorities()?;
    let mut client = None;
    for directory in directories(registry) {
        for file in files(&directory)? {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => authorities.extend(certificates(&file)?),
                Some("cert") => client = Some(client_certificate(&file)?),
                _ => {}
            }
        }
    }
    let roots = if authorities.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::from(authorities)
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(!verify)
        .build())
}

fn system_authorities() -> Result<Vec<Certificate<'static>>> {
    if let Some(named) = std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty()) {
        return certificates(Path::new(&named));
    }
    match BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        Some(bundle) => certificates(bundle),
        None => Ok(Vec::new()),
    }
}

/// `certs.d/HOST[:PORT]`, the user's first.
fn directories(registry: &str) -> Vec<PathBuf> {
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
    let machine = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    // A registry's name is checked where it is parsed: it has no slash.
    home.into_iter()
        .chain(machine)
        .map(|directory| directory.join(registry))
        .collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("read certificates in {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(context),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.context(context)?.path());
    }
    files.sort();
    Ok(files)
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let context = || format!("read certificates in {}", file.display());
    let text = fs::read(file).context(context)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(Error::new(Kind::Failed, format!("{}: {error}", context()))),
        }
    }
    Ok(certificates)
}

fn client_certificate(file: &Path) -> Result<ClientCert> {
    let key = file.with_extension("key");
    let context = || format!("read the client's key {}", key.display());
    let text = fs::read(&key).context(context)?;
    let key = PrivateKey::from_pem(&text)
        .map_err(|error| Error::new(Kind::Failed, format!("{}: {error}", context())))?;
    Ok(ClientCert::new_with_certs(&certificates(file)?, key))
}

//! The application that travels: busybox's httpd as an ordinary user, with something of everything that an image can say.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runtime_tests::{fill_rootfs, install_inside, shell};

/// Where it listens.
pub(crate) const PORT: u16 = 8000;

/// What it answers.
pub(crate) fn page(version: &str) -> String {
    format!("the application, version {version}\n")
}

/// What an image says beside its files, as lines of a Containerfile.
const CONFIGURATION: &str = r#"ENV GREETING="good day"
WORKDIR /www
LABEL org.opencontainers.image.title=application
EXPOSE 8000
STOPSIGNAL SIGINT
USER user
CMD ["httpd", "-f", "-p", "8000", "-h", "/www"]
"#;

/// Puts the files and a Containerfile beside them into a directory.
pub(crate) fn prepare(dir: &Path, version: &str) {
    let files = dir.join("files");
    fill_rootfs(&files);
    install_inside(&files);
    fs::set_permissions(files.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(files.join("www")).unwrap();
    fs::write(files.join("www/index.html"), page(version)).unwrap();
    let containerfile = format!("FROM scratch\nCOPY files /\n{CONFIGURATION}");
    fs::write(dir.join("Containerfile"), containerfile).unwrap();
}

/// The same image by umoci, in the layout `layout` with the version as its tag: `DIR/layout:VERSION`.
pub(crate) fn by_umoci(dir: &Path, version: &str) -> String {
    prepare(dir, version);
    let image = format!("{}/layout:{version}", dir.display());
    shell(&format!(
        r#"cd {0} && umoci init --layout layout && umoci new --image {image} && umoci insert --image {image} files / &&
        umoci config --image {image} --config.env "GREETING=good day" --config.workingdir /www \
            --config.label org.opencontainers.image.title=application --config.exposedports 8000/tcp \
            --config.stopsignal SIGINT --config.user user \
            --config.cmd httpd --config.cmd -f --config.cmd -p --config.cmd 8000 --config.cmd -h --config.cmd /www"#,
        dir.display()
    ));
    image
}

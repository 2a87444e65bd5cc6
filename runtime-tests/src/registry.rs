//! Debian's docker-registry on loopback, and a user who pulls from it: a home with a store, credentials and certificates.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bundle::fill_rootfs;
use crate::command::{Output, eventually, finish, read_text, shell};
use crate::engine::Engine;
use crate::runtime::runtime;

/// A registry that ends with the test.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    server: Child,
    dir: TempDir,
}

impl Registry {
    /// Plain http, for everybody on this machine.
    pub fn plain() -> Self {
        Self::plain_at("127.0.0.1", Command::new("docker-registry"))
    }

    /// The same in the network of an engine.
    pub fn beside(engine: &Engine) -> Self {
        Self::plain_at("127.0.0.1", engine.command::<&str>("docker-registry", &[]))
    }

    /// The same at another address, which the command can listen at.
    pub fn plain_at(ip: &str, command: Command) -> Self {
        Self::start(directory(), ip, "", command)
    }

    /// TLS with a certificate of an authority of its own, and one user.
    pub fn secured(user: &str, password: &str) -> Self {
        let command = Command::new("docker-registry");
        Self::secured_at("127.0.0.1", command, user, password)
    }

    /// The same at another address, which the command can listen at.
    pub fn secured_at(ip: &str, command: Command, user: &str, password: &str) -> Self {
        let dir = directory();
        let path = dir.path().display();
        shell(&format!(
            "cd {path} && exec 2>/dev/null
            new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
            $new -x509 -days 2 -subj /CN=authority -keyout authority.key -out ca.crt
            $new -subj /CN=registry -keyout server.key -out server.csr
            echo subjectAltName=IP:{ip},DNS:localhost > names
            openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey authority.key -CAcreateserial -extfile names -out server.crt
            htpasswd -Bbn {user} {password} > users"
        ));
        let secured = format!(
            "  tls: {{certificate: {path}/server.crt, key: {path}/server.key}}\nauth: {{htpasswd: {{realm: test, path: {path}/users}}}}\n"
        );
        Self::start(dir, ip, &secured, command)
    }

    fn start(dir: TempDir, ip: &str, secured: &str, mut command: Command) -> Self {
        let path = dir.path().display();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\nhttp:\n  addr: {ip}:0\n{secured}"
        );
        fs::write(&config, text).expect("a file");
        let log = dir.path().join("log");
        let server = command
            .arg("serve")
            .arg(&config)
            .env_remove("OTEL_TRACES_EXPORTER")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("docker-registry is installed");
        let address = eventually("the registry listens", || {
            let log = read_text(&log);
            let (_, rest) = log.split_once("listening on ")?;
            let end = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c))?;
            Some(rest[..end].to_owned())
        });
        Registry {
            address,
            server,
            dir,
        }
    }

    /// A reference to an image in this registry.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Tools of the user with this home believe the registry's authority from now on.
    pub fn trusted_from(&self, home: &Path) {
        let dir = home.join(".config/containers/certs.d").join(&self.address);
        fs::create_dir_all(&dir).expect("a directory");
        fs::copy(self.dir.path().join("ca.crt"), dir.join("ca.crt")).expect("a file");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("registry-")
        .tempdir()
        .expect("/tmp is writable")
}

/// A user with a home: what Coracle keeps for them is there and nowhere else.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// An empty home.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("home-")
            .tempdir()
            .expect("/tmp is writable");
        Home { dir }
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The file with credentials that all tools of this user share.
    pub fn auth_file(&self) -> PathBuf {
        self.path("run/containers/auth.json")
    }

    /// Believes a registry's authority from now on.
    pub fn trust(&self, registry: &Registry) {
        registry.trusted_from(self.dir.path());
    }

    /// A command as this user.
    pub fn command(&self, program: impl AsRef<Path>, args: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .stdin(Stdio::null());
        for name in [
            "REGISTRY_AUTH_FILE",
            "DOCKER_CONFIG",
            "XDG_CONFIG_HOME",
            "SSL_CERT_FILE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Coracle's command line with this user's store.
    pub fn coracle_command(&self, args: &[&str]) -> Command {
        let store = self.store().to_string_lossy().into_owned();
        self.command(runtime(), &[&["--store", &store], args].concat())
    }

    /// Runs Coracle with this user's store.
    pub fn coracle(&self, args: &[&str]) -> Output {
        self.finish(self.coracle_command(args))
    }

    /// Runs any program as this user.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.finish(self.command(program, args))
    }

    /// Runs a command to its end.
    pub fn finish(&self, command: Command) -> Output {
        finish(command, self.dir.path())
    }

    /// Makes an image layout `layout` with the tag `v1`: busybox, and as many more bytes that cannot be compressed.
    pub fn make_layout(&self, bytes: usize) -> String {
        let rootfs = self.path("rootfs");
        fill_rootfs(&rootfs);
        let dir = self.dir.path().display();
        shell(&format!(
            "cd {dir} && head -c {bytes} /dev/urandom > rootfs/noise && tar -C rootfs -cf layer.tar . &&
            umoci init --layout layout && umoci new --image layout:v1 &&
            umoci raw add-layer --image layout:v1 layer.tar &&
            umoci config --image layout:v1 --config.cmd sh --config.env GREETING=hi"
        ));
        format!("oci:{}:v1", self.path("layout").display())
    }

    /// The manifest's digest of an image in the store.
    #[track_caller]
    pub fn digest(&self, image: &str) -> String {
        let text = self.coracle(&["inspect", image]).ok();
        let images: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        images[0]["Digest"].as_str().expect("a digest").to_owned()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

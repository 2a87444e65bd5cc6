//! Where images are kept: an OCI image layout by digest, whose index names the images.
//!
//! ```text
//! images/            oci-layout, index.json, blobs/sha256/…
//! images/partial/    blobs on their way, by digest
//! layers/            unpacked layers, by diff_id
//! lock               flock(2): shared by who uses something, exclusive for who removes
//! ```
//!
//! A blob gets its name once it is complete, verified and on the disk; an image its entry in the index once all its blobs are
//! there. So a crash or a full disk leaves nothing that looks like an image and is none.

mod blob;
mod index;
mod remove;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use oci_spec::image::ImageConfiguration;

use crate::descriptor::{Descriptor, media_type};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{DOCUMENT_LIMIT, Document, parse};
use crate::platform::Platform;
use crate::reference::Reference;

pub(crate) use blob::Partial;
pub(crate) use index::{Index, LAYOUT};
pub use remove::{Pruned, Removed};

/// The content store of one user.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    root: OwnedFd,
    images: OwnedFd,
}

/// Keeps everything in the store from being removed, as long as it lives.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

/// An image that is in the store with all its parts.
#[derive(Clone, Debug)]
pub struct Image {
    /// Complete references; none for an image whose tag another one has got.
    pub names: Vec<String>,
    /// The manifest: its digest is what containers record.
    pub manifest: Descriptor,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Image {
    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> &Digest {
        &self.config.digest
    }

    /// It is something else than a container image, such as a Helm chart: it is kept and passed on, never unpacked or run.
    pub fn is_artifact(&self) -> bool {
        !media_type::is_config(&self.config.media_type)
    }

    /// How to run it. An artifact does not say that, which is an error here.
    pub fn configuration(&self, store: &Store) -> Result<ImageConfiguration> {
        store
            .configuration(&self.config)
            .context(|| format!("image {}", self.name()))
    }

    /// An error when it is for another platform than the one that is wanted.
    pub fn require(&self, store: &Store, platform: &Platform) -> Result<()> {
        platform
            .require(&self.configuration(store)?)
            .context(|| format!("image {}", self.name()))
    }

    fn name(&self) -> &str {
        let digest = self.manifest.digest.as_str();
        self.names.first().map_or(digest, String::as_str)
    }

    /// What its blobs occupy, in bytes.
    pub fn size(&self) -> u64 {
        let parts = [&self.manifest, &self.config];
        let sizes = self.layers.iter().chain(parts).map(|part| part.size);
        sizes.fold(0, u64::saturating_add)
    }
}

impl Store {
    /// Opens the store in a directory, and makes it when there is none.
    pub fn open(directory: &Path) -> Result<Self> {
        let context = || format!("open image store {}", directory.display());
        make_directories(directory).context(context)?;
        let root = open_directory(AT_FDCWD, directory).context(context)?;
        for name in [
            "images",
            "images/blobs",
            "images/blobs/sha256",
            "images/partial",
            "layers",
        ] {
            make_directory(&root, name).context(context)?;
        }
        let images = open_directory(&root, Path::new("images")).context(context)?;
        let path = std::path::absolute(directory).context(context)?;
        let store = Store { path, root, images };
        store.complete_layout().context(context)?;
        Ok(store)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Keeps everything from being removed until the answer is dropped. Waits for a removal that is under way.
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold {
            _lock: self.lock(File::lock_shared)?,
        })
    }

    fn lock(&self, how: Lock) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        let file = openat(&self.root, "lock", flags, Mode::from_bits_truncate(0o600))
            .context(|| "open the image store's lock")?;
        lock_file(file.into(), how).context(|| "lock the image store")
    }

    /// All images, in the order of their names.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images: Vec<Image> = Vec::new();
        for entry in self.index()? {
            let name = index::name_of(&entry).map(str::to_owned);
            match images
                .iter_mut()
                .find(|image| image.manifest.digest == entry.digest)
            {
                Some(image) => image.names.extend(name),
                None => images.push(self.image(entry, name.into_iter().collect())?),
            }
        }
        for image in &mut images {
            image.names.sort();
        }
        images.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(images)
    }

    /// The image with this name: a reference (short ones are looked for on Docker Hub, then under `localhost`), or the first
    /// digits of an id when there is only one such image.
    pub fn find(&self, name: &str) -> Result<Image> {
        let images = self.images()?;
        let mut found = self.by_reference(&images, name);
        if found.is_empty() {
            let digits = name.strip_prefix("sha256:").unwrap_or(name);
            let is_id = digits.len() >= 2
                && digits
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let meant = |image: &&Image| {
                [image.id(), &image.manifest.digest]
                    .iter()
                    .any(|digest| digest.hex().starts_with(digits))
            };
            found = images.iter().filter(meant).filter(|_| is_id).collect();
        }
        match found.as_slice() {
            [image] => Ok((*image).clone()),
            [] => Err(Error::new(Kind::NotFound, format!("{name}: no such image"))),
            several => Err(Error::invalid(format!(
                "{name}: {} images have an id that begins so",
                several.len()
            ))),
        }
    }

    fn by_reference<'a>(&self, images: &'a [Image], name: &str) -> Vec<&'a Image> {
        let candidates = [name.to_owned(), format!("localhost/{name}")];
        let references = candidates
            .iter()
            .filter_map(|name| name.parse::<Reference>().ok());
        references
            .filter_map(|reference| images.iter().find(|image| is_called(image, &reference)))
            .take(1)
            .collect()
    }

    /// Gives an image one more name. Another image that had it keeps its others.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<()> {
        self.change_index(|entries| {
            index::set_name(entries, &image.manifest, &name.to_string());
            Ok(())
        })
    }

    /// A blob that is in the store.
    pub fn blob(&self, digest: &Digest) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        match openat(
            &self.images,
            blob_path(digest).as_str(),
            flags,
            Mode::empty(),
        ) {
            Ok(fd) => Ok(fd.into()),
            Err(Errno::ENOENT) => Err(Error::new(
                Kind::NotFound,
                format!("blob {digest} is not in the image store"),
            )),
            Err(errno) => Err(errno).context(|| format!("open blob {digest}")),
        }
    }

    /// The whole of a small blob.
    pub(crate) fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let file = self.blob(&blob.digest)?;
        read_document(file, blob)
    }

    /// A configuration.
    pub(crate) fn configuration(&self, config: &Descriptor) -> Result<ImageConfiguration> {
        if !media_type::is_config(&config.media_type) {
            return Err(Error::invalid(format!(
                "it is no container image, but an artifact of type {:?}",
                config.media_type
            )));
        }
        let bytes = self.document(config)?;
        serde_json::from_slice(&bytes).context(|| format!("configuration {}", config.digest))
    }

    /// The image of an entry of the index.
    fn image(&self, entry: Descriptor, names: Vec<String>) -> Result<Image> {
        let bytes = self.document(&entry)?;
        let (document, _) =
            parse(&bytes, Some(&entry.media_type)).context(|| format!("image {}", entry.digest))?;
        match document {
            Document::Manifest(manifest) => Ok(Image {
                names,
                manifest: Descriptor {
                    annotations: Default::default(),
                    ..entry
                },
                config: manifest.config,
                layers: manifest.layers,
            }),
            Document::Index(_) => Err(Error::invalid(format!(
                "image {} of the image store is an index",
                entry.digest
            ))),
        }
    }

    /// Makes an image visible whose blobs are all there.
    pub(crate) fn add(&self, manifest: &Descriptor, names: &[String]) -> Result<Image> {
        self.change_index(|entries| {
            index::add(entries, manifest);
            for name in names {
                index::set_name(entries, manifest, name);
            }
            Ok(())
        })?;
        self.image(manifest.clone(), names.to_vec())
    }
}

/// The reference means this image: its name, or its repository with its digest.
fn is_called(image: &Image, reference: &Reference) -> bool {
    let Some(digest) = reference.digest() else {
        return image.names.contains(&reference.to_string());
    };
    let same_repository = |name: &String| {
        name.parse::<Reference>()
            .is_ok_and(|name| name.name() == reference.name())
    };
    let exact = reference.with_digest(digest.clone()).to_string();
    image.names.contains(&exact)
        || *digest == image.manifest.digest && image.names.iter().any(same_repository)
}

/// The whole of a small blob that is being read from anywhere, verified.
pub(crate) fn read_document(reader: impl Read, blob: &Descriptor) -> Result<Vec<u8>> {
    let context = || format!("read {}", blob.digest);
    if blob.size > DOCUMENT_LIMIT {
        return Err(Error::invalid(format!(
            "{}: a document of {} bytes is too large",
            blob.digest, blob.size
        )));
    }
    let mut bytes = Vec::with_capacity(blob.size as usize);
    reader
        .take(blob.size + 1)
        .read_to_end(&mut bytes)
        .context(context)?;
    verify(&bytes, blob)?;
    Ok(bytes)
}

/// The bytes are what the descriptor says.
pub(crate) fn verify(bytes: &[u8], blob: &Descriptor) -> Result<()> {
    if bytes.len() as u64 != blob.size {
        return Err(Error::invalid(format!(
            "{} has not the {} bytes that its descriptor says",
            blob.digest, blob.size
        )));
    }
    if Digest::of(bytes) != blob.digest {
        return Err(Error::invalid(format!(
            "what came for {} has another digest",
            blob.digest
        )));
    }
    Ok(())
}

/// Where a blob lies below `images`.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// [`File::lock`] or [`File::lock_shared`].
type Lock = fn(&File) -> std::io::Result<()>;

/// Waits for a lock, which goes with the file.
fn lock_file(file: File, how: Lock) -> std::io::Result<File> {
    while let Err(error) = how(&file) {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(file)
}

/// The directory with all its parents, for its owner alone.
fn make_directories(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn make_directory(parent: impl AsFd, name: &str) -> nix::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}

fn open_directory(parent: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

/// Replaces a file in a directory: it is there with its old or with its new content, also after a crash.
fn replace_file(directory: impl AsFd, name: &str, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let new = format!(".{name}.new");
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o600);
    let mut file = File::from(openat(directory.as_fd(), new.as_str(), flags, mode)?);
    file.write_all(content)?;
    file.sync_all()?;
    renameat(directory.as_fd(), new.as_str(), directory.as_fd(), name)?;
    Ok(nix::unistd::fsync(directory.as_fd())?)
}

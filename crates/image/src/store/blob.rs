//! Blobs on their way into the store.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Store, blob_path, lock_file};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};

/// A blob that is being written. What has arrived stays for a later try, unless it turns out to be wrong.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    store: &'a Store,
    /// Below `images/partial`.
    name: String,
    file: File,
    hasher: Hasher,
    written: u64,
    /// Nothing remains when it is dropped before it is finished.
    temporary: bool,
    /// It has got its place among the blobs.
    finished: bool,
}

impl Store {
    /// The unfinished blob for this content, with what came before; `None` when the content is in the store. Waits while another
    /// process gets the same.
    pub(crate) fn partial(&self, blob: &Descriptor) -> Result<Option<Partial<'_>>> {
        let context = || format!("write blob {}", blob.digest);
        let name = blob.digest.hex().to_owned();
        loop {
            if self.has(blob)? {
                return Ok(None);
            }
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            let file = self.open_partial(&name, flags).context(context)?;
            let file = lock_file(file, File::lock).context(context)?;
            // Whoever had the lock may have finished it, or thrown it away.
            let is_gone = fstat(file.as_fd()).context(context)?.st_nlink == 0;
            if is_gone || self.has(blob)? {
                continue;
            }
            let mut partial = Partial {
                store: self,
                name,
                file,
                hasher: Hasher::default(),
                written: 0,
                temporary: false,
                finished: false,
            };
            partial.read_again(blob.size)?;
            return Ok(Some(partial));
        }
    }

    /// A blob whose digest will be known when it is written.
    pub(crate) fn unnamed(&self) -> Result<Partial<'_>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let context = || "write a blob";
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("new-{}-{count}", std::process::id());
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = self.open_partial(&name, flags).context(context)?;
        Ok(Partial {
            store: self,
            file: lock_file(file, File::lock).context(context)?,
            name,
            hasher: Hasher::default(),
            written: 0,
            temporary: true,
            finished: false,
        })
    }

    /// Puts a small document into the store, under the digest that it has.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut partial = self.unnamed()?;
        partial.write(bytes)?;
        Ok(partial.finish()?.0)
    }

    /// The content is here, in the size that is expected.
    pub(crate) fn has(&self, blob: &Descriptor) -> Result<bool> {
        let file = match self.blob(&blob.digest) {
            Ok(file) => file,
            Err(error) if error.kind() == crate::Kind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let size = fstat(&file).context(|| "look at a blob")?.st_size;
        if size as u64 != blob.size {
            return Err(Error::invalid(format!(
                "{} has {size} bytes, not the {} that its descriptor says",
                blob.digest, blob.size
            )));
        }
        Ok(true)
    }

    fn open_partial(&self, name: &str, flags: OFlag) -> nix::Result<File> {
        let path = format!("partial/{name}");
        openat(
            &self.images,
            path.as_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        )
        .map(File::from)
    }
}

impl Partial<'_> {
    /// How many bytes have arrived.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Goes on with these bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .context(|| format!("write blob {}", self.name))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Begins again with nothing.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let context = || format!("write blob {}", self.name);
        self.file.set_len(0).context(context)?;
        self.file.seek(SeekFrom::Start(0)).context(context)?;
        self.hasher = Hasher::default();
        self.written = 0;
        Ok(())
    }

    /// Takes up what an earlier try has left.
    fn read_again(&mut self, size: u64) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = self
                .file
                .read(&mut buffer)
                .context(|| format!("read blob {} again", self.name))?;
            if count == 0 {
                break;
            }
            self.hasher.update(&buffer[..count]);
            self.written += count as u64;
        }
        if self.written > size {
            self.restart()
        } else {
            Ok(())
        }
    }

    /// The digest of what has arrived.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// What has arrived is the content that was wanted.
    pub(crate) fn is(&self, blob: &Descriptor) -> bool {
        self.written == blob.size && self.digest() == blob.digest
    }

    /// Puts it into the store under the digest that it has; gives digest and size.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64)> {
        let digest = std::mem::take(&mut self.hasher).finish();
        let context = || format!("write blob {digest}");
        self.file.sync_all().context(context)?;
        let images = &self.store.images;
        let from = format!("partial/{}", self.name);
        renameat(images, from.as_str(), images, blob_path(&digest).as_str()).context(context)?;
        self.finished = true;
        let directory = super::open_directory(images, "blobs/sha256".as_ref()).context(context)?;
        nix::unistd::fsync(directory).context(context)?;
        Ok((digest, self.written))
    }

    /// Throws it away: what has arrived is wrong.
    pub(crate) fn discard(self) -> Result<()> {
        self.unlink()
            .context(|| format!("remove the unfinished blob {}", self.name))
    }

    fn unlink(&self) -> nix::Result<()> {
        let path = format!("partial/{}", self.name);
        match unlinkat(
            &self.store.images,
            path.as_str(),
            UnlinkatFlags::NoRemoveDir,
        ) {
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Nothing is left of what has not begun.
        if !self.finished && (self.temporary || self.written == 0) {
            let _ = self.unlink();
        }
    }
}

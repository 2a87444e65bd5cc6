//! What mount(2) does better than the calls by descriptors: a file system that nothing is to be done to takes one call, and it takes
//! options that fsconfig(2) does not.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, mount, umount2};

use super::options;
use super::{Kind, Mount};
use crate::lsm::is_context;
use crate::rootfs::Root;
use crate::sys::mount::{LEGACY, MountAttr, attach, clone_tree, legacy_flags};
use crate::sys::process::leave;
use crate::{Context, Result};

/// fsconfig(2) takes values of less than this many bytes.
const FSCONFIG_MAX: usize = 256;

impl Mount {
    /// Whether it can be made where it is to be, when nothing of the host is there any more.
    pub(crate) fn is_made_in_place(&self) -> bool {
        const NEED_NOTHING: [&CStr; 5] = [c"devpts", c"mqueue", c"proc", c"sysfs", c"tmpfs"];
        let Kind::FileSystem(fs_type) = &self.kind else {
            return false;
        };
        let options = &self.options;
        // What is written into a tmpfs comes before read-only.
        let can_be_readonly = fs_type.as_c_str() != c"tmpfs";
        NEED_NOTHING.contains(&fs_type.as_c_str())
            && options.attributes.set & !LEGACY == 0
            && (!self.is_readonly() || can_be_readonly && !self.follows_no_symlinks())
            && options.recursive == MountAttr::default()
            && options.propagation.is_empty()
            && !options.copy_up
            && self.idmap.is_none()
            && self.label.is_none()
            && !self.takes_mode()
            && !self.is_for_mount()
    }

    fn follows_no_symlinks(&self) -> bool {
        self.options.attributes.set & options::NOSYMFOLLOW != 0
    }

    /// Makes what [`Mount::is_made_in_place`] is about: by one mount(2) at best. It cannot make a mount read-only without its file system, which
    /// another container may share.
    pub(super) fn make_in_place(&self, fs_type: &CStr, root: &Root) -> Result<()> {
        let attributes = self.options.attributes.set;
        if !self.is_readonly()
            && let Some(name) = root.make_in_new(&self.destination)
            && self.mount(fs_type, attributes, name).is_ok()
        {
            return Ok(());
        }
        let place = self.place(None, root)?;
        self.check_proc(None, &place)?;
        let is_mounted = !self.is_readonly()
            && root
                .enter(&place.fd)
                .and_then(|()| self.mount(fs_type, attributes, Path::new(".")))
                .is_ok();
        if !is_mounted {
            // Here the kernel says what is wrong.
            let tree = self.make(fs_type, attributes, Path::new("/"))?;
            attach(tree.as_fd(), place.fd.as_fd()).with_context(|| self.describe())?;
            leave(tree);
        }
        let is_new = place.ordinary && fs_type == c"tmpfs";
        root.mounted_upon(place, &self.destination);
        if is_new {
            root.mounted_new(&self.destination);
        }
        Ok(())
    }

    /// mount(2) takes a page of options, where fsconfig(2) takes 255 bytes for each (a long overlay `lowerdir`), and commas in them, which
    /// fsconfig(2) refuses for file systems that the kernel has not converted (overlay before Linux 6.5).
    pub(super) fn is_for_mount(&self) -> bool {
        let by_mount = |(key, value): &(CString, Option<CString>)| {
            value.as_ref().is_some_and(|value| {
                let has_comma = value.as_bytes().contains(&b',');
                value.count_bytes() >= FSCONFIG_MAX || has_comma && !is_context(key)
            })
        };
        self.options.data.iter().any(by_mount)
    }

    /// mount(2) at `place`.
    fn mount(&self, fs_type: &CStr, attributes: u64, place: &Path) -> nix::Result<()> {
        let (mut flags, mut data) = (legacy_flags(attributes), Vec::new());
        for (key, value) in &self.options.data {
            match (options::superblock_flag(key), value) {
                (Some(flag), None) => flags |= flag,
                (_, Some(value)) => {
                    let quote: &[u8] = if is_context(key) { b"\"" } else { b"" };
                    data.push([key.as_bytes(), b"=", quote, value.as_bytes(), quote].concat());
                }
                (None, None) => data.push(key.as_bytes().to_vec()),
            }
        }
        mount(
            Some(self.source.as_c_str()),
            place,
            Some(fs_type),
            flags,
            Some(data.join(&b',').as_slice()),
        )
    }

    /// A file system that mount(2) has to make, detached.
    pub(super) fn make_by_mount(
        &self,
        fs_type: &CStr,
        attributes: u64,
        scratch: &Path,
    ) -> Result<OwnedFd> {
        self.mount(fs_type, attributes, scratch)
            .or_else(|error| self.refused(None, error, None))?;
        let scratch_path = CString::new(scratch.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let tree = clone_tree(AT_FDCWD, &scratch_path, false);
        umount2(scratch, MntFlags::MNT_DETACH).with_context(|| self.describe())?;
        tree.with_context(|| self.describe())
    }
}

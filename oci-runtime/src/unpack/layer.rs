//! Puts the entries of one layer onto the flattened root of an image.
//!
//! Source of the whiteout rules: OCI image-spec 1.1, `layer.md#whiteouts`. A whiteout hides what lower layers have,
//! never what its own layer brings, in whichever order the two stand.

use super::header::{Extensions, Header, Kind};
use super::root::{self, Root};
use super::stream::LayerStream;
use super::{EntryError, LayerError};
use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use tar::{Archive, Entry};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs that some old images carry.
const AUFS: &[u8] = b".wh..wh.";

/// A directory and the inode number that names it.
struct Parent {
    path: Vec<OsString>,
    fd: OwnedFd,
    inode: u64,
}

/// The state while one layer is applied.
struct Applier<'a> {
    root: &'a Root,
    /// What this layer brought: the inode of the directory and the name in it.
    brought: HashSet<(u64, OsString)>,
    /// The directory of the last entry; entries of a directory stand together.
    parent: Option<Parent>,
}

/// Applies one layer to `root`; `entries_left` is what the image may still have.
pub fn apply(root: &Root, stream: LayerStream, entries_left: &mut u64) -> Result<LayerStream, LayerError> {
    let mut archive = Archive::new(stream);
    let mut applier = Applier { root, brought: HashSet::new(), parent: None };
    let mut extensions = Extensions::default();
    let result = (|| {
        for entry in archive.entries().map_err(LayerError::Damaged)?.raw(true) {
            let mut entry = entry.map_err(LayerError::Damaged)?;
            *entries_left = entries_left.checked_sub(1).ok_or(LayerError::TooManyEntries)?;
            let step = (|| {
                if extensions.take(&mut entry)? {
                    return Ok(());
                }
                let header = extensions.header(&entry)?;
                applier.entry(&header, &mut entry)
            })();
            step.map_err(|source| LayerError::Entry { entry: printable(&extensions.path(&entry)), source })?;
            if !is_extension(&entry) {
                extensions = Extensions::default();
            }
        }
        Ok(())
    })();
    let mut stream = archive.into_inner();
    if stream.exceeded() {
        return Err(LayerError::TooLarge);
    }
    result?;
    // The rest of the archive is padding, but it belongs to the digest.
    if let Err(error) = io::copy(&mut stream, &mut io::sink()) {
        return Err(if stream.exceeded() { LayerError::TooLarge } else { LayerError::Damaged(error) });
    }
    Ok(stream)
}

fn is_extension(entry: &Entry<'_, impl Read>) -> bool {
    let kind = entry.header().entry_type();
    kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions()
}

/// A path for an error message: no control characters, not endless.
fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).flat_map(char::escape_debug).collect()
}

impl Applier<'_> {
    fn entry(&mut self, header: &Header, content: &mut impl Read) -> Result<(), EntryError> {
        let mut path = root::components(&header.path)?;
        let Some(name) = path.pop() else {
            // "./" describes the root itself.
            return self.describe_root(header);
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(path, name.as_bytes());
        }
        self.enter(path)?;
        let parent = self.parent.as_ref().ok_or(EntryError::Whiteout)?;
        place(self.root, parent, &name, header, content)?;
        self.brought.insert((parent.inode, name));
        Ok(())
    }

    fn describe_root(&self, header: &Header) -> Result<(), EntryError> {
        if header.kind != Kind::Directory {
            return Err(EntryError::Path(root::PathError::Invalid));
        }
        let fd = fs::openat(self.root.fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        describe(&fd, header)
    }

    /// Makes the directory at `path` the current one.
    fn enter(&mut self, path: Vec<OsString>) -> Result<(), EntryError> {
        if self.parent.as_ref().is_none_or(|parent| parent.path != path) {
            let fd = self.root.directory(&path, true)?;
            let inode = fs::fstat(&fd)?.st_ino;
            self.parent = Some(Parent { path, fd, inode });
        }
        Ok(())
    }

    fn whiteout(&mut self, path: Vec<OsString>, name: &[u8]) -> Result<(), EntryError> {
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryError::Whiteout);
        }
        let directory = match self.root.directory(&path, false) {
            Ok(directory) => directory,
            Err(root::PathError::Missing(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Directories may vanish below; the kept descriptor could be one of them.
        self.parent = None;
        if name == OPAQUE {
            self.prune_children(&directory, OsStr::new("."))
        } else if name.starts_with(AUFS) {
            Ok(())
        } else {
            self.prune(&directory, OsStr::from_bytes(hidden))
        }
    }

    /// Removes `name` in `parent` except for what this layer brought.
    fn prune(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), EntryError> {
        let stat = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let brought = self.brought.contains(&(fs::fstat(parent)?.st_ino, name.to_owned()));
        if !fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            if !brought {
                fs::unlinkat(parent, name, AtFlags::empty())?;
            }
            return Ok(());
        }
        self.prune_children(parent, name)?;
        if brought {
            return Ok(());
        }
        match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Not empty: something in it is new.
            Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn prune_children(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), EntryError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(parent, name, flags, Mode::empty())?;
        for child in root::names(&directory, OsStr::new("."))? {
            self.prune(&directory, &child)?;
        }
        Ok(())
    }
}

/// Puts one entry at `name` in `parent`; what was there before goes, except a directory for a directory.
fn place(
    root: &Root,
    parent: &Parent,
    name: &OsStr,
    header: &Header,
    content: &mut impl Read,
) -> Result<(), EntryError> {
    let private = Mode::from_raw_mode(0o600);
    match &header.kind {
        Kind::Device => {
            tracing::debug!(entry = %printable(&header.path), "device node left out");
            return Ok(());
        }
        Kind::Directory => return place_directory(parent, name, header),
        // The target is resolved before the old name goes: a link may name what it replaces.
        Kind::HardLink(target) => return place_hard_link(root, parent, name, target),
        Kind::File | Kind::Symlink(_) | Kind::Fifo => root::remove(&parent.fd, name)?,
    }
    match &header.kind {
        Kind::Symlink(target) => {
            fs::symlinkat(OsStr::from_bytes(target), &parent.fd, name)?;
            let (uid, gid) = owner(header);
            fs::chownat(&parent.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Kind::Fifo => {
            fs::mkfifoat(&parent.fd, name, private)?;
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            describe(&fs::openat(&parent.fd, name, flags, Mode::empty())?, header)?;
        }
        _ => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(fs::openat(&parent.fd, name, flags, private)?);
            copy(content, &mut file)?;
            describe(&OwnedFd::from(file), header)?;
        }
    }
    Ok(())
}

/// Copies in large pieces; tells damaged input from a full disk.
fn copy(content: &mut impl Read, file: &mut std::fs::File) -> Result<(), EntryError> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&buffer[..count]).map_err(EntryError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(EntryError::Damaged(error)),
        }
    }
}

fn place_directory(parent: &Parent, name: &OsStr, header: &Header) -> Result<(), EntryError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match fs::openat(&parent.fd, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(_) => {
            root::remove(&parent.fd, name)?;
            fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700))?;
            fs::openat(&parent.fd, name, flags, Mode::empty())?
        }
    };
    describe(&directory, header)
}

fn place_hard_link(root: &Root, parent: &Parent, name: &OsStr, target: &[u8]) -> Result<(), EntryError> {
    let mut path = root::components(target)?;
    let target = path.pop().ok_or(EntryError::LinkTarget)?;
    let directory = root.directory(&path, false)?;
    let stat = match fs::statat(&directory, &target, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Err(root::PathError::Missing(target).into()),
        Err(error) => return Err(error.into()),
    };
    if fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(EntryError::LinkTarget);
    }
    match fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(old) if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
        _ => root::remove(&parent.fd, name)?,
    }
    Ok(fs::linkat(&directory, &target, &parent.fd, name, AtFlags::empty())?)
}

fn owner(header: &Header) -> (Option<fs::Uid>, Option<fs::Gid>) {
    (Some(fs::Uid::from_raw(header.uid)), Some(fs::Gid::from_raw(header.gid)))
}

/// Owner, then mode (a change of owner clears set-id bits), attributes, time.
fn describe(fd: &OwnedFd, header: &Header) -> Result<(), EntryError> {
    let (uid, gid) = owner(header);
    fs::fchown(fd, uid, gid)?;
    fs::fchmod(fd, Mode::from_raw_mode(header.mode))?;
    for (name, value) in &header.xattrs {
        match fs::fsetxattr(fd, name.as_str(), value, fs::XattrFlags::empty()) {
            // The file system of the data folder may know no attributes; programs live with that.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::RANGE | Errno::NOSPC) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let time = Timespec { tv_sec: header.mtime_s, tv_nsec: 0 };
    fs::futimens(fd, &Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}

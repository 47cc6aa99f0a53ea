//! What one entry of a layer says about itself, from its tar header and the extension headers before it.
//!
//! Long names and PAX records are read here and not by the tar crate, because that reads them whole into memory
//! whatever size they claim. It must not touch the file system.
//! Sources: POSIX.1-2017 `pax`, GNU tar manual "Basic Tar Format".

use super::EntryError;
use neap_sdk::limits;
use std::io::Read;
use tar::{Entry, EntryType, PaxExtensions};

/// Names and PAX records that apply to the next entry.
#[derive(Default)]
pub struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: u64,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file; its content follows.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to any text.
    Symlink(Vec<u8>),
    /// Another name of a file in the image.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character or block device; a container could not use it.
    Device,
}

/// One entry of a layer.
pub struct Header {
    /// The raw path.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime_s: i64,
    /// Extended attributes that a container may have.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Extensions {
    /// Takes an extension header in; false if `entry` is not one.
    pub fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<bool, EntryError> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.long_name = Some(trimmed(self.content(entry)?)),
            EntryType::GNULongLink => self.long_link = Some(trimmed(self.content(entry)?)),
            EntryType::XHeader => {
                let content = self.content(entry)?;
                for record in PaxExtensions::new(&content) {
                    let record = record.map_err(EntryError::Damaged)?;
                    self.records.push((record.key_bytes().to_vec(), record.value_bytes().to_vec()));
                }
            }
            // Global records hold comments such as a commit id; nothing of them concerns an entry.
            EntryType::XGlobalHeader => {
                self.content(entry)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn content(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, EntryError> {
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > limits::IMAGE_ENTRY_HEADER_BYTES_MAX {
            return Err(EntryError::HeaderTooLarge);
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(EntryError::Damaged)?;
        Ok(content)
    }

    fn record(&self, key: &str) -> Option<&[u8]> {
        self.records.iter().rev().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn number(&self, key: &str) -> Result<Option<u64>, EntryError> {
        let Some(value) = self.record(key) else { return Ok(None) };
        // Times may have a fraction and a sign; before 1970 counts as 1970.
        let text = std::str::from_utf8(value).map_err(|_| EntryError::Number(key.into()))?;
        let whole = text.split('.').next().unwrap_or(text);
        if whole.starts_with('-') && key == "mtime" {
            return Ok(Some(0));
        }
        whole.parse().map(Some).map_err(|_| EntryError::Number(key.into()))
    }

    /// The path of `entry`, for error messages as well.
    pub fn path(&self, entry: &Entry<'_, impl Read>) -> Vec<u8> {
        self.record("path")
            .map(<[u8]>::to_vec)
            .or_else(|| self.long_name.clone())
            .unwrap_or_else(|| entry.header().path_bytes().into_owned())
    }

    /// Everything that `entry` says about itself.
    pub fn header(&self, entry: &Entry<'_, impl Read>) -> Result<Header, EntryError> {
        let header = entry.header();
        if let Some(size) = self.number("size")?
            && size != header.entry_size().map_err(EntryError::Damaged)?
        {
            return Err(EntryError::TwoSizes);
        }
        if self.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(EntryError::Unsupported("a sparse file"));
        }
        // Some writers leave fields empty that they have nothing to say in; the tar crate refuses those.
        let empty = |field: &[u8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
        let fields = header.as_old();
        let id = |key: &str, field: &[u8], value: std::io::Result<u64>| {
            let value = match self.number(key)? {
                Some(value) => value,
                None if empty(field) => 0,
                None => value.map_err(EntryError::Damaged)?,
            };
            u32::try_from(value).map_err(|_| EntryError::Number(key.into()))
        };
        let mtime_s = match self.number("mtime")? {
            Some(value) => value,
            None if empty(&fields.mtime) => 0,
            None => header.mtime().map_err(EntryError::Damaged)?,
        };
        Ok(Header {
            path: self.path(entry),
            kind: self.kind(entry)?,
            mode: header.mode().map_err(EntryError::Damaged)? & 0o7777,
            uid: id("uid", &fields.uid, header.uid())?,
            gid: id("gid", &fields.gid, header.gid())?,
            mtime_s: i64::try_from(mtime_s).unwrap_or(0),
            xattrs: self.xattrs(),
        })
    }

    fn kind(&self, entry: &Entry<'_, impl Read>) -> Result<Kind, EntryError> {
        let target = || {
            self.record("linkpath")
                .map(<[u8]>::to_vec)
                .or_else(|| self.long_link.clone())
                .or_else(|| entry.header().link_name_bytes().map(|name| name.into_owned()))
                .filter(|target| !target.is_empty() && target.len() <= limits::IMAGE_PATH_BYTES_MAX)
                .ok_or(EntryError::LinkTarget)
        };
        Ok(match entry.header().entry_type() {
            // Old archives mark a directory only by the slash at its end.
            EntryType::Regular if self.path(entry).ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(target()?),
            EntryType::Link => Kind::HardLink(target()?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::GNUSparse => return Err(EntryError::Unsupported("a sparse file")),
            _ => return Err(EntryError::Unsupported("an entry of an unknown type")),
        })
    }

    /// Only attributes that mean something to a program inside: `trusted.*` would steer the overlay mount.
    fn xattrs(&self) -> Vec<(String, Vec<u8>)> {
        self.records
            .iter()
            .filter_map(|(key, value)| {
                let name = std::str::from_utf8(key.strip_prefix(b"SCHILY.xattr.")?).ok()?;
                let kept = name.starts_with("user.") && !name.starts_with("user.overlay.");
                kept.then(|| (name.to_owned(), value.clone()))
            })
            .collect()
    }
}

fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

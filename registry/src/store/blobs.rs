//! Blobs: put into their place, shown by repositories, opened, checked. Bytes arrive through [`super::uploads`].

use super::{ReadError, Store};
use crate::durable::{self, DiskError};
use bytes::Bytes;
use neap_sdk::{Digest, artifact::Repository};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    time::SystemTime,
};

/// A blob that is open for reading.
#[derive(Debug)]
pub struct OpenBlob {
    /// Its file, at the beginning.
    pub file: File,
    /// Its length in bytes.
    pub size: u64,
}

impl Store {
    /// Moves the sealed file `from` to the place of `digest` and lets `repository` show it. A file that is there
    /// already is replaced by the same bytes, which heals one that was damaged.
    pub(super) fn place(
        &self,
        from: &Path,
        repository: &Repository,
        digest: Digest,
    ) -> Result<(), DiskError> {
        self.linking(|| {
            self.placing(|| durable::rename(from, &self.blob_path(&digest)))?;
            self.link(repository, digest)
        })
    }

    /// Lets `repository` show the blob. The caller holds the links.
    fn link(&self, repository: &Repository, digest: Digest) -> Result<(), DiskError> {
        let link = self.blob_link(repository, &digest);
        if let Some(folder) = link.parent() {
            durable::create_dir(folder)?;
            let file = File::create(&link).map_err(durable::failed("make", &link))?;
            // The garbage collection tells by this time that somebody is about to use the blob.
            file.set_modified(SystemTime::now()).map_err(durable::failed("touch", &link))?;
            durable::sync_dir(folder)?;
        }
        Ok(())
    }

    /// Lets `to` show a blob that `from` shows; `false` where `from` does not.
    pub fn mount(&self, from: &Repository, to: &Repository, digest: Digest) -> Result<bool, DiskError> {
        self.linking(|| {
            if !self.blob_link(from, &digest).is_file() || !self.blob_path(&digest).is_file() {
                return Ok(false);
            }
            self.link(to, digest).map(|()| true)
        })
    }

    /// The length of a blob that `repository` shows. A client that asks may be about to leave out an upload, so
    /// the blob counts as used now.
    pub fn blob_size(&self, repository: &Repository, digest: Digest) -> Result<Option<u64>, DiskError> {
        self.linking(|| {
            let link = self.blob_link(repository, &digest);
            let touched =
                File::options().write(true).open(&link).and_then(|file| file.set_modified(SystemTime::now()));
            match touched {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(durable::failed("touch", &link)(error)),
            }
            self.file_size(digest)
        })
    }

    /// The length of the content of `digest`, whoever shows it.
    pub(super) fn file_size(&self, digest: Digest) -> Result<Option<u64>, DiskError> {
        let path = self.blob_path(&digest);
        match fs::metadata(&path) {
            Ok(data) => Ok(Some(data.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(durable::failed("look at", &path)(error)),
        }
    }

    /// Opens a blob that `repository` shows. The bytes are not checked: the reader does that while they pass.
    pub fn open_blob(&self, repository: &Repository, digest: Digest) -> Result<Option<OpenBlob>, DiskError> {
        if !self.blob_link(repository, &digest).is_file() {
            return Ok(None);
        }
        self.open_file(digest)
    }

    fn open_file(&self, digest: Digest) -> Result<Option<OpenBlob>, DiskError> {
        let path = self.blob_path(&digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(durable::failed("open", &path)(error)),
        };
        let size = file.metadata().map_err(durable::failed("look at", &path))?.len();
        Ok(Some(OpenBlob { file, size }))
    }

    /// The bytes of a blob that `repository` shows, checked against its digest.
    pub fn read_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        max: u64,
    ) -> Result<Option<Bytes>, ReadError> {
        if !self.blob_link(repository, &digest).is_file() {
            return Ok(None);
        }
        self.read_content(digest, max)
    }

    /// The bytes of `digest`, checked, whoever shows them. Damaged ones are moved aside.
    pub(crate) fn read_content(&self, digest: Digest, max: u64) -> Result<Option<Bytes>, ReadError> {
        let Some(OpenBlob { file, size }) = self.open_file(digest)? else { return Ok(None) };
        let path = self.blob_path(&digest);
        if size > max {
            // Somebody may have made it longer.
            return match self.check_file(digest, &file).map_err(durable::failed("read", &path))? {
                true => Err(ReadError::Corrupt(digest)),
                false => Err(ReadError::TooLarge { digest, size, max }),
            };
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        (&file).take(max).read_to_end(&mut bytes).map_err(durable::failed("read", &path))?;
        if Digest::of(&bytes) != digest {
            self.move_aside(digest, &file);
            return Err(ReadError::Corrupt(digest));
        }
        Ok(Some(bytes.into()))
    }

    /// Reads the content of `digest` through and checks it; `false` where there is none, or of another length.
    /// Damaged content is moved aside. A length alone proves no damage: it may be `size` that is wrong.
    pub(crate) fn verify_content(&self, digest: Digest, size: u64) -> Result<bool, ReadError> {
        let Some(blob) = self.open_file(digest)? else { return Ok(false) };
        let damaged = self.check_file(digest, &blob.file);
        match damaged.map_err(durable::failed("read", &self.blob_path(&digest)))? {
            true => Err(ReadError::Corrupt(digest)),
            false => Ok(blob.size == size),
        }
    }

    /// Stops `repository` from showing a blob; `false` where it did not. The garbage collection frees the space.
    pub fn unlink_blob(&self, repository: &Repository, digest: Digest) -> Result<bool, DiskError> {
        durable::remove(&self.blob_link(repository, &digest))
    }
}

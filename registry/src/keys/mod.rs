//! Public keys that tenants trust, kept durably, one file per key.
//!
//! Layout: `DIR/TENANT/KEY_ID.json`, and `DIR/_operator/KEY_ID.json` for keys that count for every tenant (no
//! tenant name begins with `_`). Private keys
//! never come here; they are in [`crate::sign`].

mod public;

#[cfg(test)]
mod tests;

pub use public::{KeyAlgorithm, ParseKeyError, PublicKey};

use crate::durable::{self, DiskError};
use neap_sdk::{ErrorCode, TenantName, api::KeyView, limits::TRUSTED_KEYS_PER_TENANT_MAX};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A public key whose signatures count.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// The name under which it was trusted.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// When it was trusted, in milliseconds since 1970.
    pub trusted_at_ms: u64,
    /// Whether it counts for every tenant.
    pub operator: bool,
}

impl TrustedKey {
    /// The key as the admin API shows it.
    pub fn view(&self) -> KeyView {
        KeyView {
            key_id: self.key.id().to_owned(),
            name: self.name.clone(),
            pem: self.key.to_pem(),
            trusted_at_ms: self.trusted_at_ms,
        }
    }
}

/// Why a key was not trusted or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The text is no public key that neap can verify with.
    #[error("key {name:?} is not usable")]
    Key {
        /// The name given to it.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ParseKeyError,
    },
    /// The name is empty, too long, or has control characters.
    #[error("a key's name must be 1 to 100 printable characters, got {0:?}")]
    Name(String),
    /// The tenant trusts as many keys as it may.
    #[error("{0} keys are trusted already, which is the most; revoke one with `neap key revoke` first")]
    TooMany(usize),
    /// It could not be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl TrustError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Key { .. } | Self::Name(_) | Self::TooMany(_) => ErrorCode::Invalid,
            Self::Disk(_) => ErrorCode::Storage,
        }
    }
}

/// Why the key store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder could not be read or made.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file in it is no key. Ignoring it would change what is admitted.
    #[error("{} is not a trusted key: {why}; remove it and trust the key again", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What a key file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    name: String,
    pem: String,
    trusted_at_ms: u64,
}

/// Folder name (tenant or `_operator`) → key id → key.
type Folders = BTreeMap<String, BTreeMap<String, TrustedKey>>;

/// The folder of keys that count for every tenant.
const OPERATOR: &str = "_operator";
/// Where files are written before they are renamed.
const SCRATCH: &str = "_scratch";
const NAME_CHARS_MAX: usize = 100;

/// The trusted keys of every tenant. All methods block on disk briefly; none is on a request's path.
#[derive(Debug)]
pub struct TrustedKeys {
    dir: PathBuf,
    folders: Mutex<Folders>,
}

impl TrustedKeys {
    /// Opens the store and reads every key, making the folder where it is missing. A file that cannot be read
    /// or understood is an error: dropping a key silently would change what is admitted.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let dir = dir.into();
        durable::create_dir(&dir.join(SCRATCH))?;
        let mut folders = Folders::new();
        for folder in durable::names(&dir)? {
            if folder == OPERATOR || folder.parse::<TenantName>().is_ok() {
                let keys = read_folder(&dir, &folder)?;
                folders.insert(folder, keys);
            }
        }
        Ok(Self { dir, folders: Mutex::new(folders) })
    }

    /// Trusts a key (PEM SubjectPublicKeyInfo, P-256 or Ed25519) for one tenant. Trusting it again renames it.
    pub fn trust(
        &self,
        tenant: &TenantName,
        name: &str,
        pem: &str,
        now_ms: u64,
    ) -> Result<TrustedKey, TrustError> {
        self.insert(tenant.as_str(), name, pem, now_ms)
    }

    /// Trusts a key for every tenant.
    pub fn trust_operator(&self, name: &str, pem: &str, now_ms: u64) -> Result<TrustedKey, TrustError> {
        self.insert(OPERATOR, name, pem, now_ms)
    }

    /// The keys that count for a tenant: its own, then the operator's, each once.
    pub fn list(&self, tenant: &TenantName) -> Vec<TrustedKey> {
        let folders = self.lock();
        let own = folders.get(tenant.as_str());
        let operators = folders.get(OPERATOR).into_iter().flatten();
        let others = operators.filter(|(id, _)| !own.is_some_and(|own| own.contains_key(*id)));
        own.into_iter().flatten().chain(others).map(|(_, key)| key.clone()).collect()
    }

    /// Ends a tenant's trust in one of its own keys; `false` where it had none by this id. Operator keys are
    /// not a tenant's to revoke.
    pub fn revoke(&self, tenant: &TenantName, key_id: &str) -> Result<bool, DiskError> {
        self.remove(tenant.as_str(), key_id)
    }

    /// Ends every tenant's trust in an operator key; `false` where there is none by this id.
    pub fn revoke_operator(&self, key_id: &str) -> Result<bool, DiskError> {
        self.remove(OPERATOR, key_id)
    }

    fn insert(&self, folder: &str, name: &str, pem: &str, now_ms: u64) -> Result<TrustedKey, TrustError> {
        let printable = !name.chars().any(char::is_control) && !name.trim().is_empty();
        if !printable || name.chars().count() > NAME_CHARS_MAX {
            return Err(TrustError::Name(name.chars().take(NAME_CHARS_MAX).collect()));
        }
        let key =
            PublicKey::from_pem(pem).map_err(|source| TrustError::Key { name: name.to_owned(), source })?;
        let trusted =
            TrustedKey { name: name.to_owned(), key, trusted_at_ms: now_ms, operator: folder == OPERATOR };
        let mut folders = self.lock();
        let keys = folders.entry(folder.to_owned()).or_default();
        let id = trusted.key.id().to_owned();
        if keys.len() >= TRUSTED_KEYS_PER_TENANT_MAX && !keys.contains_key(&id) {
            return Err(TrustError::TooMany(keys.len()));
        }
        let KeyView { name, pem, trusted_at_ms, .. } = trusted.view();
        let file = serde_json::to_vec_pretty(&KeyFile { name, pem, trusted_at_ms })
            .expect("strings and a number always serialise");
        durable::write(&self.dir.join(SCRATCH), &key_path(&self.dir, folder, &id), &file)?;
        keys.insert(id, trusted.clone());
        Ok(trusted)
    }

    fn remove(&self, folder: &str, key_id: &str) -> Result<bool, DiskError> {
        let mut folders = self.lock();
        // Only ids that are known become file names, so that no path comes from outside.
        let Some(keys) = folders.get_mut(folder).filter(|keys| keys.contains_key(key_id)) else {
            return Ok(false);
        };
        durable::remove(&key_path(&self.dir, folder, key_id))?;
        keys.remove(key_id);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Folders> {
        // The map changes only after the disk did, in one step: a panic elsewhere leaves it whole.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_path(dir: &Path, folder: &str, key_id: &str) -> PathBuf {
    dir.join(folder).join(format!("{key_id}.json"))
}

fn read_folder(dir: &Path, folder: &str) -> Result<BTreeMap<String, TrustedKey>, OpenError> {
    let mut keys = BTreeMap::new();
    for name in durable::names(&dir.join(folder))? {
        let path = dir.join(folder).join(name);
        let Some(bytes) = durable::read(&path)? else { continue };
        let not_a_key = |why: String| OpenError::NotAKey { path: path.clone(), why };
        let file: KeyFile = serde_json::from_slice(&bytes).map_err(|error| not_a_key(error.to_string()))?;
        let key = PublicKey::from_pem(&file.pem).map_err(|error| not_a_key(error.to_string()))?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(key.id()) {
            return Err(not_a_key("its name is not the id of the key in it".to_owned()));
        }
        let KeyFile { name, trusted_at_ms, .. } = file;
        let trusted = TrustedKey { name, key, trusted_at_ms, operator: folder == OPERATOR };
        keys.insert(trusted.key.id().to_owned(), trusted);
    }
    Ok(keys)
}

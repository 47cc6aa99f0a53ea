//! What is known to be inside a Rust artifact: from the list that cargo-auditable embedded in the binary (ELF or
//! Wasm), or from a `Cargo.lock`. Both are read with limits; neither is executed or trusted beyond that.
//! Sources: cargo-auditable `PARSING.md` and its JSON schema, the Cargo book on `Cargo.lock`.

use neap_sdk::limits::{AUDIT_DATA_BYTES_MAX, CARGO_LOCK_BYTES_MAX};
use serde::Deserialize;
use std::collections::BTreeMap;
use wasmparser::{Parser, Payload};

/// Where the knowledge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentsSource {
    /// The binary itself says it.
    CargoAuditable,
    /// A lock file beside the source says it; it may list more than was compiled in.
    CargoLock,
    /// Nobody says anything.
    Unknown,
}

/// The packages inside an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where this comes from.
    pub source: ContentsSource,
    /// The packages, sorted by name, version and source.
    pub packages: Vec<Package>,
}

/// One crate.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its source as Cargo writes it; `None` for a local crate.
    pub source: Option<String>,
    /// SHA-256 of the `.crate` file, in hex.
    pub checksum: Option<String>,
    /// What it depends on, as places in [`Contents::packages`].
    pub dependencies: Vec<usize>,
}

/// Why contents could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Larger than any lock file.
    #[error("Cargo.lock has {0} bytes; at most {CARGO_LOCK_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not a lock file.
    #[error("Cargo.lock cannot be understood")]
    Lock(#[from] toml::de::Error),
    /// The crate that is built is not in it.
    #[error("Cargo.lock has no package {0:?}; is it the lock file of this artifact?")]
    NoRoot(String),
    /// The embedded list is damaged.
    #[error("the dependency list that cargo-auditable embedded is damaged: {0}")]
    Audit(String),
}

/// Cargo's name for crates.io.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<LockPackage>,
}

#[derive(Deserialize)]
struct LockPackage {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Audit {
    packages: Vec<AuditPackage>,
}

#[derive(Deserialize)]
struct AuditPackage {
    name: String,
    version: String,
    source: String,
    #[serde(default)]
    kind: AuditKind,
    #[serde(default)]
    dependencies: Vec<usize>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum AuditKind {
    Build,
    #[default]
    Runtime,
}

impl Contents {
    /// Nothing is known.
    pub const fn unknown() -> Self {
        Self { source: ContentsSource::Unknown, packages: Vec::new() }
    }

    /// Reads a `Cargo.lock`: everything that package `root` depends on, and itself; all of it without one.
    pub fn from_cargo_lock(text: &str, root: Option<&str>) -> Result<Self, ContentsError> {
        if text.len() as u64 > CARGO_LOCK_BYTES_MAX {
            return Err(ContentsError::TooLarge(text.len()));
        }
        let lock: Lock = toml::from_str(text)?;
        // A dependency is written as shortly as it is unique: name, name and version, or both and the source.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (place, package) in lock.package.iter().enumerate() {
            let LockPackage { name, version, source, .. } = package;
            places.insert(name.clone(), place);
            places.insert(format!("{name} {version}"), place);
            places.insert(format!("{name} {version} ({})", source.as_deref().unwrap_or_default()), place);
        }
        let resolve = |names: &[String]| names.iter().filter_map(|name| places.get(name).copied()).collect();
        let packages: Vec<Package> = lock
            .package
            .iter()
            .map(|package| Package {
                name: package.name.clone(),
                version: package.version.clone(),
                source: package.source.clone(),
                checksum: package.checksum.clone(),
                dependencies: resolve(&package.dependencies),
            })
            .collect();
        let kept = match root {
            None => vec![true; packages.len()],
            Some(root) => {
                let start = packages.iter().position(|package| package.name == root);
                reachable(&packages, start.ok_or_else(|| ContentsError::NoRoot(root.to_owned()))?)
            }
        };
        Ok(Self { source: ContentsSource::CargoLock, packages: select(packages, &kept) })
    }

    /// Reads what cargo-auditable embedded in an ELF binary or in Wasm (a module, or any module of a component).
    /// `None` where nothing is embedded, or the bytes are neither.
    pub fn from_binary(bytes: &[u8]) -> Result<Option<Self>, ContentsError> {
        for module in modules(bytes) {
            let json = match auditable_info::json_from_slice(module, AUDIT_DATA_BYTES_MAX) {
                Ok(json) => json,
                Err(auditable_info::Error::NoAuditData | auditable_info::Error::BinaryParsing(_)) => continue,
                Err(error) => return Err(ContentsError::Audit(error.to_string())),
            };
            return Self::from_audit(&json).map(Some);
        }
        Ok(None)
    }

    fn from_audit(json: &str) -> Result<Self, ContentsError> {
        let audit: Audit =
            serde_json::from_str(json).map_err(|error| ContentsError::Audit(error.to_string()))?;
        let count = audit.packages.len();
        let kept: Vec<bool> =
            audit.packages.iter().map(|package| package.kind == AuditKind::Runtime).collect();
        let source = |kind: String| match kind.as_str() {
            "local" => None,
            "crates.io" => Some(CRATES_IO.to_owned()),
            _ => Some(kind),
        };
        let packages = audit.packages.into_iter().map(|package| Package {
            name: package.name,
            version: package.version,
            source: source(package.source),
            checksum: None,
            dependencies: package.dependencies.into_iter().filter(|place| *place < count).collect(),
        });
        Ok(Self { source: ContentsSource::CargoAuditable, packages: select(packages.collect(), &kept) })
    }
}

impl Package {
    /// Its package URL; `None` where the crate has no public home that one could name.
    pub fn purl(&self) -> Option<String> {
        let name = &self.name;
        let version = escape(&self.version);
        let source = self.source.as_deref()?;
        if source == CRATES_IO || source == "sparse+https://index.crates.io/" {
            return Some(format!("pkg:cargo/{name}@{version}"));
        }
        if source.starts_with("git+") {
            return Some(format!("pkg:cargo/{name}@{version}?vcs_url={}", escape(source)));
        }
        let registry = source.strip_prefix("registry+").or_else(|| source.strip_prefix("sparse+"))?;
        Some(format!("pkg:cargo/{name}@{version}?repository_url={}", escape(registry)))
    }
}

/// Percent-encodes everything but the characters that a package URL leaves alone.
pub(super) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:/".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// The core modules of a component; anything else is its own only part.
fn modules(bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    if Parser::is_component(bytes) {
        for payload in Parser::new(0).parse_all(bytes) {
            match payload {
                Ok(Payload::ModuleSection { unchecked_range, .. }) => {
                    found.extend(bytes.get(unchecked_range));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        return found;
    }
    found.push(bytes);
    found
}

fn reachable(packages: &[Package], start: usize) -> Vec<bool> {
    let mut kept = vec![false; packages.len()];
    let mut waiting = vec![start];
    while let Some(place) = waiting.pop() {
        if !std::mem::replace(&mut kept[place], true) {
            waiting.extend(&packages[place].dependencies);
        }
    }
    kept
}

/// Keeps some of the packages, sorts them, and renumbers their dependencies.
fn select(packages: Vec<Package>, kept: &[bool]) -> Vec<Package> {
    let mut order: Vec<usize> = (0..packages.len()).filter(|place| kept[*place]).collect();
    order.sort_by(|a, b| packages[*a].cmp(&packages[*b]));
    let mut moved = vec![None; packages.len()];
    for (new, old) in order.iter().enumerate() {
        moved[*old] = Some(new);
    }
    let renumber = |old: &usize| {
        let mut package = packages[*old].clone();
        package.dependencies = package.dependencies.iter().filter_map(|place| moved[*place]).collect();
        package.dependencies.sort_unstable();
        package.dependencies.dedup();
        package
    };
    order.iter().map(renumber).collect()
}

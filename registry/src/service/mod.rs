//! [`Registry`]: the store, the keys, admission and the releases as one thing that the platform opens.
//!
//! Pushing goes through [`Registry::router`] and stores; admitting goes through [`Registry::admit`] and decides.
//! The two meet only on disk. Nothing here speaks HTTP to anybody.

mod resolve;

use crate::{
    access::Access,
    admission::{self, Policy, component},
    api,
    durable::DiskError,
    gc::{self, Swept},
    keys::TrustedKeys,
    release::{Layer, Release, ReleaseSet, Releases},
    store::{Pin, ReadError, Store},
};
use axum::Router;
use futures_util::future::BoxFuture;
use neap_sdk::{
    Digest, ErrorCode, TenantName,
    admission::{Evidence, Reason, Verdict},
    artifact::{Repository, TagOrDigest},
    limits,
};
use resolve::{Resolution, Resolved};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// How to open a registry.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Where everything lies; made where it is missing.
    pub dir: PathBuf,
    /// Who may use the API.
    pub access: Access,
    /// What an artifact must show to run.
    pub policy: Policy,
}

impl RegistrySettings {
    /// A registry in `dir` with the default policy, for a listener on loopback.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), access: Access::Anonymous, policy: Policy::default() }
    }
}

/// Proves that an artifact can run here: compiles the Wasm, checks its imports, unpacks the image. Implemented
/// above the registry. Idempotent; a refusal is the [`Reason`] that users see.
pub trait Preparer: Send + Sync + 'static {
    /// Prepares a release that is about to be published. Its content is in the store and was verified.
    fn prepare<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, Result<(), Reason>>;
}

/// Why a registry was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder could not be read or written.
    #[error("cannot open the registry")]
    Disk(#[from] DiskError),
    /// Its trusted keys could not be read. Going on without a key would change what is admitted.
    #[error("cannot open the trusted keys")]
    Keys(#[from] crate::keys::OpenError),
}

/// Why nothing could be decided about an artifact.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// There is no such manifest.
    #[error("there is no {target} in repository {repository}; push it first")]
    NotFound {
        /// Where it was looked for.
        repository: Repository,
        /// What was looked for.
        target: TagOrDigest,
    },
    /// The repository is nobody's.
    #[error("repository {0} belongs to no tenant: its first part is not a tenant's name")]
    NoTenant(Repository),
    /// The store could not be read.
    #[error("the registry's store cannot be read")]
    Read(#[from] ReadError),
    /// The release could not be written.
    #[error("the release cannot be kept")]
    Write(#[source] DiskError),
}

impl AdmitError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::NoTenant(_) => ErrorCode::Invalid,
            Self::Read(_) => ErrorCode::EvidenceUnavailable,
            Self::Write(_) => ErrorCode::Storage,
        }
    }
}

/// What came of an admission.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The decision with its reasons and evidence.
    pub verdict: Verdict,
    /// The release that was published, exactly where `verdict.admitted`.
    pub release: Option<Arc<Release>>,
}

/// The registry. Cheap to clone; all clones are one registry.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Store,
    keys: TrustedKeys,
    releases: Arc<Releases>,
    access: Access,
    policy: Policy,
    preparer: Arc<dyn Preparer>,
    admissions: Semaphore,
    _maintenance: AbortOnDropHandle<()>,
}

/// What was judged, as far as it came: a release that may be published, or only a refusal.
enum Judged {
    Passed(Box<Release>, Pin),
    Refused(Verdict),
}

impl Registry {
    /// Opens the registry in a folder of its own and begins to collect its garbage every
    /// [`limits::REGISTRY_GC_INTERVAL_S`], until the last clone is dropped. Needs a tokio runtime.
    pub async fn open(settings: RegistrySettings, preparer: Arc<dyn Preparer>) -> Result<Self, OpenError> {
        let RegistrySettings { dir, access, policy } = settings;
        let store = Store::open(dir.clone()).await?;
        let (releases, keys) = crate::store::blocking(move || {
            let releases = Releases::open(dir.join("releases"), dir.join("scratch"))?;
            let keys = TrustedKeys::open(dir.join("keys"))?;
            Ok::<_, OpenError>((Arc::new(releases), keys))
        })
        .await?;
        let maintenance = tokio::spawn(maintain(store.clone(), releases.clone()));
        Ok(Self(Arc::new(Inner {
            store,
            keys,
            releases,
            access,
            policy,
            preparer,
            admissions: Semaphore::new(limits::ADMISSIONS_CONCURRENT_MAX),
            _maintenance: AbortOnDropHandle::new(maintenance),
        })))
    }

    /// The distribution API: everything under `/v2/`.
    pub fn router(&self) -> Router {
        api::router(self.0.store.clone(), self.0.access.clone())
    }

    /// The content store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The keys whose signatures count.
    pub fn keys(&self) -> &TrustedKeys {
        &self.0.keys
    }

    /// Where the content of a digest lies on disk.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.store.blob_path(digest)
    }

    /// Every admitted artifact, the whole set each time it changes.
    pub fn releases(&self) -> watch::Receiver<Arc<ReleaseSet>> {
        self.0.releases.watch()
    }

    /// Keeps content from the garbage collection while the pin lives. Releases need none.
    pub fn pin(&self, digests: Vec<Digest>) -> Pin {
        self.0.store.pin(digests)
    }

    /// Removes content that nothing needed for `grace`.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<Swept, DiskError> {
        collect(&self.0.store, &self.0.releases, grace).await
    }

    /// Judges an artifact and publishes nothing.
    pub async fn verify(&self, repository: &Repository, target: &TagOrDigest) -> Result<Verdict, AdmitError> {
        let _turn = self.0.admissions.acquire().await;
        match self.judge(repository, target).await? {
            Judged::Passed(release, _) => Ok(release.verdict),
            Judged::Refused(verdict) => Ok(verdict),
        }
    }

    /// Resolves `target` once, judges it, proves that it can run here, and publishes the release. A refusal is an
    /// `Ok` without a release, and leaves alone what an earlier admission of the same digest published. Dropping the
    /// future before it returns publishes nothing or everything.
    pub async fn admit(&self, repository: &Repository, target: &TagOrDigest) -> Result<Admitted, AdmitError> {
        let _turn = self.0.admissions.acquire().await;
        let (mut release, pin) = match self.judge(repository, target).await? {
            Judged::Passed(release, pin) => (release, pin),
            Judged::Refused(verdict) => return Ok(Admitted { verdict, release: None }),
        };
        if let Err(reason) = self.0.preparer.prepare(&release).await {
            release.verdict.admitted = false;
            release.verdict.reasons.push(reason);
            return Ok(Admitted { verdict: release.verdict, release: None });
        }
        let release = self.0.releases.publish(*release).await.map_err(AdmitError::Write)?;
        // The release keeps its content from here on.
        drop(pin);
        tracing::info!(%repository, digest = %release.digest, kind = %release.kind, "admitted");
        Ok(Admitted { verdict: release.verdict.clone(), release: Some(release) })
    }

    async fn judge(&self, repository: &Repository, target: &TagOrDigest) -> Result<Judged, AdmitError> {
        let tenant = repository.tenant().ok_or_else(|| AdmitError::NoTenant(repository.clone()))?;
        let (name, wanted) = (repository.clone(), target.clone());
        let resolved = match self.0.store.run(move |store| resolve::resolve(store, &name, &wanted)).await? {
            Resolution::Found(resolved) => resolved,
            Resolution::Refused(digest, reason) => return Ok(self.refuse(digest, reason)),
            Resolution::Missing => {
                return Err(AdmitError::NotFound { repository: repository.clone(), target: target.clone() });
            }
        };
        self.judge_resolved(&tenant, repository, resolved).await
    }

    async fn judge_resolved(
        &self,
        tenant: &TenantName,
        repository: &Repository,
        resolved: Resolved,
    ) -> Result<Judged, AdmitError> {
        let Resolved { digest, bytes, ancestors, pin } = resolved;
        let store = &self.0.store;
        let found = match component::inspect(store, repository, &bytes).await {
            Ok(found) => found,
            Err(error) => return Ok(self.refuse(digest, error.reason())),
        };
        let subject = admission::Subject {
            tenant,
            repository,
            digest,
            ancestors: &ancestors,
            manifest: &bytes,
            kind: found.kind,
        };
        let keys = self.0.keys.list(tenant);
        let verdict = admission::judge(&subject, store, &keys, &self.0.policy, now_ms()).await;
        if !verdict.admitted {
            return Ok(Judged::Refused(verdict));
        }
        let layer = |found: crate::manifest::Descriptor| Layer {
            digest: found.digest,
            media_type: found.media_type,
            size_bytes: found.size,
        };
        let config_bytes = found.config.size;
        let release = Release {
            repository: repository.clone(),
            digest,
            kind: found.kind,
            config: found.config.digest,
            layers: found.layers.into_iter().map(layer).collect(),
            verdict,
        };
        let mut content = vec![(release.config, config_bytes)];
        content.extend(release.layers.iter().map(|layer| (layer.digest, layer.size_bytes)));
        match store.run(move |store| resolve::verify_all(store, &content)).await? {
            None => Ok(Judged::Passed(Box::new(release), pin)),
            Some(reason) => Ok(self.refuse(digest, reason)),
        }
    }

    fn refuse(&self, digest: Digest, reason: Reason) -> Judged {
        Judged::Refused(Verdict {
            digest,
            admitted: false,
            reasons: vec![reason],
            evidence: Evidence::default(),
            policy: self.0.policy.digest(),
            decided_at_ms: now_ms(),
        })
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn collect(store: &Store, releases: &Arc<Releases>, grace: Duration) -> Result<Swept, DiskError> {
    let releases = releases.clone();
    store.run(move |store| gc::collect(store, || releases.current(), SystemTime::now(), grace)).await
}

async fn maintain(store: Store, releases: Arc<Releases>) {
    loop {
        tokio::time::sleep(Duration::from_secs(limits::REGISTRY_GC_INTERVAL_S)).await;
        match collect(&store, &releases, Duration::from_secs(limits::REGISTRY_GC_GRACE_S)).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(Swept { blobs, bytes, links, uploads }) => {
                tracing::info!(blobs, bytes, links, uploads, "collected the registry's garbage");
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "garbage collection failed")
            }
        }
    }
}

//! The scheduler's one door: opening it, and what a request asks of it. Wires the parts and decides nothing.

use crate::{
    admissions::Admissions,
    cluster::{Change, Cluster, ClusterError, CorruptError},
    driver,
    error::AcquireError,
    fleet::Fleet,
    lease::Lease,
    live::Live,
    metrics::Metrics,
    route::RouteTable,
    store::{Committed, RedbStore, Store, StoreError, Transaction},
    target::{Shared, Target},
};
use arc_swap::ArcSwap;
use neap_sdk::{ErrorCode, Problem};
use prometheus_client::registry::Registry;
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

/// How often a change is planned anew when the state moved on under it.
const CHANGE_ATTEMPTS_MAX: usize = 8;

/// How a scheduler is set up.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// Where the desired state is kept.
    pub dir: PathBuf,
    /// Below which name functions answer, such as `localhost`.
    pub domain: String,
    /// The port that URLs name; see [`Scheduler::announce_port`].
    pub port: u16,
}

/// Why a scheduler could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("the desired state cannot be opened")]
    Store(#[from] StoreError),
    /// The store holds something unreadable; nothing is served before a person has looked.
    #[error("the desired state cannot be read")]
    Corrupt(#[from] CorruptError),
}

/// The scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub domain: String,
    pub port: AtomicU16,
    pub admissions: Arc<dyn Admissions>,
    pub store: Arc<dyn Store>,
    pub shared: Arc<Shared>,
    pub routes: ArcSwap<RouteTable>,
    /// Told whenever what is known changed.
    pub changed: watch::Sender<()>,
    /// Ends the driver.
    pub stopping: CancellationToken,
    live: Mutex<Live>,
    /// One change at a time: the next one is planned on the result of the one before.
    changing: tokio::sync::Mutex<()>,
}

impl Scheduler {
    /// Opens the desired state and begins to follow it. Call it on the control runtime: starts and the driver run
    /// there, whoever asks for them.
    ///
    /// # Errors
    /// The folder or the store cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn open(
        settings: SchedulerSettings,
        admissions: Arc<dyn Admissions>,
        fleet: Arc<dyn Fleet>,
        metrics: &mut Registry,
    ) -> Result<Self, OpenError> {
        let SchedulerSettings { dir, domain, port } = settings;
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|source| OpenError::Folder { path: dir.clone(), source })?;
        let store = RedbStore::open(&dir.join("state.redb")).await?;
        let cluster = Cluster::load(&domain, store.range("/").await?)?;
        let shared = Arc::new(Shared::new(fleet, Metrics::register(metrics), Handle::current()));
        let mut live = Live::new(cluster);
        let routes = live.follow(&shared);
        for stranger in live.adopt(&shared.fleet.instances()) {
            let shared_fleet = Arc::clone(&shared.fleet);
            shared.tasks.spawn(async move { shared_fleet.stop(stranger).await });
        }
        let inner = Inner {
            domain,
            port: AtomicU16::new(port),
            admissions,
            store: Arc::new(store),
            shared: Arc::clone(&shared),
            routes: ArcSwap::from_pointee(routes),
            changed: watch::Sender::new(()),
            stopping: CancellationToken::new(),
            live: Mutex::new(live),
            changing: tokio::sync::Mutex::new(()),
        };
        let scheduler = Self { inner: Arc::new(inner) };
        shared.tasks.spawn(driver::run(scheduler.clone()));
        shared.tasks.spawn(driver::follow_store(scheduler.clone()));
        Ok(scheduler)
    }

    /// The routes of now.
    pub fn routes(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.inner.routes.load()
    }

    /// A lease on one slot of one instance of `target`: at once where one is free, else after waiting for one, in order
    /// of arrival, while instances are started as needed.
    ///
    /// # Errors
    /// The queue is full, the wait took too long, the revision does not start, the server stops.
    ///
    /// # Cancellation
    /// Dropping the future gives the place up; a slot that was on its way goes to the next waiter.
    pub async fn acquire(&self, target: &Arc<Target>) -> Result<Lease, AcquireError> {
        target.acquire().await
    }

    /// Names the port in URLs, for a gateway that learns its port only by binding.
    pub fn announce_port(&self, port: u16) {
        self.inner.port.store(port, Ordering::Relaxed);
    }
}

/// Why a change of the desired state was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is not allowed.
    #[error(transparent)]
    Refused(#[from] ClusterError),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed the same thing again and again.
    #[error("the function changed {CHANGE_ATTEMPTS_MAX} times while this change was made; try again")]
    Contended,
    /// The server stops, or the change's task failed.
    #[error("the server is stopping")]
    Stopping,
}

impl ChangeError {
    /// What a client is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(error) => error.problem(),
            Self::Store(error) => error.problem(),
            Self::Contended => Problem::new(ErrorCode::Conflict, self.to_string()),
            Self::Stopping => Problem::new(ErrorCode::Draining, self.to_string()),
        }
    }
}

impl Inner {
    /// What is known now. Hold it shortly.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies changes that are in the store, and lets routes and targets follow.
    pub fn apply(&self, changes: &[Change]) {
        let mut live = self.live();
        match live.apply(changes) {
            Ok(false) => {}
            Ok(true) => self.publish(&mut live),
            Err(error) => {
                tracing::error!(key = %error.key, "the store holds a key that cannot be read; it is left out");
                self.publish(&mut live);
            }
        }
    }

    /// Lets routes, targets and whoever waits for a change follow what is known.
    fn publish(&self, live: &mut Live) {
        self.routes.store(Arc::new(live.follow(&self.shared)));
        self.changed.send_replace(());
    }

    /// Reads everything again: after a watch that was too slow, or a change that others overtook.
    pub async fn reload(&self) -> Result<(), OpenError> {
        let cluster = Cluster::load(&self.domain, self.store.range("/").await?)?;
        let mut live = self.live();
        if live.replace(cluster) {
            self.publish(&mut live);
        }
        Ok(())
    }
}

impl Scheduler {
    /// Plans a change on the state of now, keeps it, applies it. Runs as a task of its own, so that a caller that goes
    /// away cannot leave it kept but not applied.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        plan: impl Fn(&Cluster) -> Result<(T, Option<Transaction>), ClusterError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let inner = Arc::clone(&self.inner);
        let task = self
            .inner
            .shared
            .tasks
            .spawn_on(async move { change(&inner, plan).await }, &self.inner.shared.control);
        task.await.unwrap_or(Err(ChangeError::Stopping))
    }
}

async fn change<T>(
    inner: &Inner,
    plan: impl Fn(&Cluster) -> Result<(T, Option<Transaction>), ClusterError>,
) -> Result<T, ChangeError> {
    let _changing = inner.changing.lock().await;
    for _ in 0..CHANGE_ATTEMPTS_MAX {
        let (outcome, transaction) = plan(inner.live().cluster())?;
        let Some(transaction) = transaction else { return Ok(outcome) };
        match inner.store.commit(transaction.clone()).await? {
            Committed::Done { revision } => {
                let changes: Vec<Change> =
                    transaction.writes.iter().map(|write| Change::committed(write, revision)).collect();
                inner.apply(&changes);
                return Ok(outcome);
            }
            Committed::Conflict { .. } => {
                if let Err(error) = inner.reload().await {
                    tracing::error!(error = %error, "the desired state cannot be read again");
                    return Err(ChangeError::Contended);
                }
            }
        }
    }
    Err(ChangeError::Contended)
}

//! What the server calls: [`OciRuntime`] and [`Container`].
//!
//! Async throughout; blocking work (unpacking) goes to the blocking pool. It must never fork, mount or enter a
//! namespace on a thread of the runtime.

mod container;
mod error;
mod freeze;
mod link;
mod logs;
mod network;

pub use container::{Container, ContainerUsage};
pub use error::{Exit, FreezeError, RunError, UnavailableError};
pub use logs::{LogSink, Stream};

use crate::image::{Image, ImageFiles};
use crate::protocol::{Order, ToSpawner};
use crate::unpack::{ImageStore, UnpackError};
use container::Launched;
use link::{Expected, Link};
use logs::LogTasks;
use neap_sdk::{Digest, limits};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// How containers are run on this machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A folder that belongs to this server alone: unpacked images and the spawner's lock.
    pub state_dir: PathBuf,
    /// The command line of the spawner child, which calls [`crate::spawner::child_main`].
    pub spawner: Vec<OsString>,
    /// Sandboxes that are kept prepared; each makes one start faster and costs about 1 MiB.
    pub parked: usize,
}

impl Settings {
    /// Settings with the usual number of prepared sandboxes.
    pub fn new(state_dir: PathBuf, spawner: Vec<OsString>) -> Self {
        Self { state_dir, spawner, parked: limits::CONTAINERS_PARKED }
    }
}

/// A container to be.
#[derive(Clone)]
pub struct ContainerSpec {
    /// Its host name inside: letters, digits and `-`, at most 63.
    pub id: String,
    /// What it runs.
    pub image: ImageFiles,
    /// Environment that goes before the image's; a `PORT` in it decides where the program listens.
    pub env: Vec<(String, String)>,
    /// Memory limit, for its processes and for what it writes to its files.
    pub memory_bytes: u64,
    /// How long it may take to listen.
    pub startup_timeout: Duration,
    /// Takes its output.
    pub logs: Arc<dyn LogSink>,
}

/// Runs containers. Clones share one spawner; when the last clone and the last container are dropped, it ends.
#[derive(Clone)]
pub struct OciRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    link: tokio::sync::Mutex<Arc<Link>>,
    images: ImageStore,
    /// Images seen since the start.
    known: Mutex<HashMap<Digest, Arc<Image>>>,
    unpacking: Semaphore,
    starting: Semaphore,
    /// Where output is read: the runtime that [`OciRuntime::start`] was called on.
    runtime: Handle,
}

impl OciRuntime {
    /// Starts the spawner, which first ends and removes whatever an earlier one on the same folder left.
    ///
    /// The error says in one line what this machine lacks: root, namespaces, a control group.
    pub async fn start(settings: Settings) -> Result<Self, UnavailableError> {
        if !rustix::process::geteuid().is_root() {
            let uid = rustix::process::geteuid().as_raw();
            return Err(UnavailableError(format!("they need root, and this process runs as user {uid}")));
        }
        let state_dir = settings.state_dir.clone();
        std::fs::create_dir_all(&state_dir)
            .map_err(|error| UnavailableError(format!("cannot create {}: {error}", state_dir.display())))?;
        let link = Link::start(&settings.spawner, &state_dir, settings.parked).await?;
        // Only now is it sure that no other server uses the folder.
        let images = ImageStore::open(state_dir.join("images"));
        let images = images.map_err(|error| UnavailableError(error.to_string()))?;
        let inner = Inner {
            settings,
            link: tokio::sync::Mutex::new(Arc::new(link)),
            images,
            known: Mutex::new(HashMap::new()),
            unpacking: Semaphore::new(limits::IMAGES_UNPACKING_MAX),
            starting: Semaphore::new(limits::CONTAINERS_STARTING_MAX),
            runtime: Handle::current(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Unpacks an image, once; later calls return at once.
    ///
    /// Cancellation: unpacking goes on in the background and is there for the next call.
    pub async fn unpack(&self, image: &ImageFiles) -> Result<(), UnpackError> {
        self.image(image).await.map(drop)
    }

    async fn image(&self, files: &ImageFiles) -> Result<Arc<Image>, UnpackError> {
        let known = || self.inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = known().get(&files.digest) {
            return Ok(image.clone());
        }
        let _permit = self.inner.unpacking.acquire().await.map_err(|_| UnpackError::Interrupted)?;
        let (store, owned) = (self.inner.images.clone(), files.clone());
        let unpacked = tokio::task::spawn_blocking(move || store.unpack(&owned)).await;
        let image = Arc::new(unpacked.map_err(|_| UnpackError::Interrupted)??);
        known().insert(files.digest, image.clone());
        Ok(image)
    }

    /// Starts a container and waits until its program accepts connections on `$PORT`.
    ///
    /// Cancellation: dropping the future ends the container.
    pub async fn run(&self, spec: ContainerSpec) -> Result<Container, RunError> {
        check(&spec)?;
        let image = self.image(&spec.image).await?;
        let _permit = self.inner.starting.acquire().await.map_err(|_| UnpackError::Interrupted)?;
        let begun = Instant::now();
        let (env, port) = image.environment(&spec.env);
        let order = Order {
            name: spec.id.clone(),
            rootfs: self.inner.images.rootfs(&spec.image.digest),
            args: image.args.clone(),
            env,
            working_dir: image.working_dir.clone(),
            user: image.user.clone(),
            memory_bytes: spec.memory_bytes.max(limits::CONTAINER_MEMORY_BYTES_MIN),
        };
        let link = self.link().await?;
        let (mut expected, logs) = self.order(&link, order, &spec.logs).await?;
        let started = match tokio::time::timeout(spec.startup_timeout, &mut expected.started).await {
            Ok(Ok(Ok(started))) => started,
            Ok(Ok(Err(reason))) => {
                logs.drained().await;
                return Err(RunError::Setup(reason));
            }
            Ok(Err(_)) => return Err(RunError::Setup(Exit::SpawnerLost.to_string())),
            Err(_) => {
                link.kill(expected.id);
                return Err(RunError::Setup(format!("it was not set up within {:?}", spec.startup_timeout)));
            }
        };
        let left = spec.startup_timeout.saturating_sub(begun.elapsed());
        let Expected { phase, .. } = expected;
        let launched = Launched { link, started, phase, stop_signal: image.stop_signal };
        self.until_it_listens(launched, port, left, logs, spec.startup_timeout).await
    }

    /// The spawner; a new one if the last was killed.
    async fn link(&self) -> Result<Arc<Link>, UnavailableError> {
        let mut link = self.inner.link.lock().await;
        if link.is_lost() {
            tracing::warn!("the spawner process is gone; starting another");
            let settings = &self.inner.settings;
            *link = Arc::new(Link::start(&settings.spawner, &settings.state_dir, settings.parked).await?);
        }
        Ok(link.clone())
    }

    async fn order(
        &self,
        link: &Link,
        order: Order,
        sink: &Arc<dyn LogSink>,
    ) -> Result<(Expected, LogTasks), RunError> {
        let (stdout, stdout_writer) = std::io::pipe().map_err(RunError::Spawner)?;
        let (stderr, stderr_writer) = std::io::pipe().map_err(RunError::Spawner)?;
        let pipes = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let logs = LogTasks::start(&self.inner.runtime, sink, pipes).map_err(RunError::Spawner)?;
        let expected = link.expect();
        let message = ToSpawner::Run { id: expected.id, order: Box::new(order) };
        match link.send(&message, &[stdout_writer.as_fd(), stderr_writer.as_fd()]).await {
            Ok(()) => Ok((expected, logs)),
            Err(error) => {
                link.forget(expected.id);
                Err(RunError::Spawner(error))
            }
        }
    }

    async fn until_it_listens(
        &self,
        mut launched: Launched,
        port: u16,
        left: Duration,
        logs: LogTasks,
        waited: Duration,
    ) -> Result<Container, RunError> {
        let network = launched.started.network.try_clone().map_err(RunError::Spawner)?;
        let network = Arc::new(network);
        let listening = tokio::select! {
            listening = network::wait(network.clone(), port, left) => listening.map_err(RunError::Spawner)?,
            exit = link::ended(&mut launched.phase) => {
                logs.drained().await;
                return Err(RunError::Exited { exit, port });
            }
        };
        match listening {
            Some(listening) => Ok(launched.listening(network, listening)),
            None => {
                launched.started.group.kill();
                logs.drained().await;
                Err(RunError::NeverListened { port, waited })
            }
        }
    }

    /// Ends every container and the spawner, and waits until nothing of them is left on the machine.
    pub async fn shutdown(&self) {
        self.inner.link.lock().await.clone().shutdown().await;
    }
}

/// Registers a descriptor with the runtime of the caller.
fn watch_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open and the same for as long as it lives, and nothing replaces it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

fn check(spec: &ContainerSpec) -> Result<(), RunError> {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if spec.id.is_empty() || spec.id.len() > 63 || !spec.id.chars().all(plain) {
        return Err(RunError::Invalid(format!(
            "its id {:?} is not a host name (letters, digits and \"-\", at most 63)",
            spec.id.chars().take(80).collect::<String>()
        )));
    }
    let bytes: usize = spec.env.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > limits::ENV_BYTES_MAX {
        return Err(RunError::Invalid(format!(
            "its environment is larger than {} bytes",
            limits::ENV_BYTES_MAX
        )));
    }
    for (key, value) in &spec.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(RunError::Invalid(format!("{key:?} is not an environment variable that can be set")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers box these futures and move them between threads.
    #[test]
    fn futures_can_be_sent() {
        fn sent<T: Send>(_: impl FnOnce(OciRuntime, Container, ContainerSpec) -> T) {}
        sent(|runtime, container, spec| async move {
            let _ = runtime.run(spec).await;
            let _ = container.connect().await;
            let _ = (container.freeze().await, container.thaw().await, container.exited().await);
            container.stop(Duration::ZERO).await;
        });
    }
}

//! One scheduler per test, and the few verbs that the tests are written in.

use neap_scheduler::{
    AcquireError, Body, Lease, Scheduler, SchedulerSettings, Target,
    admissions::fake::FakeAdmissions,
    cluster::FunctionKey,
    deploy::DeployError,
    fleet::{RunningInstance, fake::FakeFleet},
};
use neap_sdk::{
    Digest, FunctionSpec, RevisionId,
    api::{DeployRequest, FunctionView, RevisionView},
    artifact::ArtifactKind,
};
use prometheus_client::registry::Registry;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::time::Instant;

/// Longer than anything here should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub scheduler: Scheduler,
    pub fleet: FakeFleet,
    pub admissions: Arc<FakeAdmissions>,
    pub metrics: Registry,
    pub dir: TempDir,
}

impl World {
    pub async fn new(kind: ArtifactKind) -> Self {
        Self::open(tempfile::tempdir().unwrap(), kind).await
    }

    pub async fn containers() -> Self {
        Self::new(ArtifactKind::Image).await
    }

    /// A scheduler on what is in the folder, with a fleet that begins with nothing.
    pub async fn open(dir: TempDir, kind: ArtifactKind) -> Self {
        let (fleet, admissions) = (FakeFleet::default(), Arc::new(FakeAdmissions::new(kind)));
        let mut metrics = Registry::default();
        let settings =
            SchedulerSettings { dir: dir.path().to_owned(), domain: "localhost".to_owned(), port: 8080 };
        let scheduler =
            Scheduler::open(settings, admissions.clone(), Arc::new(fleet.clone()), &mut metrics).await;
        Self { scheduler: scheduler.unwrap(), fleet, admissions, metrics, dir }
    }

    /// What a machine that was switched off now would find: the folder as it is on disk.
    pub async fn after_a_crash(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        Self::open(dir, ArtifactKind::Image).await
    }

    pub async fn deploy(
        &self,
        name: &str,
        artifact: &str,
        spec: FunctionSpec,
    ) -> Result<FunctionView, DeployError> {
        let request = DeployRequest {
            repository: "app".parse().unwrap(),
            digest: Digest::of(artifact.as_bytes()),
            spec,
        };
        self.scheduler.deploy(&key(name), request).await
    }

    /// The target that the default host leads to.
    pub fn target(&self, name: &str) -> Arc<Target> {
        let routes = self.scheduler.routes();
        let route = routes.find(&format!("{name}.localhost"), "/").expect("a route");
        Arc::clone(route.pick(0).expect("a target"))
    }

    pub async fn acquire(&self, name: &str) -> Result<Lease, AcquireError> {
        self.scheduler.acquire(&self.target(name)).await
    }

    pub fn view(&self, name: &str) -> FunctionView {
        self.scheduler.function(&key(name)).unwrap()
    }

    pub fn newest(&self, name: &str) -> RevisionView {
        self.view(name).revisions.remove(0)
    }

    pub fn up(&self, name: &str, revision: u32) -> Vec<RunningInstance> {
        self.fleet.up(&revision_id(name, revision))
    }

    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text
    }
}

pub fn key(name: &str) -> FunctionKey {
    FunctionKey { tenant: "default".parse().unwrap(), name: name.parse().unwrap() }
}

pub fn revision_id(name: &str, number: u32) -> RevisionId {
    key(name).revision(number)
}

pub fn empty() -> Body {
    text("")
}

pub fn text(text: &str) -> Body {
    use http_body_util::BodyExt as _;
    http_body_util::Full::from(text.to_owned()).map_err(|never| match never {}).boxed_unsync()
}

/// Waits until something holds that is only to be seen, and says what when it never does.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

//! The one page that builds the platform: every part is made here, in order, and handed to the next.
//! Holds no rules; what a part does stands in its crate.

use crate::{config::DataDir, exit::Failure, prepare::NodePreparer, system};
use neap_gateway::{Gateway, GatewaySettings};
use neap_node::{
    Node, NodeSettings, Runtimes,
    runtime::{oci::OciAdapter, wasm::WasmAdapter},
};
use neap_oci_runtime::OciRuntime;
use neap_registry::{
    Registry, RegistrySettings,
    access::{Access, Token},
};
use neap_scheduler::{Scheduler, SchedulerSettings, fleet::LocalFleet};
use neap_sdk::error::exit;
use neap_wasm_runtime::WasmRuntime;
use rustix::fs::{FlockOperation, flock};
use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// First argument of the child that compiles Wasm code.
pub const COMPILER_CHILD: &str = "__compile";
/// First argument of the child that starts containers.
pub const SPAWNER_CHILD: &str = "__spawner";

/// What `neap up` was told.
#[derive(Debug, Clone)]
pub struct PlatformSettings {
    /// Where state lies.
    pub data_dir: DataDir,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Threads that serve requests.
    pub cores: usize,
    /// Most bytes of a request body.
    pub max_body_bytes: u64,
    /// Whether requests are logged.
    pub access_log: bool,
}

/// A running platform. Dropping it without [`Platform::stop`] is a crash, which the next start mends.
pub struct Platform {
    gateway: Gateway,
    scheduler: Scheduler,
    node: Node,
    admin: system::AdminSocket,
    missing: Vec<String>,
    _lock: File,
}

impl Platform {
    /// Builds every part and begins to serve. Must be called on the control runtime.
    pub async fn start(settings: PlatformSettings) -> Result<Self, Failure> {
        let dir = settings.data_dir.clone();
        let lock = lock_data_dir(&dir)?;
        let token = system::admin_token(&dir.admin_token())?;
        let mut metrics = prometheus_client::registry::Registry::default();

        let runtimes = runtimes(&dir).await?;
        let missing: Vec<String> = runtimes.oci.as_ref().err().cloned().into_iter().collect();
        let node = Node::open(NodeSettings::new(dir.path().join("node")), runtimes, &mut metrics)
            .map_err(|error| Failure::failed("the node does not start", &error))?;

        let registry_settings = RegistrySettings {
            // Whoever reaches loopback may push: what is pushed runs only when it is signed by a trusted key.
            access: if settings.listen.ip().is_loopback() {
                Access::Anonymous
            } else {
                Access::Token(Token::new(&token))
            },
            ..RegistrySettings::new(dir.path().join("registry"))
        };
        let preparer = Arc::new(NodePreparer::new(node.clone()));
        let registry = Registry::open(registry_settings, preparer.clone())
            .await
            .map_err(|error| Failure::failed("the registry does not start", &error))?;
        preparer.set_registry(registry.clone());
        system::trust_operator_key(&dir, &registry)?;

        let scheduler_settings = SchedulerSettings {
            dir: dir.path().join("scheduler"),
            domain: "localhost".to_owned(),
            port: settings.listen.port(),
        };
        let fleet = Arc::new(LocalFleet::new(node.clone(), registry.clone()));
        let scheduler = Scheduler::open(scheduler_settings, Arc::new(registry.clone()), fleet, &mut metrics)
            .await
            .map_err(|error| Failure::failed("the scheduler does not start", &error))?;

        let ready = system::Ready::default();
        let address = system::ListenAddress::default();
        let api =
            scheduler.api(node.clone(), registry.clone()).merge(system::server_view(&address, &missing));
        let system = system::plain_host(api.clone(), registry.router(), token, ready.clone());
        let gateway_settings = GatewaySettings {
            cores: settings.cores,
            request_body_bytes_max: settings.max_body_bytes,
            access_log: settings.access_log,
            ..GatewaySettings::new(settings.listen, tokio::runtime::Handle::current())
        };
        let gateway =
            Gateway::bind(gateway_settings, scheduler.clone(), system, &mut metrics).map_err(|error| {
                Failure::failed(format!("the gateway cannot listen at {}", settings.listen), &error)
            })?;
        scheduler.announce_port(gateway.local_addr().port());
        address.set(gateway.local_addr());
        let admin = system::AdminSocket::serve(&dir.admin_socket(), api)?;
        ready.set(metrics);
        Ok(Self { gateway, scheduler, node, admin, missing, _lock: lock })
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// What this machine cannot do, a line each.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Finishes running requests, at most for `deadline`, then stops every instance.
    pub async fn stop(self, deadline: Duration) {
        self.gateway.drain(deadline).await;
        self.scheduler.drain(deadline).await;
        self.node.shutdown(Duration::from_millis(neap_sdk::limits::STOP_GRACE_MS)).await;
        self.admin.stop();
    }
}

/// The two runtimes; without the second one, the server runs and says why.
async fn runtimes(dir: &DataDir) -> Result<Runtimes, Failure> {
    let wasm = WasmRuntime::new(neap_wasm_runtime::Settings {
        cache_dir: dir.path().join("native"),
        compiler: child(COMPILER_CHILD),
    })
    .map_err(|error| Failure::failed("the Wasm engine does not start", &error))?;
    let settings = neap_oci_runtime::Settings::new(dir.path().join("containers"), child(SPAWNER_CHILD));
    let oci = OciRuntime::start(settings).await;
    Ok(Runtimes {
        wasm: Some(Arc::new(WasmAdapter::new(wasm))),
        oci: oci
            .map(|oci| Arc::new(OciAdapter::new(oci)) as Arc<_>)
            .map_err(|error| format!("containers cannot run here: {error}")),
    })
}

/// The command that starts this binary again as one of its children.
fn child(kind: &str) -> Vec<OsString> {
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    vec![exe.into_os_string(), kind.into()]
}

/// Makes the data folder for its owner only, and holds its lock for the life of the server.
fn lock_data_dir(dir: &DataDir) -> Result<File, Failure> {
    let path = dir.path();
    let refused = |error: std::io::Error| {
        Failure::failed(format!("the data folder {} cannot be used", path.display()), &error)
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.lock())
        .map_err(refused)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        let _ = file.read_to_string(&mut owner);
        let owner = owner.trim();
        let what = format!("another neap server (process {owner}) runs on {}", path.display());
        return Err(
            Failure::new(exit::CONFLICT, what).hint("stop it, or name another folder with --data-dir")
        );
    }
    let noted =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(refused)?;
    Ok(file)
}

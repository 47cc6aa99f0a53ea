//! What the tests share: one runtime, guests built once, and calls with everything around them.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use neap_sdk::{Digest, build, function::HostPattern};
use neap_wasm_runtime::{
    Body, BoxError, Call, CallLimits, Grants, InvokeError, LogSink, Meter, Program, Settings, Stream,
    WasmRuntime,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

/// Cargo's folder for what tests make; it is below `target` and outlives a run, so guests are built once.
pub const TMP: &str = env!("CARGO_TARGET_TMPDIR");
const GUESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/examples");

pub fn settings(cache_dir: PathBuf) -> Settings {
    Settings { cache_dir, compiler: vec![env!("CARGO_BIN_EXE_neap-compile").into()] }
}

/// The runtime of all tests that need no cache of their own.
pub fn runtime() -> &'static WasmRuntime {
    static RUNTIME: LazyLock<WasmRuntime> = LazyLock::new(|| {
        WasmRuntime::new(settings(Path::new(TMP).join("wasm-cache"))).expect("the engine starts")
    });
    &RUNTIME
}

/// The `.wasm` file of a guest: a package of `tests/guests` or `sdk/examples`, or a text of `tests/guests/text`.
pub fn wasm(name: &str) -> PathBuf {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let text = Path::new(GUESTS).join("text").join(format!("{name}.wat"));
    let path = if text.exists() {
        let path = Path::new(TMP).join(format!("{name}.wasm"));
        std::fs::write(&path, wat::parse_file(&text).expect("valid text")).expect("written");
        path
    } else {
        let packages = [Path::new(GUESTS).join(name), Path::new(EXAMPLES).join(name)];
        let package = packages.iter().find(|package| package.exists()).expect("a guest of this name");
        let target_dir = Path::new(TMP).with_file_name("guests");
        build::build_guest(package, build::COMPONENT_TARGET, &target_dir)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    built.insert(name.to_owned(), path.clone());
    path
}

pub fn digest(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).expect("a file"))
}

pub async fn load(name: &str) -> Program {
    let path = wasm(name);
    runtime().load(digest(&path), &path).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Keeps what a guest prints.
#[derive(Default)]
pub struct Logs(Mutex<HashMap<&'static str, Vec<u8>>>);

impl LogSink for Logs {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        self.0.lock().expect("logs").entry(name).or_default().extend_from_slice(bytes);
    }
}

impl Logs {
    pub fn text(&self, stream: &str) -> String {
        let logs = self.0.lock().expect("logs");
        String::from_utf8_lossy(logs.get(stream).map(Vec::as_slice).unwrap_or_default()).into_owned()
    }
}

/// One call with its surroundings; generous unless said otherwise.
pub struct Caller {
    pub limits: CallLimits,
    pub env: Vec<(String, String)>,
    pub outbound_hosts: Vec<HostPattern>,
    pub logs: Arc<Logs>,
    pub meter: Arc<Meter>,
}

impl Default for Caller {
    fn default() -> Self {
        let long = Duration::from_secs(30);
        Self {
            limits: CallLimits { memory_bytes: 64 << 20, wall: long, cpu: long },
            env: Vec::new(),
            outbound_hosts: Vec::new(),
            logs: Arc::default(),
            meter: Arc::default(),
        }
    }
}

impl Caller {
    pub async fn call(
        &self,
        program: &Program,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, InvokeError> {
        let grants = Grants {
            env: self.env.clone(),
            outbound_hosts: self.outbound_hosts.clone(),
            logs: self.logs.clone(),
        };
        program
            .call(request, Call { limits: self.limits, grants: Arc::new(grants), meter: self.meter.clone() })
            .await
    }

    pub async fn get(&self, program: &Program, path: &str) -> Result<http::Response<Body>, InvokeError> {
        self.call(program, get(path)).await
    }

    /// The whole body of a response that must come and be complete.
    pub async fn text(&self, program: &Program, path: &str) -> String {
        let response = self.get(program, path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        text(response).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

pub fn get(path: &str) -> http::Request<Body> {
    http::Request::get(path).header("host", "shop.example").body(empty()).expect("request")
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub async fn text(response: http::Response<Body>) -> Result<String, BoxError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a body failed with.
pub fn invoke_error(error: &BoxError) -> InvokeError {
    error.downcast_ref::<InvokeError>().unwrap_or_else(|| panic!("not an InvokeError: {error}")).clone()
}

//! A real server in a temporary folder, its commands, and the guests that tests push. Everything is gone
//! afterwards, also after a failure.

use crate::http::{self, Answer};
use neap_sdk::{
    api::{FunctionView, ServerView},
    build::{COMPONENT_TARGET, build_guest},
};
use serde::de::DeserializeOwned;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take to start, stop, or reach a state that a test waits for. Generous: CI is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn neap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_neap"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("NEAP_") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A running `neap up`.
pub struct Server {
    pub folder: TempDir,
    pub address: SocketAddr,
    pub missing: Vec<String>,
    process: Child,
}

impl Server {
    /// Starts one on a fresh folder.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further options of `neap up`.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("neap-e2e-").tempdir().expect("temporary folder");
        Self::start_in(folder, options)
    }

    /// Starts one on a folder that may hold an earlier one's state.
    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("server.log"));
        let mut process = neap()
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(options)
            .env("NEAP_DATA_DIR", folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(log.expect("log file"))
            .spawn()
            .expect("neap up");
        let begun = Instant::now();
        loop {
            if let Some(view) = server_view(folder.path(), process.id()) {
                let address = view.listen.parse().expect("an address");
                return Self { folder, address, missing: view.missing, process };
            }
            let ended = process.try_wait().expect("status");
            if ended.is_some() || begun.elapsed() > PATIENCE {
                drop(process.kill());
                let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
                panic!("neap up does not start ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where its state lies.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A command against this server.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = neap();
        command.args(args).env("NEAP_DATA_DIR", self.data_dir()).current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        Done::new(self.command(args).output().expect("neap"))
    }

    /// Runs a command that must succeed; gives its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(
            done.code,
            0,
            "neap {args:?}\nstdout: {}\nstderr: {}\n{}",
            done.stdout,
            done.stderr,
            self.log()
        );
        done.stdout
    }

    /// Runs a command with `-o json` that must succeed.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("neap {args:?} printed no such JSON ({error}): {text}"))
    }

    /// How a function is.
    pub fn function(&self, name: &str) -> FunctionView {
        self.json(&["get", name])
    }

    /// Pushes an artifact under a name with further options; it must succeed.
    pub fn push(&self, artifact: &Path, name: &str, options: &[&str]) -> String {
        let artifact = artifact.to_str().expect("UTF-8 path");
        self.ok(&[&["push", artifact, "--name", name], options].concat())
    }

    /// GET of a function's path.
    pub fn get(&self, name: &str, path: &str) -> Answer {
        http::get(self.address, &self.host(name), path)
    }

    /// POST to a function's path.
    pub fn post(&self, name: &str, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
        http::post(self.address, &self.host(name), path, body)
    }

    /// The host name of a function.
    pub fn host(&self, name: &str) -> String {
        format!("{name}.localhost:{}", self.address.port())
    }

    /// The plain host.
    pub fn plain_host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// The number of instances of a function now.
    pub fn instances(&self, name: &str) -> usize {
        self.function(name).revisions.iter().map(|revision| revision.instances.len()).sum()
    }

    /// Kills the server as a power cut would kill its process; gives the folder for the next start.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("temporary folder"))
    }

    /// Sends SIGTERM and waits; gives the exit code and the folder.
    pub fn terminate(mut self) -> (Option<i32>, TempDir) {
        self.signal("TERM");
        let status = self.process.wait().expect("wait");
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("temporary folder"));
        (status.code(), folder)
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal("TERM");
            let begun = Instant::now();
            while matches!(self.process.try_wait(), Ok(None)) {
                if begun.elapsed() > Duration::from_secs(15) {
                    drop(self.process.kill());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The server's view of itself, if the process `pid` serves the folder already.
fn server_view(folder: &Path, pid: u32) -> Option<ServerView> {
    let owner = std::fs::read_to_string(folder.join("data/lock")).ok()?;
    if owner.trim() != pid.to_string() {
        return None;
    }
    let socket = folder.join("data/admin.sock");
    let client = neap_sdk::client::Client::new(
        neap_sdk::client::Endpoint::Unix(socket),
        neap_sdk::TenantName::default(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(client.server()).ok()
}

/// A command that ended.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn new(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Asserts the exit code, and that stderr names all of `words`.
    pub fn assert_failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "stderr must name {word:?}: {}", self.stderr);
        }
    }
}

/// Waits until `holds`, or fails after [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Prints why a test did nothing; `true` when it must be skipped.
pub fn skip_without_containers(server: &Server) -> bool {
    if let Some(reason) = server.missing.first() {
        eprintln!("SKIPPED: {reason}");
        return true;
    }
    false
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn built(cell: &'static OnceLock<PathBuf>, package: &str, target: &str) -> &'static Path {
    cell.get_or_init(|| {
        let package = root().join(package);
        let target_dir = root().join("target/guests");
        build_guest(&package, target, &target_dir)
            .unwrap_or_else(|error| panic!("{}: {error}", package.display()))
    })
}

/// The component that acts by the path it is called with.
pub fn behave() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    built(&CELL, "tests/guests/behave", COMPONENT_TARGET)
}

/// The example component.
pub fn hello() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    built(&CELL, "sdk/examples/hello", COMPONENT_TARGET)
}

/// The example of an outgoing request.
pub fn fetch() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    built(&CELL, "sdk/examples/fetch", COMPONENT_TARGET)
}

/// The example container's static executable.
pub fn hello_container() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    built(&CELL, "sdk/examples/hello-container", "x86_64-unknown-linux-musl")
}

/// The component with the handler of `wasi:http` 0.3.
pub fn p3() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    built(&CELL, "tests/guests/p3", COMPONENT_TARGET)
}

/// A guest of `tests/guests/text`, from its text to a file of the server's folder.
pub fn text_guest(server: &Server, name: &str) -> PathBuf {
    let wasm = wat::parse_file(root().join(format!("tests/guests/text/{name}.wat"))).expect("WAT");
    let path = server.folder.path().join(format!("{name}.wasm"));
    std::fs::write(&path, wasm).expect("file");
    path
}

/// Milliseconds since 1970, now.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("64 bits")
}

/// The container server whose variable `MODE` and whose paths choose how it behaves.
pub fn container_server() -> &'static Path {
    static CELL: OnceLock<PathBuf> = OnceLock::new();
    CELL.get_or_init(|| {
        let source = root().join("oci-runtime/tests/fixtures/server.rs");
        let folder = root().join("target/guests");
        std::fs::create_dir_all(&folder).expect("folder");
        let server = folder.join("container-server");
        let build = |extra: &[&str]| {
            let mut rustc = Command::new("rustc");
            rustc
                .args(["--edition", "2024", "-C", "opt-level=1", "-o"])
                .arg(&server)
                .arg(&source)
                .args(extra);
            rustc.current_dir(root()).output().is_ok_and(|output| output.status.success())
        };
        let built =
            build(&["--target", "x86_64-unknown-linux-musl"]) || build(&["-C", "target-feature=+crt-static"]);
        assert!(built, "rustc cannot build {}", source.display());
        server
    })
}

//! Builds the server executable, an image around it, and a runtime to run it; looks at the machine.

use flate2::{Compression, write::GzEncoder};
use neap_oci_runtime::{
    Container, ContainerSpec, ImageFiles, LayerFile, LogSink, OciRuntime, RunError, Settings, Stream,
};
use neap_sdk::Digest;
use serde_json::json;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub const MEMORY_BYTES: u64 = 64 << 20;

/// The test server, built once per test run; a file that stays in the target folder.
pub fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Under a name of its own first: another test run may be using the file.
        let fresh = dir.join(format!("container-server.{}", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.rs");
        let build = |extra: &[&str]| {
            let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
            let mut command = Command::new(rustc);
            command
                .args(["--edition", "2024", "-C", "opt-level=1", "-o"])
                .arg(&fresh)
                .arg(source)
                .args(extra);
            command.output().is_ok_and(|output| output.status.success())
        };
        let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let built = build(&["--target", &musl]) || build(&["-C", "target-feature=+crt-static"]);
        assert!(built, "rustc cannot build {source}");
        let server = dir.join("container-server");
        std::fs::rename(fresh, &server).unwrap();
        server
    })
}

/// What a container wrote.
#[derive(Default)]
pub struct Logs(Mutex<Vec<(Stream, Vec<u8>)>>);

impl LogSink for Logs {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.0.lock().unwrap().push((stream, bytes.to_vec()));
    }
}

impl Logs {
    pub fn text(&self, wanted: Stream) -> String {
        let pieces = self.0.lock().unwrap();
        let bytes: Vec<u8> = pieces
            .iter()
            .filter(|(stream, _)| *stream == wanted)
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        String::from_utf8(bytes).unwrap()
    }
}

/// An image with the test server in it.
pub fn image(dir: &Path, config: serde_json::Value) -> ImageFiles {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    };
    add("bin/server", 0o755, &std::fs::read(server()).unwrap());
    add("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n");
    add("root-only", 0o600, b"secret of root");
    let layer = tar.into_inner().unwrap().finish().unwrap();
    let mut plain = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut plain).unwrap();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&plain).to_string()]},
        "config": config,
    });
    let config_path = dir.join("config.json");
    std::fs::write(&config_path, config.to_string()).unwrap();
    let path = dir.join("layer.tar.gz");
    std::fs::write(&path, &layer).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
    ImageFiles {
        digest: Digest::of(config.to_string().as_bytes()),
        config: config_path,
        layers: vec![LayerFile { digest: Digest::of(&layer), media_type, path }],
    }
}

/// A runtime on a folder of its own.
pub struct Fixture {
    pub runtime: OciRuntime,
    pub image: ImageFiles,
    pub logs: Arc<Logs>,
    pub dir: TempDir,
}

pub fn settings(dir: &Path) -> Settings {
    Settings::new(dir.join("state"), vec![env!("CARGO_BIN_EXE_neap-spawner").into()])
}

/// `None`, with a printed reason, where containers cannot run.
pub async fn fixture() -> Option<Fixture> {
    let dir = tempfile::tempdir().unwrap();
    let runtime = match OciRuntime::start(settings(dir.path())).await {
        Ok(runtime) => runtime,
        Err(error) if !rustix::process::geteuid().is_root() => {
            let _ = writeln!(io::stderr(), "skipped: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let image = image(dir.path(), json!({"Entrypoint": ["/bin/server"], "ExposedPorts": {"9000/tcp": {}}}));
    Some(Fixture { runtime, image, logs: Arc::default(), dir })
}

impl Fixture {
    pub fn spec(&self, env: &[(&str, &str)]) -> ContainerSpec {
        ContainerSpec {
            id: "test".into(),
            image: self.image.clone(),
            env: env.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            memory_bytes: MEMORY_BYTES,
            startup_timeout: Duration::from_secs(10),
            logs: self.logs.clone(),
        }
    }

    pub async fn run(&self, env: &[(&str, &str)]) -> Result<Container, RunError> {
        self.runtime.run(self.spec(env)).await
    }

    /// Ends the runtime; nothing of it may be left.
    pub async fn finish(self) {
        self.runtime.shutdown().await;
        assert_clean(self.dir.path());
    }
}

/// One HTTP request over a connection of its own; the body of the answer.
pub async fn get(container: &Container, path: &str) -> io::Result<String> {
    let mut connection = container.connect().await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 16 << 10];
        let count = connection.read(&mut buffer).await?;
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Ok(body.to_owned());
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The groups that belong to the state folder in `dir`, in every tree.
pub fn groups(dir: &Path) -> Vec<PathBuf> {
    let state = dir.join("state").canonicalize().unwrap_or_else(|_| dir.join("state"));
    let owner = Digest::of(state.as_os_str().as_encoded_bytes()).short();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let trees = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
    let trees = trees.filter_map(|line| line.split(' ').nth(4));
    trees.map(|tree| Path::new(tree).join("neap").join(&owner)).filter(|path| path.exists()).collect()
}

/// No mount, no group and no process of this folder is left.
pub fn assert_clean(dir: &Path) {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mountinfo.contains(dir.to_str().unwrap()), "mounts are left:\n{mountinfo}");
    assert!(!mountinfo.contains(" - overlay"), "an overlay is left:\n{mountinfo}");
    assert_eq!(groups(dir), Vec::<PathBuf>::new(), "groups are left");
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} does not come true");
}

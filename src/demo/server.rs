//! The demo's platform as a process of its own, and the real commands run against it.

use crate::{
    commands::invoke,
    config::DataDir,
    exit::{Failure, Outcome},
    output,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, header};
use neap_sdk::{
    FunctionName, TenantName,
    api::{FunctionUsage, FunctionView},
    client::{Client, Endpoint},
    error::exit,
};
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A running `neap up`. Dropping it ends the process.
pub struct DemoServer<'r> {
    /// Where its gateway listens.
    pub address: SocketAddr,
    /// What this machine cannot do.
    pub missing: Vec<String>,
    process: Option<Child>,
    folder: PathBuf,
    client: Client,
    runtime: &'r tokio::runtime::Runtime,
}

impl<'r> DemoServer<'r> {
    /// Starts `neap up` on a free port with its state in `folder`, and waits until it answers.
    pub fn start(folder: &Path, runtime: &'r tokio::runtime::Runtime) -> Outcome<Self> {
        let failed = |error: std::io::Error| Failure::failed("the platform does not start", &error);
        let data_dir = folder.join("data");
        let log = folder.join("server.log");
        let mut process = command(folder)?
            .args(["up", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let socket = DataDir::resolve(Some(data_dir))?.admin_socket();
        let client = Client::new(Endpoint::Unix(socket), TenantName::default());
        let begun = Instant::now();
        let view = loop {
            if let Ok(view) = runtime.block_on(client.server()) {
                break view;
            }
            let ended = process.try_wait().map_err(failed)?.is_some();
            if ended || begun.elapsed() > START_TIMEOUT {
                drop(process.kill());
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Failure::new(exit::FAILED, format!("the platform does not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let address =
            view.listen.parse().map_err(|_| Failure::new(exit::FAILED, "the platform listens nowhere"))?;
        Ok(Self {
            address,
            missing: view.missing,
            process: Some(process),
            folder: folder.to_owned(),
            client,
            runtime,
        })
    }

    /// Where its state lies.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Shows and runs a command; it must succeed.
    pub fn neap(&self, args: &[&str]) -> Outcome<()> {
        self.neap_ends_with(args, exit::OK)
    }

    /// Shows and runs a command; it must end with `expected`.
    pub fn neap_ends_with(&self, args: &[&str], expected: u8) -> Outcome<()> {
        output::say(format!("   $ neap {}", args.join(" ")));
        let done = command(&self.folder)?
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::failed("neap cannot be started", &error))?;
        for text in [&done.stdout, &done.stderr] {
            for line in String::from_utf8_lossy(text).lines() {
                output::say(format!("     {line}"));
            }
        }
        if done.status.code() == Some(expected.into()) {
            return Ok(());
        }
        let what = format!("`neap {}` ended with {} instead of {expected}", args.join(" "), done.status);
        Err(Failure::new(exit::FAILED, what))
    }

    /// Calls a function through the gateway and takes the time until the whole answer was read.
    pub fn call(&self, name: &FunctionName) -> Outcome<(Duration, String)> {
        let host = invoke::host(name, &TenantName::default(), self.address);
        let request = Request::get("/").header(header::HOST, host).body(Full::new(Bytes::new()));
        let request = request.map_err(|error| Failure::failed("a bad request", &error))?;
        let begun = Instant::now();
        self.runtime.block_on(async {
            let response = invoke::send(self.address, request).await?;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| Failure::failed("the answer broke off", &error))?.to_bytes();
            let took = begun.elapsed();
            let text = String::from_utf8_lossy(&body).into_owned();
            if status.is_success() {
                return Ok((took, text));
            }
            Err(Failure::new(exit::FAILED, format!("{name} answered {status}: {text}")))
        })
    }

    /// How a function is.
    pub fn function(&self, name: &FunctionName) -> Outcome<FunctionView> {
        Ok(self.runtime.block_on(self.client.function(name))?)
    }

    /// What a function used.
    pub fn usage(&self, name: &FunctionName) -> Outcome<FunctionUsage> {
        let usage = self.runtime.block_on(self.client.usage(Some(name), None))?;
        usage
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new(exit::FAILED, format!("nothing was billed for {name}")))
    }

    /// Stops it with SIGTERM; it must drain and end with 0.
    pub fn stop(mut self) -> Outcome<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let failed = |error: std::io::Error| Failure::failed("the platform cannot be stopped", &error);
        terminate(&process);
        let begun = Instant::now();
        loop {
            match process.try_wait().map_err(failed)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(Failure::new(exit::FAILED, format!("the platform ended with {status}")));
                }
                None if begun.elapsed() > STOP_TIMEOUT => {
                    drop(process.kill());
                    return Err(Failure::new(exit::FAILED, "the platform did not stop on SIGTERM"));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Leaves it running and gives its process id.
    pub fn detach(mut self) -> u32 {
        self.process.take().map_or(0, |process| process.id())
    }
}

impl Drop for DemoServer<'_> {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        // In order first, so that containers are stopped too.
        terminate(process);
        let begun = Instant::now();
        while matches!(process.try_wait(), Ok(None)) {
            if begun.elapsed() > STOP_TIMEOUT {
                drop(process.kill());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn terminate(process: &Child) {
    if let Some(pid) = rustix::process::Pid::from_raw(process.id().cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// This binary again, in the demo's folder and without the caller's settings.
fn command(folder: &Path) -> Outcome<Command> {
    let exe =
        std::env::current_exe().map_err(|error| Failure::failed("neap cannot find its own file", &error))?;
    let mut command = Command::new(exe);
    command.current_dir(folder).env("NEAP_DATA_DIR", folder.join("data"));
    for variable in ["NEAP_LISTEN", "NEAP_TOKEN", "NEAP_TENANT", "NEAP_KEY"] {
        command.env_remove(variable);
    }
    Ok(command)
}

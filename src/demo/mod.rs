//! `neap demo`: the whole story in a temporary folder, told with the real commands. Every step checks what it
//! shows; the first one that does not hold ends the demo with status 1. Nothing stays behind, unless `--keep`.

mod examples;
mod latency;
mod server;

use crate::{
    cli::DemoArgs,
    exit::{Failure, Outcome},
    output,
};
use latency::Latencies;
use neap_sdk::{FunctionName, api::FunctionView, artifact::ArtifactKind, error::exit};
use server::DemoServer;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Short, so that a person sees scale to zero while looking.
const IDLE_TIMEOUT: Duration = Duration::from_millis(700);
/// How much longer than that going to zero may take.
const ZERO_TIMEOUT: Duration = Duration::from_secs(15);
const COLD_CALLS: usize = 8;
const WARM_CALLS: usize = 300;

/// Runs every step.
pub fn run(args: &DemoArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("no I/O is possible", &error))?;
    let started = Instant::now();
    step("build the example component and the example container");
    let folder = tempfile::Builder::new()
        .prefix("neap-demo-")
        .tempdir()
        .map_err(|error| Failure::failed("no temporary folder can be made", &error))?;
    let examples = examples::build(folder.path())?;

    step("start the platform: gateway, registry, scheduler and node in one process");
    let server = DemoServer::start(folder.path(), &runtime)?;
    step("make a signing key and trust it");
    server.neap(&["key", "generate", "demo.key"])?;
    server.neap(&["key", "trust", "demo.key.pub", "--name", "demo"])?;

    let mut functions = vec![("hello", examples.component.clone())];
    let left_out = server.missing.first().cloned();
    match &left_out {
        None => functions.push(("hello-container", examples.container.clone())),
        Some(reason) => output::say(format!("   containers are left out: {reason}")),
    }
    for (name, artifact) in &functions {
        step(&format!("push {name}: package, SBOM, sign, upload, verify, deploy, probe"));
        let idle_ms = IDLE_TIMEOUT.as_millis().to_string();
        let path = artifact.to_string_lossy();
        server.neap(&["push", &path, "--name", name, "--key", "demo.key", "--idle-timeout-ms", &idle_ms])?;
    }
    step("push one without signature and SBOM: it must be refused, with the reason");
    let component = examples.component.to_string_lossy();
    server.neap_ends_with(&["push", &component, "--name", "unsigned", "--no-sign"], exit::REFUSED)?;

    let mut rows = Vec::new();
    for (name, _) in &functions {
        rows.push(measure(&server, name)?);
    }
    step("the bill");
    server.neap(&["usage"])?;
    let table = output::table(
        ["FUNCTION", "KIND", "COLD P50", "COLD P99", "WARM P50", "WARM P99", "INSTANCES", "BILLED"],
        rows,
    );
    output::line(&table)?;
    output::say(format!("\nevery step held, in {}", output::duration(started.elapsed())));
    if args.keep {
        return keep(server, folder);
    }
    server.stop()?;
    match left_out {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => {
            Err(Failure::new(exit::FAILED, format!("the container's steps were left out: {reason}")))
        }
    }
}

fn step(text: &str) {
    output::say(format!("\u{1b}[1;36m▸\u{1b}[0m \u{1b}[1m{text}\u{1b}[0m"));
}

/// Calls a function cold, warm, and cold again after each return to zero.
fn measure(server: &DemoServer, name: &str) -> Outcome<[String; 8]> {
    let name: FunctionName = name.parse().map_err(|error| Failure::failed("a bad example name", &error))?;
    step(&format!("call {name}: to zero and back {COLD_CALLS} times, then {WARM_CALLS} times warm"));
    let mut cold = Latencies::default();
    for _ in 0..COLD_CALLS {
        wait_for_zero(server, &name)?;
        let (took, answer) = server.call(&name)?;
        check_answer(&name, &answer)?;
        cold.add(took);
    }
    output::say(format!("   zero: 0 instances, no process left; the next call started one in {cold}"));
    let mut warm = Latencies::default();
    for _ in 0..WARM_CALLS {
        let (took, answer) = server.call(&name)?;
        check_answer(&name, &answer)?;
        warm.add(took);
    }
    output::say(format!("   warm: {warm}"));
    let view = server.function(&name)?;
    let kind = view.revisions.first().map_or(ArtifactKind::WasmComponent, |revision| revision.kind);
    let usage = server.usage(&name)?;
    if usage.sum.invocations < (COLD_CALLS + WARM_CALLS) as u64 {
        let what = format!(
            "{name} was called {} times, and billed {}",
            COLD_CALLS + WARM_CALLS,
            usage.sum.invocations
        );
        return Err(Failure::new(exit::FAILED, what));
    }
    Ok([
        name.to_string(),
        kind.to_string(),
        output::duration(cold.percentile(50)),
        output::duration(cold.percentile(99)),
        output::duration(warm.percentile(50)),
        output::duration(warm.percentile(99)),
        instances(&view).to_string(),
        format!(
            "{} calls, {:.6} GB-s, {:.6} CPU-s",
            usage.sum.invocations, usage.gb_seconds, usage.cpu_seconds
        ),
    ])
}

fn check_answer(name: &FunctionName, answer: &str) -> Outcome<()> {
    if answer.to_lowercase().starts_with("hello") {
        return Ok(());
    }
    Err(Failure::new(exit::FAILED, format!("{name} answered {answer:?} instead of a greeting")))
}

fn instances(view: &FunctionView) -> usize {
    view.revisions.iter().map(|revision| revision.instances.len()).sum()
}

/// Zero means: the scheduler shows no instance, and no process of one is left on the machine.
fn wait_for_zero(server: &DemoServer, name: &FunctionName) -> Outcome<()> {
    let begun = Instant::now();
    let mut processes = Vec::new();
    while begun.elapsed() < IDLE_TIMEOUT + ZERO_TIMEOUT {
        let view = server.function(name)?;
        let running = view.revisions.iter().flat_map(|revision| &revision.instances);
        processes.extend(running.filter_map(|instance| instance.pid));
        let gone = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        if instances(&view) == 0 && processes.iter().all(gone) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failure::new(
        exit::FAILED,
        format!("{name} did not go to zero within {}", output::duration(ZERO_TIMEOUT)),
    ))
}

fn keep(server: DemoServer, folder: tempfile::TempDir) -> Outcome {
    let address = server.address;
    let data_dir = server.data_dir();
    let process = server.detach();
    let folder = folder.keep();
    output::say(format!(
        "\nleft running as process {process}. Try next:\n  \
         export NEAP_DATA_DIR={}\n  \
         curl http://hello.localhost:{}/\n  \
         neap ls\n  neap get hello\n  neap logs -f hello\n  neap usage\n\
         and when done: kill {process} && rm -r {}",
        data_dir.display(),
        address.port(),
        folder.display(),
    ));
    Ok(ExitCode::SUCCESS)
}

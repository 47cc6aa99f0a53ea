//! `neap up`: starts the platform and stops it in order.

use crate::{
    cli::UpArgs,
    config::{LISTEN_DEFAULT, Server},
    exit::{Failure, Outcome},
    output,
    platform::{Platform, PlatformSettings},
    telemetry,
};
use std::{process::ExitCode, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until SIGTERM or SIGINT; a second signal ends the wait for running requests.
pub fn run(args: &UpArgs, server: &Server) -> Outcome {
    telemetry::install(args.log_format, args.access_log);
    let settings = PlatformSettings {
        data_dir: server.data_dir()?,
        listen: server.listen.unwrap_or(LISTEN_DEFAULT),
        cores: args.cores.map_or_else(all_cores, usize::from),
        max_body_bytes: args.max_body_bytes,
        access_log: args.access_log,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("no threads for the control plane", &error))?;
    runtime.block_on(serve(settings, Duration::from_millis(args.drain_timeout_ms)))
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

async fn serve(settings: PlatformSettings, drain_timeout: Duration) -> Outcome {
    let data_dir = settings.data_dir.clone();
    let (mut terminate, mut interrupt) = signals()?;
    let platform = Platform::start(settings).await?;
    output::say(format!("neap {} listens at http://{}", env!("CARGO_PKG_VERSION"), platform.address()));
    output::say(format!("data folder {}", data_dir.path().display()));
    for line in platform.missing() {
        output::say(format!("note: {line}"));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    output::say(format!("stopping; running requests get up to {}", output::duration(drain_timeout)));
    tokio::select! {
        () = platform.stop(drain_timeout) => {}
        _ = terminate.recv() => output::say("stopped at once"),
        _ = interrupt.recv() => output::say("stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}

fn signals() -> Outcome<(Signal, Signal)> {
    let listen = |kind| signal(kind).map_err(|error| Failure::failed("signals cannot be received", &error));
    Ok((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
}

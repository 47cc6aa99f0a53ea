//! `ls`, `get`, `rollback`, `traffic`, `delete`, `logs`: what a person asks about functions.

use crate::{
    cli::{LogsArgs, RollbackArgs, TrafficArgs},
    config::Server,
    exit::{Failure, Outcome},
    output::{self, Format},
};
use neap_sdk::{
    FunctionName,
    api::{FunctionView, LogLine, RevisionView, TrafficShare},
    artifact::ArtifactKind,
};
use std::process::ExitCode;

/// `neap ls`.
pub async fn list(server: &Server, format: Format) -> Outcome {
    let functions = server.client()?.functions().await?;
    output::print(format, &functions, |functions| {
        let rows = functions.iter().map(|function| {
            let serving = serving(function);
            [
                function.name.to_string(),
                serving.map(|revision| revision.kind.to_string()).unwrap_or_default(),
                traffic_text(&function.traffic),
                function.revisions.iter().map(|revision| revision.instances.len()).sum::<usize>().to_string(),
                serving.map(|revision| output::age(revision.created_at_ms)).unwrap_or_default(),
                function.url.clone(),
            ]
        });
        output::table(["NAME", "KIND", "TRAFFIC", "INSTANCES", "AGE", "URL"], rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `neap get`.
pub async fn get(name: &FunctionName, server: &Server, format: Format) -> Outcome {
    let function = server.client()?.function(name).await?;
    output::print(format, &function, describe)?;
    Ok(ExitCode::SUCCESS)
}

/// `neap rollback`.
pub async fn rollback(args: &RollbackArgs, server: &Server, format: Format) -> Outcome {
    let function = server.client()?.rollback(&args.name, args.revision).await?;
    output::print(format, &function, |function| {
        format!("{} now serves {}", function.name, traffic_text(&function.traffic))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `neap traffic`.
pub async fn traffic(args: &TrafficArgs, server: &Server, format: Format) -> Outcome {
    let shares = args.shares.iter().map(|text| parse_share(text)).collect::<Outcome<Vec<_>>>()?;
    let function = server.client()?.traffic(&args.name, &shares).await?;
    output::print(format, &function, |function| {
        format!("{} now serves {}", function.name, traffic_text(&function.traffic))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn parse_share(text: &str) -> Outcome<TrafficShare> {
    let parts = text.split_once('=').and_then(|(revision, weight)| {
        Some(TrafficShare { revision: revision.parse().ok()?, weight: weight.parse().ok()? })
    });
    parts.ok_or_else(|| Failure::usage(format!("{text:?} is not REVISION=WEIGHT, such as 2=10")))
}

/// `neap delete`.
pub async fn delete(name: &FunctionName, server: &Server) -> Outcome {
    server.client()?.delete(name).await?;
    output::say(format!("{name} is deleted; its usage stays in `neap usage`"));
    Ok(ExitCode::SUCCESS)
}

/// `neap logs`: ends with the kept lines, or with Ctrl-C when following.
pub async fn logs(args: &LogsArgs, server: &Server, format: Format) -> Outcome {
    let mut lines = server.client()?.logs(&args.name, args.since, args.follow).await?;
    while let Some(json) = lines.next().await? {
        match format {
            Format::Json => output::line(&json)?,
            Format::Table => {
                let line: LogLine = serde_json::from_str(&json)
                    .map_err(|error| Failure::failed("the server sent a line that is no log line", &error))?;
                // The text is the function's own: what would steer the terminal is shown, not obeyed.
                let text: String = line
                    .text
                    .chars()
                    .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
                    .collect();
                output::line(&format!("{} @{} {} {text}", line.instance, line.revision, line.stream))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serving(function: &FunctionView) -> Option<&RevisionView> {
    let most = function.traffic.iter().max_by_key(|share| share.weight)?;
    function.revisions.iter().find(|revision| revision.number == most.revision)
}

fn traffic_text(traffic: &[TrafficShare]) -> String {
    let total: u64 = traffic.iter().map(|share| u64::from(share.weight)).sum();
    let percent = |share: &TrafficShare| u64::from(share.weight) * 100 / total.max(1);
    traffic
        .iter()
        .map(|share| format!("@{} {}%", share.revision, percent(share)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn describe(function: &FunctionView) -> String {
    let mut text = format!(
        "name:     {}\ntenant:   {}\nurl:      {}\ntraffic:  {}\n",
        function.name,
        function.tenant,
        function.url,
        traffic_text(&function.traffic)
    );
    for revision in &function.revisions {
        text.push_str(&describe_revision(revision));
    }
    text.truncate(text.trim_end().len());
    text
}

fn describe_revision(revision: &RevisionView) -> String {
    let spec = &revision.spec;
    let evidence = &revision.verdict.evidence;
    let signers =
        evidence.signers.iter().map(|signer| format!("{} ({})", signer.name, short(&signer.key_id)));
    let sbom = evidence.sbom.as_ref().map_or("none".to_owned(), |sbom| {
        format!(
            "{}, {} packages, {}, attested by {}",
            sbom.format,
            sbom.packages,
            sbom.digest.short(),
            sbom.signer.name
        )
    });
    let mut text = format!(
        "\nrevision @{}\n  artifact:   {} {}\n  made:       {} ago\n  signed by:  {}\n  sbom:       {sbom}\n  \
         policy:     {}, judged {} ago\n  limits:     {} memory, {} per request, {} requests per instance, {}\n  \
         queued:     {}\n",
        revision.number,
        revision.kind,
        revision.digest,
        output::age(revision.created_at_ms),
        signers.collect::<Vec<_>>().join(", "),
        revision.verdict.policy.short(),
        output::age(revision.verdict.decided_at_ms),
        output::size(spec.memory_bytes),
        output::duration(std::time::Duration::from_millis(spec.timeout_ms)),
        spec.concurrency,
        instances_text(revision),
        revision.queued,
    );
    for instance in &revision.instances {
        let start = instance.start_us.map(|us| output::duration(std::time::Duration::from_micros(us)));
        let process = instance.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        text.push_str(&format!(
            "  instance:   {} {}, {} in flight, up {}, started in {}{process}\n",
            instance.id,
            instance.state,
            instance.in_flight,
            output::age(instance.started_at_ms),
            start.as_deref().unwrap_or("?"),
        ));
    }
    if let Some(failure) = &revision.failure {
        text.push_str(&format!("  last start failed: {}\n", failure.replace('\n', "\n    ")));
    }
    text
}

/// Of Wasm, an instance is the loaded program: there is at most one on a machine.
fn instances_text(revision: &RevisionView) -> String {
    let spec = &revision.spec;
    match revision.kind {
        ArtifactKind::Image => format!("{}–{} instances", spec.min_instances, spec.max_instances),
        ArtifactKind::WasmComponent | ArtifactKind::WasmModule => {
            let at_once = u64::from(spec.concurrency) * u64::from(spec.max_instances);
            let kept = if spec.min_instances > 0 { ", kept loaded" } else { "" };
            format!("{at_once} requests at once{kept}")
        }
    }
}

fn short(key_id: &str) -> &str {
    key_id.get(..12).unwrap_or(key_id)
}

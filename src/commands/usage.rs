//! `neap usage`: what was used, as the ledger has it.

use crate::{
    cli::UsageArgs,
    config::Server,
    exit::{Failure, Outcome},
    output::{self, Format},
};
use neap_sdk::invocation::UsageRecord;
use std::{process::ExitCode, time::Duration};

/// Sums per function, or single records with `--records`.
pub async fn run(args: &UsageArgs, server: &Server, format: Format) -> Outcome {
    let client = server.client()?;
    if args.records {
        let mut lines = client.usage_records(args.function.as_ref(), args.since).await?;
        while let Some(json) = lines.next().await? {
            match format {
                Format::Json => output::line(&json)?,
                Format::Table => output::line(&record_text(&json)?)?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let usage = client.usage(args.function.as_ref(), args.since).await?;
    output::print(format, &usage, |usage| {
        let rows = usage.iter().map(|usage| {
            [
                usage.function.to_string(),
                usage.sum.invocations.to_string(),
                usage.sum.cold_starts.to_string(),
                usage.sum.errors.to_string(),
                format!("{:.6}", usage.gb_seconds),
                format!("{:.6}", usage.cpu_seconds),
                output::size(usage.sum.bytes_in),
                output::size(usage.sum.bytes_out),
            ]
        });
        output::table(
            ["FUNCTION", "INVOCATIONS", "COLD", "ERRORS", "GB-SECONDS", "CPU-SECONDS", "IN", "OUT"],
            rows,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn record_text(json: &str) -> Outcome<String> {
    let record: UsageRecord = serde_json::from_str(json)
        .map_err(|error| Failure::failed("the server sent a line that is no usage record", &error))?;
    Ok(format!(
        "{} {} @{} {} {} wall {} cpu {} memory {} in {} out {}{}",
        record.id,
        record.function,
        record.revision,
        record.request_id,
        record.status,
        output::duration(Duration::from_micros(record.wall_us)),
        output::duration(Duration::from_micros(record.cpu_us)),
        output::size(record.memory_bytes),
        output::size(record.bytes_in),
        output::size(record.bytes_out),
        if record.cold { " cold" } else { "" },
    ))
}

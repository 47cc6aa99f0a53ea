//! The command line as types: every command, option and environment variable. Holds no behaviour.

use crate::{config::Server, output::Format};
use clap::{Args, Parser, Subcommand, ValueEnum};
use neap_sdk::{
    FunctionName,
    function::{HostPattern, RoutePattern},
};
use std::path::PathBuf;

/// A serverless platform in one binary: Wasm components and containers, verified before they run
#[derive(Debug, Parser)]
#[command(name = "neap", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Which server to call
    #[command(flatten)]
    pub server: Server,
    /// Form of the data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failed · 2 usage · 3 not allowed · 4 not found · 5 conflict · \
6 refused by admission · 7 not ready · 8 server unreachable";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the platform: gateway, registry, scheduler and node in one process
    Up(UpArgs),
    /// Show all of it in a temporary folder: build, push, verify, call, scale to zero and back
    Demo(DemoArgs),
    /// Package, sign, upload and deploy; prints the URL once the new revision answers
    Push(Box<PushArgs>),
    /// List functions
    Ls,
    /// Show one function: revisions, verdicts, instances
    Get(NameArg),
    /// Call a function through the gateway; the response body goes to stdout
    Invoke(InvokeArgs),
    /// Print what a function wrote to stdout and stderr
    Logs(LogsArgs),
    /// Send all traffic to an older revision
    Rollback(RollbackArgs),
    /// Split traffic between revisions: `neap traffic NAME 1=90 2=10`
    Traffic(TrafficArgs),
    /// Remove a function; its usage stays
    Delete(NameArg),
    /// Show what was used: GB-seconds and CPU-seconds per function
    Usage(UsageArgs),
    /// Make and trust signing keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Judge an artifact in the registry without deploying it
    Verify(VerifyArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `neap up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Form of the log on stderr
    #[arg(long, env = "NEAP_LOG_FORMAT", value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
    /// Log each request (id, function, status, durations; no headers, no bodies)
    #[arg(long, env = "NEAP_ACCESS_LOG")]
    pub access_log: bool,
    /// Threads that serve requests; one per core when left out
    #[arg(long, env = "NEAP_CORES", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub cores: Option<u16>,
    /// Time that running requests get after SIGTERM, in milliseconds
    #[arg(long, env = "NEAP_DRAIN_TIMEOUT_MS", default_value_t = neap_sdk::limits::DRAIN_TIMEOUT_MS, value_name = "MS")]
    pub drain_timeout_ms: u64,
    /// Most bytes of a request body
    #[arg(long, env = "NEAP_MAX_BODY_BYTES", default_value_t = neap_sdk::limits::REQUEST_BODY_BYTES_MAX_DEFAULT, value_name = "BYTES")]
    pub max_body_bytes: u64,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `neap demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the platform running at the end and say what to try next
    #[arg(long)]
    pub keep: bool,
}

/// `neap push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A .wasm file, an OCI layout folder, an OCI or Docker archive, a static executable, or a reference in a
    /// remote registry (docker.io/library/nginx:1); `artifact` of neap.toml when left out
    pub what: Option<String>,
    /// The function's name; the file's name when left out
    #[arg(long, value_name = "NAME")]
    pub name: Option<FunctionName>,
    /// The manifest; neap.toml of this folder when left out
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// SBOM to attest: CycloneDX or SPDX JSON; made when left out
    #[arg(long, value_name = "FILE")]
    pub sbom: Option<PathBuf>,
    /// Cargo.lock to make the SBOM from
    #[arg(long, value_name = "FILE")]
    pub lockfile: Option<PathBuf>,
    /// Signing key; the server's operator key when left out
    #[arg(long, env = "NEAP_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Upload without signature and SBOM; the server stores it and refuses to run it
    #[arg(long)]
    pub no_sign: bool,
    /// How to run it
    #[command(flatten)]
    pub spec: SpecArgs,
}

/// Options of a function's specification; each overrides neap.toml.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Environment variable of the function; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Host or host/path that leads to the function, besides NAME.localhost; may be repeated
    #[arg(long, value_name = "HOST[/PATH]")]
    pub route: Vec<RoutePattern>,
    /// Memory of one instance, in MiB
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
    /// Wall-clock time of one request, in milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// CPU time of one request, in milliseconds (Wasm)
    #[arg(long, value_name = "MS")]
    pub cpu_ms: Option<u64>,
    /// Requests that one instance handles at once; of Wasm, max-instances times as many run on one machine
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Instances that stay up without requests; of Wasm, 1 keeps the program loaded, and more mean no more
    #[arg(long, value_name = "N")]
    pub min_instances: Option<u32>,
    /// Instances at most
    #[arg(long, value_name = "N")]
    pub max_instances: Option<u32>,
    /// Time without requests after which the function goes to zero, in milliseconds
    #[arg(long, value_name = "MS")]
    pub idle_timeout_ms: Option<u64>,
    /// Time that a container has to begin listening, in milliseconds
    #[arg(long, value_name = "MS")]
    pub startup_timeout_ms: Option<u64>,
    /// Host that the function may send HTTP requests to; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow_host: Vec<HostPattern>,
}

/// A function's name.
#[derive(Debug, Args)]
pub struct NameArg {
    /// The function
    pub name: FunctionName,
}

/// `neap invoke`.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// The function
    pub name: FunctionName,
    /// Path and query
    #[arg(default_value = "/")]
    pub path: String,
    /// Method; GET, or POST where there is data
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Header; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Request body; @FILE reads a file, @- stdin
    #[arg(short, long, value_name = "DATA")]
    pub data: Option<String>,
    /// Print the response's status and headers on stderr
    #[arg(short = 'i', long)]
    pub include: bool,
}

/// `neap logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The function
    pub name: FunctionName,
    /// Go on printing what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only what is younger: 90s, 10m, 2h, 1d, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since_ms)]
    pub since: Option<u64>,
}

/// `neap rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The function
    pub name: FunctionName,
    /// The revision; the one before when left out
    pub revision: Option<u32>,
}

/// `neap traffic`.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// The function
    pub name: FunctionName,
    /// Shares of traffic
    #[arg(required = true, value_name = "REVISION=WEIGHT")]
    pub shares: Vec<String>,
}

/// `neap usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Only this function
    #[arg(long, value_name = "NAME")]
    pub function: Option<FunctionName>,
    /// Only what began later: 90s, 10m, 2h, 1d ago, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since_ms)]
    pub since: Option<u64>,
    /// One line per invocation instead of sums
    #[arg(long)]
    pub records: bool,
}

/// `neap key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a signing key (P-256): FILE gets the private key, FILE.pub the public one
    Generate {
        /// Where to; must not exist
        #[arg(default_value = "neap.key")]
        file: PathBuf,
    },
    /// Trust a public key: what it signs may run
    Trust {
        /// PEM file of the public key
        file: PathBuf,
        /// What to call it; the file's name when left out
        #[arg(long)]
        name: Option<String>,
    },
    /// List trusted keys
    List,
    /// Trust a key no longer
    Revoke {
        /// Its id, from `neap key list`
        key_id: String,
    },
}

/// `neap verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Reference in the server's registry: NAME, team/app:tag, team/app@sha256:…
    pub reference: neap_sdk::artifact::Reference,
}

/// Reads `90s`, `10m`, `2h`, `1d` as a time before now, and a bare number as milliseconds since 1970.
fn since_ms(text: &str) -> Result<u64, String> {
    let error = || format!("{text:?} is not a time like 90s, 10m, 2h or 1d");
    if let Ok(at_ms) = text.parse::<u64>() {
        return Ok(at_ms);
    }
    let unit_start = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let (number, unit) = text.split_at(unit_start);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    Ok(crate::output::now_ms().saturating_sub(number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_readmes_commands_are_commands() {
        let readme = include_str!("../README.md");
        let commands =
            readme.lines().flat_map(|line| line.split(" && ")).filter(|line| line.starts_with("neap "));
        let mut count = 0;
        for command in commands {
            let words = command
                .split(" #")
                .next()
                .unwrap_or_default()
                .trim()
                .trim_end_matches('&')
                .split_whitespace();
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("README: {command}\n{error}");
            }
            count += 1;
        }
        assert!(count >= 8, "only {count} commands were found");
    }

    #[test]
    fn times_before_now() {
        assert_eq!(since_ms("1700000000000"), Ok(1_700_000_000_000));
        let hour_ago = since_ms("1h").expect("a time");
        assert!(crate::output::now_ms() - hour_ago >= 3_600_000);
        assert!(since_ms("1w").is_err() && since_ms("h").is_err() && since_ms("").is_err());
    }
}

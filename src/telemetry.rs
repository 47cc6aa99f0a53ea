//! Logs of the server: structured lines on stderr, filtered by `NEAP_LOG` (the syntax of tracing's filters).
//! Request heads and bodies are never logged.

use crate::cli::LogFormat;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What is logged where `NEAP_LOG` says nothing: warnings of all, the life of the server, no single requests.
const FILTER_DEFAULT: &str = "warn,neap=info,neap_gateway=info,neap_scheduler=info,neap_node=info,access=off";

/// Installs the log writer. A second call in one process does nothing.
pub fn install(format: LogFormat, access_log: bool) {
    let filter = std::env::var("NEAP_LOG").unwrap_or_else(|_| FILTER_DEFAULT.to_owned());
    let filter = if access_log { format!("{filter},access=info") } else { filter };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter));
    let writer = fmt::layer().with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => registry.with(writer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(writer.json().flatten_event(true)).try_init(),
    };
    drop(installed);
}

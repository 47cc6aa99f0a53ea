//! Every limit of neap: a name with its unit last, a value, a reason. No other file invents a number.

/// Most bytes of one Wasm artifact. The largest components seen in the wild (JS and Python engines) are 20–40 MiB.
pub const WASM_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of one OCI manifest; the distribution spec asks registries for at least 4 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of one blob in the registry.
pub const BLOB_BYTES_MAX: u64 = 8 << 30;
/// Most bytes of one sigstore bundle or attestation that admission reads.
pub const BUNDLE_BYTES_MAX: u64 = 8 << 20;
/// Most bytes of one SBOM document.
pub const SBOM_BYTES_MAX: u64 = 64 << 20;
/// Most referrers of one manifest that admission examines; more are an attack on the verifier's time.
pub const REFERRERS_EXAMINED_MAX: usize = 64;
/// Most referrers that one answer of the referrers API lists.
pub const REFERRERS_LISTED_MAX: usize = 1_000;
/// Most tags of one repository.
pub const TAGS_PER_REPOSITORY_MAX: usize = 10_000;
/// Most upload sessions open at once; each holds a temporary file.
pub const UPLOADS_OPEN_MAX: usize = 256;
/// An upload session that nobody touched for so long is removed.
pub const UPLOAD_IDLE_S: u64 = 24 * 3_600;
/// Most subjects of one in-toto statement (sigstore-go's value).
pub const STATEMENT_SUBJECTS_MAX: usize = 1_024;
/// Most nesting of JSON from outside.
pub const JSON_DEPTH_MAX: usize = 128;

/// Most layers of one image.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Most bytes an image may unpack to.
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Most files and folders of one image.
pub const IMAGE_ENTRIES_MAX: u64 = 1_000_000;

/// Memory, in bytes, that an instance gets where the spec names none.
pub const MEMORY_BYTES_DEFAULT: u64 = 128 << 20;
/// Least memory, in bytes, that a spec may ask for.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Most memory, in bytes, that a spec may ask for; what 32-bit Wasm can address.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Time one invocation may take, in milliseconds, where the spec names none.
pub const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Longest time that a spec may ask for: one hour.
pub const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Invocations that one Wasm instance slot set, or one container, handles at once where the spec names none.
pub const CONCURRENCY_DEFAULT: u32 = 100;
/// Most that a spec may ask for.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Instances of one function where the spec names no maximum.
pub const INSTANCES_MAX_DEFAULT: u32 = 10;
/// Most instances that a spec may ask for.
pub const INSTANCES_MAX: u32 = 1_000;
/// A function without requests for so long goes to zero, where the spec names no time.
pub const IDLE_TIMEOUT_MS_DEFAULT: u64 = 60_000;
/// Shortest idle time that a spec may ask for; shorter ones make every request a cold one.
pub const IDLE_TIMEOUT_MS_MIN: u64 = 100;
/// A container that does not listen for so long is reported as never listening.
pub const STARTUP_TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// Time between SIGTERM and SIGKILL of a container.
pub const STOP_GRACE_MS: u64 = 5_000;
/// Processes that one container may have.
pub const CONTAINER_PIDS_MAX: i64 = 256;

/// Requests of one revision that wait for an instance; the next one gets a 429.
pub const QUEUE_LENGTH_MAX: usize = 1_000;
/// Longest wait in the queue before a 503.
pub const QUEUE_WAIT_MS_MAX: u64 = 30_000;
/// Most environment variables of one function.
pub const ENV_VARS_MAX: usize = 256;
/// Most bytes of all environment variables of one function.
pub const ENV_BYTES_MAX: usize = 64 << 10;
/// Most routes of one function.
pub const ROUTES_MAX: usize = 32;
/// Most hosts that a function may name for outgoing requests.
pub const OUTBOUND_HOSTS_MAX: usize = 64;
/// Revisions of one function that are kept; older ones without traffic are forgotten.
pub const REVISIONS_KEPT_MAX: usize = 50;

/// Connections that the gateway holds open; the next one waits in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Most bytes of a request's head.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of one request.
pub const REQUEST_HEADERS_MAX: usize = 100;
/// Most bytes of a request body, where the operator names no other limit.
pub const REQUEST_BODY_BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// A client that does not finish its request head for so long is disconnected.
pub const HEADER_READ_TIMEOUT_MS: u64 = 10_000;
/// A connection without a request for so long is closed.
pub const IDLE_CONNECTION_TIMEOUT_MS: u64 = 60_000;
/// Most concurrent streams of one HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 128;
/// Most bytes of an HTTP/2 header list.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Time that a stopping server gives running requests.
pub const DRAIN_TIMEOUT_MS: u64 = 30_000;
/// Most bytes of an admin API body.
pub const ADMIN_BODY_BYTES_MAX: usize = 4 << 20;

/// Most bytes of one kept log line; longer ones are cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Log lines that one function keeps; the oldest go first.
pub const LOG_LINES_KEPT_MAX: usize = 2_000;
/// Lines that a failed start shows as its reason.
pub const LOG_LINES_SHOWN_ON_FAILURE: usize = 20;

/// Time one compilation in the child process may take.
pub const COMPILE_TIMEOUT_MS: u64 = 120_000;
/// Address space of the compiling child process.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 8 << 30;
/// Epoch tick of the Wasm engine: how late a busy guest is stopped at most.
pub const EPOCH_TICK_MS: u64 = 5;
/// Most bytes that a core module in CGI style may answer with.
pub const CGI_RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Most bytes of request body that a core module in CGI style gets.
pub const CGI_REQUEST_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one segment of the usage ledger before the next one is begun.
pub const LEDGER_SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Raw usage segments that are kept; older ones live on as sums per function and hour.
pub const LEDGER_SEGMENTS_KEPT_MAX: usize = 64;

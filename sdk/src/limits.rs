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
/// Most descriptors of one manifest or index; the largest public indexes have under a hundred.
pub const MANIFEST_DESCRIPTORS_MAX: usize = 1_000;
/// Most indexes between a tag and the manifest that runs; one is usual, two is a nested index.
pub const INDEX_DEPTH_MAX: usize = 3;
/// Most referrers that the registry keeps for one manifest.
pub const REFERRERS_PER_MANIFEST_MAX: usize = 10_000;
/// Most bytes of one answer of the referrers API; a page ends before it grows larger.
pub const REFERRERS_PAGE_BYTES_MAX: usize = 2 << 20;
/// Most pages of referrers that a client follows.
pub const REFERRERS_PAGES_MAX: usize = 10;
/// Most tags or repositories that one answer lists.
pub const TAGS_LISTED_MAX: usize = 1_000;
/// Content that nothing refers to is kept so long, because a push uploads blobs before their manifest.
pub const REGISTRY_GC_GRACE_S: u64 = 24 * 3_600;
/// Time between two garbage collections of the registry.
pub const REGISTRY_GC_INTERVAL_S: u64 = 3_600;
/// Admissions under way at once; each may hash, compile or unpack gigabytes.
pub const ADMISSIONS_CONCURRENT_MAX: usize = 4;
/// Bytes that are read or written at once while a blob streams; larger ones save system calls, not time.
pub const BLOB_BUFFER_BYTES: usize = 256 << 10;
/// Blobs above this size are uploaded in chunks of it, so that a broken connection costs one chunk.
pub const UPLOAD_CHUNK_BYTES: u64 = 32 << 20;
/// Times that a client resumes one upload before it gives up.
pub const UPLOAD_RESUMES_MAX: u32 = 5;
/// Redirects that a client follows for one request to a registry.
pub const REGISTRY_REDIRECTS_MAX: usize = 5;
/// Time to connect to a registry.
pub const REGISTRY_CONNECT_TIMEOUT_MS: u64 = 10_000;
/// A registry that sends nothing for so long is given up.
pub const REGISTRY_READ_TIMEOUT_MS: u64 = 60_000;
/// An upload slower than this many bytes per second, on top of the time above, is given up.
pub const REGISTRY_UPLOAD_BYTES_PER_S_MIN: u64 = 64 << 10;
/// Blobs that a client transfers at once.
pub const TRANSFERS_CONCURRENT_MAX: usize = 4;
/// Most bytes that a client reads of an error, a token or a credential helper's answer.
pub const REGISTRY_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Time that a `docker-credential-*` program may take; some ask a keychain, which asks a person.
pub const CREDENTIAL_HELPER_TIMEOUT_MS: u64 = 30_000;
/// Most files in an OCI or Docker archive.
pub const ARCHIVE_ENTRIES_MAX: usize = 10_000;
/// Most tags of one repository.
pub const TAGS_PER_REPOSITORY_MAX: usize = 10_000;
/// Most upload sessions open at once; each holds a temporary file.
pub const UPLOADS_OPEN_MAX: usize = 256;
/// An upload session that nobody touched for so long is removed.
pub const UPLOAD_IDLE_S: u64 = 24 * 3_600;
/// Most subjects of one in-toto statement (sigstore-go's value).
pub const STATEMENT_SUBJECTS_MAX: usize = 1_024;
/// Most digests of one subject of a statement (sigstore-go's value).
pub const STATEMENT_DIGESTS_MAX: usize = 32;
/// Most transparency log entries, and most timestamps, of one bundle.
pub const BUNDLE_LOG_ENTRIES_MAX: usize = 32;
/// Most bytes of one simple-signing payload; real ones have under one KiB.
pub const SIMPLE_SIGNING_BYTES_MAX: u64 = 64 << 10;
/// Time one admission may take; longer means that the evidence is an attack or the disk is ill.
pub const ADMISSION_TIMEOUT_MS: u64 = 60_000;
/// Most keys that one tenant trusts; every signature is tried against each that fits.
pub const TRUSTED_KEYS_PER_TENANT_MAX: usize = 64;
/// Most bytes of a key file.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of the configuration of an image or a Wasm artifact.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Most components that an SBOM inventory holds; the largest images have some ten thousand packages.
pub const SBOM_COMPONENTS_MAX: usize = 200_000;
/// Most bytes of the dependency list that cargo-auditable embeds, decompressed.
pub const AUDIT_DATA_BYTES_MAX: usize = 8 << 20;
/// Most bytes of a `Cargo.lock` that an SBOM is made from.
pub const CARGO_LOCK_BYTES_MAX: u64 = 16 << 20;
/// Most nesting of JSON from outside.
pub const JSON_DEPTH_MAX: usize = 128;

/// Most layers of one image.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Most bytes an image may unpack to.
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Most files and folders of one image.
pub const IMAGE_ENTRIES_MAX: u64 = 1_000_000;
/// A layer larger than this may hold at most [`IMAGE_COMPRESSION_RATIO_MAX`] times its compressed bytes.
pub const IMAGE_RATIO_FREE_BYTES: u64 = 256 << 20;
/// Most bytes that one compressed byte of a layer may become; real layers stay under 20, bombs reach 1,000.
pub const IMAGE_COMPRESSION_RATIO_MAX: u64 = 100;
/// Most bytes of one path, or one link target, in a layer (the kernel's `PATH_MAX`).
pub const IMAGE_PATH_BYTES_MAX: usize = 4_096;
/// Most bytes of the extension headers (long names, PAX records) in front of one layer entry.
pub const IMAGE_ENTRY_HEADER_BYTES_MAX: u64 = 1 << 20;
/// Most folders that one path in a layer leads through; also bounds the recursion of whoever removes it.
pub const IMAGE_PATH_DEPTH_MAX: usize = 256;
/// Symbolic links that one path in a layer may lead through (the kernel's value).
pub const IMAGE_SYMLINKS_FOLLOWED_MAX: usize = 40;
/// Most bytes of an image's `/etc/passwd` or `/etc/group`.
pub const IMAGE_ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

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
/// Connections to one container that are kept open for the next request.
pub const CONTAINER_CONNECTIONS_IDLE_MAX: usize = 64;
/// Processes that one container may have.
pub const CONTAINER_PIDS_MAX: i64 = 256;
/// CPU of one container, in thousandths of a core.
pub const CONTAINER_CPU_MILLIS_MAX: u32 = 1_000;
/// Open files of one process in a container; a lower hard limit of the server wins.
pub const CONTAINER_OPEN_FILES_MAX: u64 = 65_536;
/// Least memory that a container gets: setting it up is charged to it, and less ends it before its program runs.
pub const CONTAINER_MEMORY_BYTES_MIN: u64 = 8 << 20;
/// User and group ids that a container has: what images use, and one user namespace range.
pub const CONTAINER_IDS_MAX: u32 = 65_536;
/// Prepared, empty sandboxes that wait for a container; each holds a process and its namespaces (about 1 MiB).
pub const CONTAINERS_PARKED: usize = 2;
/// Containers that start at the same time; the next one waits.
pub const CONTAINERS_STARTING_MAX: usize = 64;
/// Most bytes of one message between server and spawner; the environment is the largest part.
pub const SPAWNER_MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Time in which a new spawner must be ready; it also ends what an earlier one left.
pub const SPAWNER_READY_TIMEOUT_MS: u64 = 15_000;
/// Time that killed processes of a container have to be gone from its cgroup.
pub const CONTAINER_KILL_TIMEOUT_MS: u64 = 5_000;
/// Time that the processes of a container have to freeze; one that waits for a broken disk takes for ever.
pub const CONTAINER_FREEZE_TIMEOUT_MS: u64 = 1_000;
/// Time that the last output of a container that ended has to arrive.
pub const CONTAINER_LOG_DRAIN_MS: u64 = 500;
/// Images that are unpacked at the same time; more only compete for the disk.
pub const IMAGES_UNPACKING_MAX: usize = 2;
/// Bytes of container output that are handed on at once.
pub const CONTAINER_LOG_CHUNK_BYTES: usize = 16 << 10;
/// Sockets opened at once inside a container's network namespace, and so kept ready.
pub const CONTAINER_SOCKETS_KEPT: usize = 8;

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

/// Over this time the autoscaler averages the load, and does not shrink what was short of slots within it.
pub const AUTOSCALE_STABLE_WINDOW_MS: u64 = 60_000;
/// Least time between two steps down, so that a pause between two bursts costs few starts.
pub const AUTOSCALE_STEP_DOWN_MS: u64 = 6_000;
/// Share of its slots, in percent, that an instance is planned to use on average; the rest is room for bursts.
pub const AUTOSCALE_UTILIZATION_PERCENT: u64 = 70;
/// Longest time between two looks at a revision that has instances.
pub const AUTOSCALE_TICK_MS_MAX: u64 = 1_000;
/// Shortest time between two looks: what the shortest idle timeout needs.
pub const AUTOSCALE_TICK_MS_MIN: u64 = 25;
/// First pause after a failed start; it doubles with every further one.
pub const START_BACKOFF_MS_MIN: u64 = 500;
/// Longest pause after a failed start.
pub const START_BACKOFF_MS_MAX: u64 = 60_000;
/// Longest pause before an instance is started again that had started and then ended. Short, because one client's
/// requests may be what ends it.
pub const CRASH_BACKOFF_MS_MAX: u64 = 1_000;
/// An instance that ends on its own sooner than this after its start counts as crashed on start.
pub const START_STABLE_MS: u64 = 10_000;
/// Starts that one scheduler has under way at once; more would only slow each other down.
pub const STARTS_CONCURRENT_MAX: usize = 32;
/// Time that a start may take besides `startup_timeout_ms`: mapping native code, mounting an image.
pub const START_OVERHEAD_MS_MAX: u64 = 30_000;
/// Time that a rollback waits for the older revision to be up before it shifts the traffic anyway.
pub const ROLLBACK_WAIT_MS_MAX: u64 = 500;
/// Revisions of the store's keys that watchers can still read; a slower one reads everything again.
pub const STORE_HISTORY_KEPT_MAX: u64 = 10_000;
/// Most bytes of one key of the store.
pub const STORE_KEY_BYTES_MAX: usize = 2_048;
/// Most bytes of one value of the store: etcd's default for a whole request.
pub const STORE_VALUE_BYTES_MAX: usize = 1_536 << 10;
/// Most writes of one transaction of the store: etcd's default.
pub const STORE_TXN_WRITES_MAX: usize = 128;

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
/// Most bytes that one HTTP/2 stream buffers for a slow client; hyper's 400 KiB times 128 streams would be 50 MiB.
pub const H2_SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Streams that an HTTP/2 client may reset before they were looked at (rapid reset, CVE-2023-44487).
pub const H2_RESETS_PENDING_MAX: usize = 20;
/// Streams that the gateway resets for a client's protocol errors before it ends the connection.
pub const H2_RESETS_LOCAL_MAX: usize = 256;
/// An HTTP/2 connection is pinged so often, to find peers that vanished.
pub const H2_PING_INTERVAL_MS: u64 = 20_000;
/// A ping that nobody answers for so long ends the connection.
pub const H2_PING_TIMEOUT_MS: u64 = 20_000;
/// Connections that wait in the kernel, per core, until they are accepted.
pub const LISTEN_BACKLOG: i32 = 1_024;
/// Longest pause before the next accept while the process has no file descriptor or memory for one.
pub const ACCEPT_BACKOFF_MS_MAX: u64 = 1_000;
/// After an early answer the rest of a request body is read and dropped for so long, lest a reset destroy the answer.
pub const LINGER_MS: u64 = 1_000;
/// Most bytes that are read and dropped so.
pub const LINGER_BYTES_MAX: u64 = 4 << 20;
/// Functions with metric series of their own; the rest share one, because every series costs memory here and at the scraper.
pub const METRIC_FUNCTIONS_MAX: usize = 500;
/// Frames of an answer of the control plane that wait for a slow client.
pub const SYSTEM_FRAMES_MAX: usize = 8;
/// Pause before a request is given to another instance, because the first ended before it saw the request.
pub const RETRY_PAUSE_MS: u64 = 10;
/// What `Retry-After` says, in seconds, where nothing better is known.
pub const RETRY_AFTER_S: u64 = 1;
/// Time that a stopping server gives running requests.
pub const DRAIN_TIMEOUT_MS: u64 = 30_000;
/// Most bytes of an admin API body.
pub const ADMIN_BODY_BYTES_MAX: usize = 4 << 20;

/// Most bytes of one kept log line; longer ones are cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Log lines that one function keeps; the oldest go first.
pub const LOG_LINES_KEPT_MAX: usize = 2_000;
/// Bytes of log lines that one function keeps, so that long lines cannot fill memory or disk.
pub const LOG_BYTES_KEPT_MAX: usize = 4 << 20;
/// Log lines that a follower may lag behind; it is told how many it lost beyond that.
pub const LOG_FOLLOWER_LAG_MAX: usize = 1_024;
/// Lines that a failed start shows as its reason.
pub const LOG_LINES_SHOWN_ON_FAILURE: usize = 20;

/// Time one compilation in the child process may take.
pub const COMPILE_TIMEOUT_MS: u64 = 120_000;
/// Address space of the compiling child process.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 8 << 30;
/// Epoch tick of the Wasm engine: how late a busy guest is stopped at most.
pub const EPOCH_TICK_MS: u64 = 5;
/// Compilations that run side by side; more only take each other's memory and cores.
pub const COMPILES_AT_ONCE_MAX: usize = 2;
/// Wasm invocations that one server runs at once; each reserves 4 GiB of address space, of which there is 128 TiB.
pub const WASM_CALLS_AT_ONCE_MAX: u32 = 1_000;
/// Bytes of a Wasm memory that stay resident for the next invocation; clearing them costs less than faulting them in.
pub const WASM_MEMORY_KEPT_BYTES: usize = 1 << 20;
/// The same for a table.
pub const WASM_TABLE_KEPT_BYTES: usize = 64 << 10;
/// The same for the stack, which is zeroed between invocations.
pub const WASM_STACK_KEPT_BYTES: usize = 16 << 10;
/// Most elements of one Wasm table; Go and Python guests need tens of thousands.
pub const WASM_TABLE_ELEMENTS_MAX: usize = 100_000;
/// Most bytes that a guest hands the host in one call.
pub const WASM_HOSTCALL_BYTES_MAX: usize = 8 << 20;
/// Most host resources (streams, fields, requests) that one invocation holds.
pub const WASM_RESOURCES_MAX: usize = 10_000;
/// Most random bytes that a guest gets in one call.
pub const WASM_RANDOM_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of one set of header fields that a guest makes, with the host's overhead.
pub const WASM_FIELDS_BYTES_MAX: usize = 64 << 10;
/// Most bytes of body that a guest hands over before the host must have taken them.
pub const WASM_BODY_CHUNK_BYTES_MAX: usize = 256 << 10;
/// Outgoing requests of one invocation that are open at once.
pub const OUTBOUND_REQUESTS_AT_ONCE_MAX: usize = 64;
/// Time to resolve a name and connect, where the guest names none.
pub const OUTBOUND_CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Most bytes of the head that a core module in CGI style prints.
pub const CGI_HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes that a core module in CGI style may answer with.
pub const CGI_RESPONSE_BYTES_MAX: usize = 64 << 20;
/// Most bytes of request body that a core module in CGI style gets.
pub const CGI_REQUEST_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one segment of the usage ledger before the next one is begun.
pub const LEDGER_SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Raw usage segments that are kept; older ones live on as sums per function and hour.
pub const LEDGER_SEGMENTS_KEPT_MAX: usize = 64;

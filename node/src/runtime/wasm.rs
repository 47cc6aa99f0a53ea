//! Adapter to `neap-wasm-runtime`: an instance is a loaded program, and each call gets a fresh guest of its own.
//! Nothing can exit between calls, so there is nothing to freeze, to watch or to stop.

use super::{
    ExitReason, FreezeError, Instance, InstanceUsage, MeterSource, PrepareError, Runtime, RuntimeCall, Start,
    StartError,
};
use crate::{
    Artifact, ArtifactLayer, Body, CallError,
    logs::{LogStream, LogWriter},
};
use futures_util::future::{BoxFuture, FutureExt as _, pending, ready};
use http::{Request, Response};
use neap_sdk::FunctionSpec;
use neap_wasm_runtime::{
    Call, CallLimits, Grants, InvokeError, LogSink, Meter, PrepareError as WasmPrepareError, Program, Stream,
    WasmRuntime,
};
use std::{sync::Arc, time::Duration};

/// Runs components and core modules.
#[derive(Clone)]
pub struct WasmAdapter {
    engine: WasmRuntime,
}

impl WasmAdapter {
    /// An adapter to this engine.
    pub fn new(engine: WasmRuntime) -> Self {
        Self { engine }
    }
}

impl Runtime for WasmAdapter {
    fn prepare<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), PrepareError>> {
        async move {
            let layer = only_layer(artifact).map_err(PrepareError::Unsupported)?;
            match self.engine.prepare(layer.digest, &layer.path).await {
                Ok(kind) if kind == artifact.kind => Ok(()),
                Ok(kind) => {
                    let text =
                        format!("the artifact was admitted as {}, but its bytes are a {kind}", artifact.kind);
                    Err(PrepareError::Unsupported(text))
                }
                Err(error) => Err(prepare_error(&error)),
            }
        }
        .boxed()
    }

    fn start(&self, start: Start) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        async move {
            let layer = only_layer(&start.artifact).map_err(StartError)?;
            let program = self.engine.load(layer.digest, &layer.path).await;
            let program = program.map_err(|error| StartError(with_causes(&error)))?;
            let instance: Box<dyn Instance> = Box::new(WasmInstance::new(program, &start.spec, start.logs));
            Ok(instance)
        }
        .boxed()
    }
}

fn only_layer(artifact: &Artifact) -> Result<&ArtifactLayer, String> {
    match artifact.layers.as_slice() {
        [layer] => Ok(layer),
        layers => Err(format!("a Wasm artifact has exactly one layer, and this one has {}", layers.len())),
    }
}

fn prepare_error(error: &WasmPrepareError) -> PrepareError {
    let text = with_causes(error);
    // What is not the artifact's fault may work a moment later, and must not be kept as a refusal.
    if error.blames_artifact() { PrepareError::Unsupported(text) } else { PrepareError::Unavailable(text) }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

struct WasmInstance {
    program: Program,
    limits: CallLimits,
    spec: Arc<FunctionSpec>,
    logs: LogWriter,
}

impl WasmInstance {
    fn new(program: Program, spec: &Arc<FunctionSpec>, logs: LogWriter) -> Self {
        let wall = Duration::from_millis(spec.timeout_ms);
        let cpu = spec.cpu_ms.map_or(wall, Duration::from_millis);
        let limits = CallLimits { memory_bytes: spec.memory_bytes, wall, cpu };
        Self { program, limits, spec: spec.clone(), logs }
    }

    /// What one guest may use. A log writer of its own keeps the lines of guests that run side by side apart,
    /// and ends the last line with the guest.
    fn grants(&self) -> Grants {
        Grants {
            env: self.spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            outbound_hosts: self.spec.outbound_hosts.clone(),
            logs: Arc::new(self.logs.fork()),
        }
    }
}

impl Instance for WasmInstance {
    fn call(
        &self,
        request: Request<Body>,
        call: RuntimeCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        let meter = Arc::new(Meter::default());
        call.meter.attach(meter.clone());
        let call = Call { limits: self.limits, grants: Arc::new(self.grants()), meter };
        async move { self.program.call(request, call).await.map_err(call_error) }.boxed()
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        ready(Ok(())).boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        ready(Ok(())).boxed()
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn exited(&self) -> BoxFuture<'_, ExitReason> {
        pending().boxed()
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn usage(&self) -> Option<InstanceUsage> {
        None
    }
}

fn call_error(error: InvokeError) -> CallError {
    let text = error.to_string();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match error {
        InvokeError::Trapped(reason) => CallError::Trapped(reason),
        InvokeError::OutOfMemory { limit_bytes } => CallError::OutOfMemory { memory_bytes: limit_bytes },
        InvokeError::Timeout(limit) => CallError::Timeout { timeout_ms: millis(limit) },
        InvokeError::CpuExhausted(limit) => CallError::CpuTime { cpu_ms: millis(limit) },
        InvokeError::NoResponse => CallError::Failed("it ended without a response".to_owned()),
        InvokeError::Exited(status) => CallError::Failed(format!("it exited with status {status}")),
        InvokeError::Failed(reason) => CallError::Failed(reason),
        InvokeError::BadResponse(reason) => CallError::Failed(format!("its response is not valid: {reason}")),
        InvokeError::BadRequest(_) => CallError::BadRequest(text),
        InvokeError::Busy => CallError::Busy(text),
    }
}

impl MeterSource for Meter {
    fn cpu_us(&self) -> u64 {
        Meter::cpu_us(self)
    }

    fn memory_bytes(&self) -> u64 {
        Meter::memory_bytes(self)
    }
}

impl LogSink for LogWriter {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        LogWriter::write(self, stream, bytes);
    }
}

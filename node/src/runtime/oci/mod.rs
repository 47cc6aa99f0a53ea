//! Adapter to `neap-oci-runtime`: an instance is a container, called over HTTP/1.1 through sockets that are
//! opened inside its network namespace. Must not know how a container is made.

mod http;
#[cfg(test)]
mod tests;

use self::http::HttpClient;
use super::{
    ExitReason, FreezeError, Instance, InstanceUsage, PrepareError, Runtime, RuntimeCall, Start, StartError,
};
use crate::{
    Artifact, Body, CallError,
    logs::{LogStream, LogWriter},
};
use ::http::{Request, Response};
use futures_util::future::{BoxFuture, FutureExt as _};
use neap_oci_runtime::{
    Container, ContainerSpec, ImageFiles, LayerFile, LogSink, OciRuntime, Stream, UnpackError,
};
use neap_sdk::{InstanceId, RevisionId};
use std::{sync::Arc, time::Duration};

/// Time for what a container wrote before it ended to reach its log. Shorter than a broken call waits for the reason.
const LOGS_SETTLE: Duration = Duration::from_millis(20);

/// Runs container images.
#[derive(Clone)]
pub struct OciAdapter {
    runtime: OciRuntime,
}

impl OciAdapter {
    /// An adapter to this runtime.
    pub fn new(runtime: OciRuntime) -> Self {
        Self { runtime }
    }
}

impl Runtime for OciAdapter {
    fn prepare<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<(), PrepareError>> {
        async move {
            let unpacked = self.runtime.unpack(&image_files(artifact)).await;
            unpacked.map_err(|error| prepare_error(&error))
        }
        .boxed()
    }

    fn start(&self, start: Start) -> BoxFuture<'_, Result<Box<dyn Instance>, StartError>> {
        async move {
            let container = self.runtime.run(container_spec(start)).await;
            let container = container.map_err(|error| StartError(with_causes(&error)))?;
            let instance: Box<dyn Instance> = Box::new(OciInstance::new(container));
            Ok(instance)
        }
        .boxed()
    }
}

fn prepare_error(error: &UnpackError) -> PrepareError {
    let text = with_causes(error);
    match error {
        UnpackError::Store { .. } | UnpackError::Interrupted => PrepareError::Unavailable(text),
        _ => PrepareError::Unsupported(text),
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn image_files(artifact: &Artifact) -> ImageFiles {
    let layer = |layer: &crate::ArtifactLayer| LayerFile {
        digest: layer.digest,
        media_type: layer.media_type.clone(),
        path: layer.path.clone(),
    };
    ImageFiles {
        digest: artifact.digest,
        config: artifact.config.clone(),
        layers: artifact.layers.iter().map(layer).collect(),
    }
}

fn container_spec(start: Start) -> ContainerSpec {
    ContainerSpec {
        id: host_name(&start.revision, start.instance),
        image: image_files(&start.artifact),
        env: start.spec.env.clone().into_iter().collect(),
        memory_bytes: start.spec.memory_bytes,
        startup_timeout: Duration::from_millis(start.spec.startup_timeout_ms),
        logs: Arc::new(start.logs),
    }
}

/// The container's host name: tells people what they look at, and is unique for one start of the node. At most
/// 40 bytes of function name, 17 of instance and a `-`.
fn host_name(revision: &RevisionId, instance: InstanceId) -> String {
    format!("{}-{instance}", revision.function)
}

struct OciInstance {
    container: Arc<Container>,
    http: HttpClient,
}

impl OciInstance {
    fn new(container: Container) -> Self {
        let container = Arc::new(container);
        let connected = container.clone();
        let connect = move || {
            let container = connected.clone();
            async move { container.connect().await }.boxed()
        };
        Self { container, http: HttpClient::new(Arc::new(connect)) }
    }
}

impl Instance for OciInstance {
    fn call(
        &self,
        request: Request<Body>,
        _call: RuntimeCall,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        self.http.call(request).boxed()
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        async {
            // A server's keep-alive timers all fire at once when it is thawed: no connection outlives a freeze.
            self.http.close_idle();
            self.container.freeze().await.map_err(|error| FreezeError(with_causes(&error)))
        }
        .boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), FreezeError>> {
        async { self.container.thaw().await.map_err(|error| FreezeError(with_causes(&error))) }.boxed()
    }

    fn stop(&self, grace: Duration) -> BoxFuture<'_, ()> {
        async move {
            self.http.close_idle();
            self.container.stop(grace).await;
        }
        .boxed()
    }

    fn exited(&self) -> BoxFuture<'_, ExitReason> {
        async {
            let exit = self.container.exited().await;
            // Its last words are still on their way through a pipe, and say why.
            tokio::time::sleep(LOGS_SETTLE).await;
            ExitReason(exit.to_string())
        }
        .boxed()
    }

    fn pid(&self) -> Option<u32> {
        Some(self.container.pid())
    }

    fn usage(&self) -> Option<InstanceUsage> {
        let usage = self.container.usage();
        Some(InstanceUsage { cpu_us: usage.cpu_us, memory_peak_bytes: usage.memory_peak_bytes })
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

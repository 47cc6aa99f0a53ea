//! The way to the control plane: registry, admin API, health and metrics are answered on its own runtime, so that
//! nothing they do can hold up a core of the request path. Bodies stream both ways, a few frames ahead at most.

use crate::{Body, BoxError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use neap_sdk::{ErrorCode, Problem, limits};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

/// Answers for the plain host (localhost, 127.0.0.1, \[::1\]): registry, admin API, /healthz, /readyz, /metrics.
/// Runs on the control runtime; it is dropped there when the client goes away.
pub type SystemService = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Has the control runtime answer. Dropping the future, or the answer's body, cancels the work there.
///
/// # Errors
/// The service panicked, or its runtime is gone.
pub(crate) async fn call(
    control: &Handle,
    system: &SystemService,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let system = Arc::clone(system);
    let work = control.spawn(async move { system(request).await.map(hand_over) });
    AbortOnDropHandle::new(work).await.map_err(|error| {
        tracing::error!(%error, "the control plane failed to answer");
        Problem::new(ErrorCode::Internal, "the control plane failed to answer; its log tells why")
    })
}

/// One step of an answer on its way to the core.
enum Step {
    Frame(Result<Frame<Bytes>, BoxError>),
    /// The body is complete. A channel that closes without it belongs to a task that died.
    End,
}

/// Leaves the body's work on this runtime and gives the core only its frames.
fn hand_over(mut body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (steps, received) = mpsc::channel(limits::SYSTEM_FRAMES_MAX);
    let hint = body.size_hint();
    tokio::spawn(async move {
        loop {
            let step = tokio::select! {
                frame = body.frame() => frame.map_or(Step::End, Step::Frame),
                () = steps.closed() => return,
            };
            let is_last = !matches!(step, Step::Frame(Ok(_)));
            if steps.send(step).await.is_err() || is_last {
                return;
            }
        }
    });
    Received { steps: received, left_bytes: hint.exact(), is_complete: false }.boxed_unsync()
}

struct Received {
    steps: mpsc::Receiver<Step>,
    /// Known where the length was.
    left_bytes: Option<u64>,
    is_complete: bool,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_complete {
            return Poll::Ready(None);
        }
        let step = ready!(self.steps.poll_recv(cx));
        Poll::Ready(match step {
            Some(Step::Frame(frame)) => {
                if let (Some(left), Ok(frame)) = (&mut self.left_bytes, &frame) {
                    *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Some(frame)
            }
            Some(Step::End) => {
                self.is_complete = true;
                None
            }
            None => {
                self.is_complete = true;
                Some(Err("the control plane broke off its answer".into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete
    }

    fn size_hint(&self) -> SizeHint {
        self.left_bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

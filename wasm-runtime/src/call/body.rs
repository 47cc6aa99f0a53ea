//! Response bodies: one that drives its guest on, and one that tells when it was taken.

use super::{BoxError, drive::Drive};
use crate::error::InvokeError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use neap_sdk::artifact::ArtifactKind;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};
use tokio::{sync::oneshot, task::JoinHandle};
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

/// A guest's response body, which lets the guest run on whenever it is asked for more.
pub(crate) struct DrivenBody {
    body: WasiBody,
    /// Shared with the guard alone, which acts only while nobody polls.
    drive: Arc<Mutex<Drive>>,
    kind: ArtifactKind,
    state: State,
    _guard: Option<Guard>,
}

/// Ends the guest when its time is up though the client has stopped reading, so that nobody drives it.
struct Guard(JoinHandle<()>);

impl Guard {
    fn new(drive: &Arc<Mutex<Drive>>, deadline: Instant) -> Self {
        let drive = Arc::downgrade(drive);
        Self(tokio::spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            if let Some(drive) = drive.upgrade() {
                lock(&drive).expire();
            }
        }))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock(drive: &Mutex<Drive>) -> MutexGuard<'_, Drive> {
    drive.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Frames may come.
    Streaming,
    /// The body is complete, and the guest works on.
    Complete,
    /// Nothing more comes.
    Ended,
}

impl DrivenBody {
    pub(crate) fn new(body: WasiBody, drive: Drive, kind: ArtifactKind) -> Self {
        let deadline = drive.deadline().filter(|_| drive.is_running());
        let drive = Arc::new(Mutex::new(drive));
        let guard = deadline.map(|deadline| Guard::new(&drive, deadline));
        Self { body, drive, kind, state: State::Streaming, _guard: guard }
    }

    /// Whether a guest that ends so may have left its body as it wanted it. A command may exit with whatever
    /// status once it has printed its response, as with any CGI server.
    fn is_good_end(&self, error: &InvokeError) -> bool {
        match error {
            InvokeError::Exited(status) => *status == 0 || self.kind == ArtifactKind::WasmModule,
            _ => false,
        }
    }

    /// The body's next frame. A guest that ended badly must not look like one whose body is complete.
    fn poll_streaming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let driven = lock(&self.drive).poll(cx);
        let frame = match (Pin::new(&mut self.body).poll_frame(cx), driven) {
            (Poll::Ready(Some(Ok(frame))), _) => {
                // There is room again. What the guest does with it now, it does before the frame is sent.
                let _ = lock(&self.drive).poll(cx);
                return Poll::Ready(Some(Ok(frame)));
            }
            (_, Poll::Ready(Err(error))) if !self.is_good_end(&error) => Err(error),
            (Poll::Ready(Some(Err(error))), _) => Err(InvokeError::Failed(error.to_string())),
            (Poll::Ready(None), _) => Ok(()),
            (Poll::Pending, _) => return Poll::Pending,
        };
        match frame {
            Ok(()) => {
                self.state = State::Complete;
                self.poll_complete(cx)
            }
            Err(error) => {
                self.state = State::Ended;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    /// The response is whole: however the guest ends now, the client has nothing to be told.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        lock(&self.drive).poll(cx).map(|_| {
            self.state = State::Ended;
            None
        })
    }
}

impl Body for DrivenBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.state {
            State::Streaming => self.poll_streaming(cx),
            State::Complete => self.poll_complete(cx),
            State::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The same response, and a future that is done when its body was taken to its end, or dropped.
pub(crate) fn watched(
    response: http::Response<WasiBody>,
) -> (http::Response<WasiBody>, impl Future<Output = ()> + Send + 'static) {
    let (sender, taken) = oneshot::channel();
    let response = response.map(|body| WatchedBody { body, taken: Some(sender) }.boxed_unsync());
    let taken = async {
        let _ = taken.await;
    };
    (response, taken)
}

struct WatchedBody {
    body: WasiBody,
    /// Its drop is the signal.
    taken: Option<oneshot::Sender<()>>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.taken = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Drives a guest: lets it run while it is polled, measures it, stops it in time, and says in what way it ended.

use crate::{
    cgi::CgiHead,
    error::InvokeError,
    meter::{Budget, Overrun},
};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};
use tokio::{sync::oneshot, time::Sleep};
use wasmtime_wasi_http::WasiBody;

pub(crate) type HeadSender = oneshot::Sender<Result<http::Response<WasiBody>, InvokeError>>;

type Work = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

/// A running guest, with its store inside the work it does. Dropping it ends the guest.
pub(crate) struct Drive {
    state: State,
    budget: Arc<Budget>,
    refused: Arc<AtomicBool>,
    /// Made when the guest waits for the first time; most never do.
    alarm: Option<Pin<Box<Sleep>>>,
}

enum State {
    Running(Work),
    Ended(Result<(), InvokeError>),
}

impl Drive {
    pub(crate) fn new(
        work: impl Future<Output = wasmtime::Result<()>> + Send + 'static,
        budget: Arc<Budget>,
        refused: Arc<AtomicBool>,
    ) -> Self {
        Self { state: State::Running(Box::pin(work)), budget, refused, alarm: None }
    }

    /// Lets the guest run on. Ready when it has ended, and again each time it is asked after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), InvokeError>> {
        let work = match &mut self.state {
            State::Running(work) => work,
            State::Ended(result) => return Poll::Ready(result.clone()),
        };
        let result = match self.budget.measure(|| work.as_mut().poll(cx)) {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => Err(self.explain(&error)),
            // The guest waits, or gave way: it may be late without a callback of its own having seen it.
            Poll::Pending if self.is_late(cx) => {
                self.stop();
                Err(InvokeError::Timeout(self.budget.limits.wall))
            }
            Poll::Pending => return Poll::Pending,
        };
        self.state = State::Ended(result.clone());
        Poll::Ready(result)
    }

    /// Whether the guest still runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// When the guest's time is up; `None` lies beyond what the clock can tell.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.budget.deadline
    }

    /// Ends a guest whose time is up while nobody asks for its response.
    pub(crate) fn expire(&mut self) {
        if self.is_running() {
            self.stop();
            self.state = State::Ended(Err(InvokeError::Timeout(self.budget.limits.wall)));
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.budget.deadline else { return false };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        alarm.as_mut().poll(cx).is_ready()
    }

    /// Ends a guest in the middle of its work; tearing it down counts as that.
    fn stop(&mut self) {
        let stopped = std::mem::replace(&mut self.state, State::Ended(Ok(())));
        if let State::Running(work) = stopped {
            self.budget.measure(|| drop(work));
        }
    }

    fn explain(&self, error: &wasmtime::Error) -> InvokeError {
        let limits = &self.budget.limits;
        if let Some(overrun) = error.downcast_ref::<Overrun>() {
            return match overrun {
                Overrun::Wall => InvokeError::Timeout(limits.wall),
                Overrun::Cpu => InvokeError::CpuExhausted(limits.cpu),
            };
        }
        if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return InvokeError::Exited(exit.0);
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return InvokeError::Busy;
        }
        // A guest whose wish for memory is refused aborts, which looks like any other trap.
        if self.refused.load(Relaxed) {
            return InvokeError::OutOfMemory { limit_bytes: limits.memory_bytes };
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => InvokeError::Trapped(trap.to_string()),
            None => InvokeError::Trapped(format!("{error:#}")),
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where the response head comes from.
pub(crate) enum Head {
    Component(oneshot::Receiver<Result<http::Response<WasiBody>, InvokeError>>),
    Cgi(CgiHead),
    /// There is none, though the guest may still run.
    Never,
}

impl Head {
    /// The head, if it is there; `None` if it will never be. To be asked after the guest was let run.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http::Response<WasiBody>, InvokeError>>> {
        let polled = match self {
            Self::Component(receiver) => Pin::new(receiver).poll(cx).map(Result::ok),
            Self::Cgi(head) => head.poll(cx),
            Self::Never => Poll::Ready(None),
        };
        if let Poll::Ready(None) = polled {
            *self = Self::Never;
        }
        polled
    }
}

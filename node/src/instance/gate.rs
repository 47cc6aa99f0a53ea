//! The door through which calls enter an instance: one atomic word, open or closed, and how many are inside.
//! Warm calls pay two atomic additions here and nothing else. Must not know why it is open or closed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

const OPEN: u64 = 1 << 63;

/// Open or closed, with the number of calls inside.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    word: AtomicU64,
    empty: Notify,
}

/// The right to be inside; leaving is dropping it.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Gate>);

impl Gate {
    /// Enters, if the gate is open.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let enter = |word: u64| (word & OPEN != 0).then_some(word + 1);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok()?;
        Some(Ticket(self.clone()))
    }

    pub(crate) fn open(&self) {
        self.word.fetch_or(OPEN, Ordering::AcqRel);
    }

    pub(crate) fn close(&self) {
        self.word.fetch_and(!OPEN, Ordering::AcqRel);
    }

    /// Closes the gate only if nobody is inside and it is open: then nobody can have entered in between.
    pub(crate) fn close_if_empty(&self) -> bool {
        self.word.compare_exchange(OPEN, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Acquire) & !OPEN).unwrap_or(u32::MAX)
    }

    /// Waits until nobody is inside; only sensible once it is closed.
    pub(crate) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.inside() == 0 {
                return;
            }
            empty.await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Exactly the last one out of a closed gate sees 1; an open gate has nobody who waits.
        if self.0.word.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_one();
        }
    }
}

//! Stopping without losing a request: nobody new, whoever is in finishes, then the instances go.

use crate::scheduler::Scheduler;
use futures_util::future::join_all;
use neap_sdk::limits;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether requests still run.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

impl Scheduler {
    /// Refuses new requests with `draining`, waits until those that run or wait have ended, at most for `patience`, and
    /// stops every instance. Idempotent. Afterwards the store is at rest.
    pub async fn drain(&self, patience: Duration) {
        let inner = &self.inner;
        let deadline = Instant::now() + patience;
        inner.live().drain();
        while !self.is_quiet() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        inner.stopping.cancel();
        inner.shared.close_starts();
        inner.shared.tasks.close();
        let instances = inner.shared.fleet.instances();
        let stops = instances.iter().map(|running| inner.shared.fleet.stop(running.instance));
        let all = async {
            join_all(stops).await;
            inner.shared.tasks.wait().await;
            inner.store.close().await;
        };
        let stop_patience = Duration::from_millis(limits::STOP_GRACE_MS * 2);
        if tokio::time::timeout(stop_patience, all).await.is_err() {
            let left = inner.shared.fleet.instances().len();
            tracing::error!(left, "some instances did not stop in time");
        }
    }

    fn is_quiet(&self) -> bool {
        self.inner.live().targets().all(|target| target.is_quiet())
    }
}

//! The loop that makes what is follow what is wanted. Level-triggered: every wake-up (a target that asks for a look, as
//! after a change of the store, an instance that ended, a release, a timer) leads to the same look at the targets concerned, and a
//! missed one is made up for by the next.
//!
//! Two tasks on the control runtime, this loop and the store's watch; both end with [`Inner::stopping`]. Decides nothing: targets and the autoscaler do.

use crate::{
    error::with_causes,
    fleet::{ExitEvent, InstanceExit},
    scheduler::{Inner, Scheduler},
    store::StoreError,
    target::Target,
};
use futures_util::StreamExt as _;
use neap_sdk::{InstanceId, RevisionId};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Pause before a store whose watch failed is asked again.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// Runs until the scheduler stops.
pub(crate) async fn run(scheduler: Scheduler) {
    let inner = scheduler.inner;
    let mut exits = inner.shared.fleet.exits();
    let mut releases = inner.admissions.changes();
    let mut looks = Looks::default();
    // What ended, or changed, before this loop listened.
    reconcile(&inner, &mut looks);
    loop {
        let next = looks.look(&inner);
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.shared.awake.notified() => {}
            () = sleep_until(next) => {}
            Some(event) = exits.next() => match event {
                ExitEvent::Ended(exit) => ended(&inner, &exit, &mut looks),
                ExitEvent::Lost => reconcile(&inner, &mut looks),
            },
            Some(()) = releases.next() => inner.live().targets().for_each(|target| target.forgive()),
        }
    }
}

/// The targets that there is something to look at, and when.
#[derive(Default)]
struct Looks {
    due: HashMap<RevisionId, (Instant, Arc<Target>)>,
}

impl Looks {
    fn add(&mut self, target: Arc<Target>) {
        self.due.insert(target.revision.clone(), (Instant::now(), target));
    }

    /// Looks at whatever is due or asks for it; answers when the next look is due.
    fn look(&mut self, inner: &Inner) -> Option<Instant> {
        for target in inner.shared.take_attention() {
            self.add(target);
        }
        let now = Instant::now();
        self.due.retain(|_, (due, target)| {
            if *due > now {
                return true;
            }
            let again = target.look(now);
            if let Some(again) = again {
                *due = again;
            }
            again.is_some()
        });
        self.due.values().map(|(due, _)| *due).min()
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ended(inner: &Inner, exit: &InstanceExit, looks: &mut Looks) {
    let target = inner.live().target(&exit.revision).map(Arc::clone);
    // A retired revision's instance has no live target, but may still be looked at.
    let target = target.or_else(|| looks.due.get(&exit.revision).map(|(_, target)| Arc::clone(target)));
    if let Some(target) = target {
        target.exited(exit);
        looks.add(target);
    }
}

/// Compares everything that is thought to be up with what is.
fn reconcile(inner: &Inner, looks: &mut Looks) {
    let running = inner.shared.fleet.instances();
    let ids: HashSet<InstanceId> = running.iter().map(|instance| instance.instance).collect();
    for target in inner.live().targets() {
        target.reconcile(|instance| ids.contains(&instance));
        looks.add(Arc::clone(target));
    }
}

/// Applies what others, or a change whose task was lost, wrote to the store. A task of its own, because reading what
/// changed takes a while and must not be begun again for each wake-up.
pub(crate) async fn follow_store(scheduler: Scheduler) {
    let inner = scheduler.inner;
    let following = async {
        loop {
            let error = follow(&inner).await;
            tracing::warn!(error = %with_causes(&error), "the store's watch broke off; everything is read again");
            if let Err(error) = inner.reload().await {
                let error = with_causes(&error);
                tracing::error!(error, "the desired state cannot be read; the last known one is kept");
            }
            tokio::time::sleep(WATCH_RETRY).await;
        }
    };
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = following => {}
    }
}

/// Follows the store until its watch breaks off; answers why.
async fn follow(inner: &Inner) -> StoreError {
    let from = inner.live().cluster().revision() + 1;
    let mut watch = match inner.store.watch("/", from).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        match watch.next().await {
            Ok(events) => inner.apply(&events.into_iter().map(Into::into).collect::<Vec<_>>()),
            Err(error) => return error,
        }
    }
}

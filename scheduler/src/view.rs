//! What the admin API shows of functions: the desired state and what is known of the instances, in one picture.

use crate::{
    cluster::{ClusterError, Function, FunctionKey},
    live::Live,
    queue::{Member, MemberState},
    scheduler::Scheduler,
    target::unix_ms,
};
use neap_sdk::{
    TenantName,
    api::{FunctionView, InstanceView, RevisionView},
};
use std::sync::{Arc, atomic::Ordering};

const HTTP_PORT: u16 = 80;

impl Scheduler {
    /// One function.
    ///
    /// # Errors
    /// [`ClusterError::NoFunction`].
    pub fn function(&self, key: &FunctionKey) -> Result<FunctionView, ClusterError> {
        let live = self.inner.live();
        let function = live.cluster().function(key)?;
        Ok(self.view(&live, key, function))
    }

    /// Completes once there is no such function: at once where there is none now.
    pub(crate) fn left(&self, key: FunctionKey) -> impl Future<Output = ()> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let mut changes = inner.changed.subscribe();
            while inner.live().cluster().function(&key).is_ok() {
                // The sender lives in `inner`.
                let _ = changes.changed().await;
            }
        }
    }

    /// Every function of a tenant, by name.
    pub fn functions(&self, tenant: &TenantName) -> Vec<FunctionView> {
        let live = self.inner.live();
        let own = live.cluster().functions().filter(|(key, _)| key.tenant == *tenant);
        own.map(|(key, function)| self.view(&live, key, function)).collect()
    }

    fn view(&self, live: &Live, key: &FunctionKey, function: &Function) -> FunctionView {
        let host = live.cluster().default_host(key);
        let url = match self.inner.port.load(Ordering::Relaxed) {
            HTTP_PORT => format!("http://{host}/"),
            port => format!("http://{host}:{port}/"),
        };
        let revisions = function.revisions.values().rev().map(|revision| {
            let snapshot = live.target(&key.revision(revision.number)).map(|target| target.snapshot());
            let (members, starting, queued, failure) = match snapshot {
                Some(seen) => (seen.members, seen.starting, seen.queued, seen.failure),
                None => (Vec::new(), 0, 0, None),
            };
            let mut instances: Vec<InstanceView> = members.iter().map(instance).collect();
            instances.extend((0..starting).map(|_| starting_instance()));
            RevisionView {
                number: revision.number,
                digest: revision.digest,
                kind: revision.kind,
                spec: (*revision.spec).clone(),
                verdict: revision.verdict.clone(),
                created_at_ms: revision.created_at_ms,
                instances,
                queued,
                failure: failure.map(|text| text.to_string()),
            }
        });
        FunctionView {
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            url,
            traffic: function.traffic.clone(),
            revisions: revisions.collect(),
        }
    }
}

fn instance(member: &Member) -> InstanceView {
    let state = match member.state {
        MemberState::Ready | MemberState::Freezing => "ready",
        MemberState::Frozen | MemberState::Thawing => "frozen",
        MemberState::Draining | MemberState::Stopping => "draining",
    };
    InstanceView {
        id: member.id.to_string(),
        state: state.to_owned(),
        in_flight: member.in_flight,
        started_at_ms: member.started_at_ms,
        start_us: member.start_us,
        pid: member.pid,
    }
}

/// An instance that has no id yet: its node gives it one when it is up.
fn starting_instance() -> InstanceView {
    InstanceView {
        id: "-".to_owned(),
        state: "starting".to_owned(),
        in_flight: 0,
        started_at_ms: unix_ms(),
        start_us: None,
        pid: None,
    }
}

//! What the node counts about itself, for Prometheus. Labels are closed sets: never a function or a tenant.

use crate::{instance::State, meter::LedgerCounters};
use neap_sdk::artifact::ArtifactKind;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::time::Duration;

/// From 100 µs, where a loaded Wasm program starts, to 26 s, beyond which a start has long failed.
fn cold_start_histogram() -> Histogram {
    Histogram::new(exponential_buckets(100e-6, 2.0, 19))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// The node's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    instances: Family<StateLabel, Gauge>,
    cold_starts: Family<KindLabel, Histogram>,
    pub(crate) ledger: LedgerCounters,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            instances: Family::default(),
            cold_starts: Family::new_with_constructor(cold_start_histogram),
            ledger: LedgerCounters::default(),
        };
        registry.register("neap_instances", "Instances by state", metrics.instances.clone());
        registry.register(
            "neap_cold_start_duration_seconds",
            "Time from the order to start an instance until it takes calls",
            metrics.cold_starts.clone(),
        );
        registry.register("neap_ledger_records", "Usage records written", metrics.ledger.records.clone());
        registry.register(
            "neap_ledger_errors",
            "Usage records that could not be written, and other failures of the ledger",
            metrics.ledger.errors.clone(),
        );
        // So that the series exist before the first instance does.
        for state in State::LIVING {
            let _ = metrics.instances.get_or_create(&StateLabel { state: state.name() });
        }
        metrics
    }

    /// An instance came to be.
    pub(crate) fn entered(&self, state: &State) {
        self.instances.get_or_create(&StateLabel { state: state.name() }).inc();
    }

    /// An instance changed its state.
    pub(crate) fn moved(&self, from: &State, to: &State) {
        self.forgotten(from);
        self.entered(to);
    }

    /// An instance is no more.
    pub(crate) fn forgotten(&self, state: &State) {
        self.instances.get_or_create(&StateLabel { state: state.name() }).dec();
    }

    /// A start worked and took so long.
    pub(crate) fn started(&self, kind: ArtifactKind, took: Duration) {
        self.cold_starts.get_or_create(&KindLabel { kind: kind.to_string() }).observe(took.as_secs_f64());
    }
}

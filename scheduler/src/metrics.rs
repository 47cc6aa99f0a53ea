//! What the scheduler counts. Every label is a closed set, so that no user can make the number of series grow.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::fmt::{self, Write as _};

/// What the autoscaler did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scaling {
    Up,
    Down,
    Zero,
    Freeze,
    Thaw,
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Deployed,
    Unchanged,
    Refused,
    StartFailed,
    Failed,
}

impl EncodeLabelValue for Scaling {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Zero => "zero",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        })
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Deployed => "deployed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::StartFailed => "start_failed",
            Self::Failed => "failed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScalingLabel {
    decision: Scaling,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// The scheduler's metrics; clones count into the same series.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    queue_depth: Gauge,
    decisions: Family<ScalingLabel, Counter>,
    deploys: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    /// Metrics under their public names.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "neap_queue_depth",
            "Requests that wait for an instance",
            metrics.queue_depth.clone(),
        );
        registry.register(
            "neap_autoscaler_decisions",
            "Changes of the number of instances",
            metrics.decisions.clone(),
        );
        registry.register("neap_deploys", "Deployments by outcome", metrics.deploys.clone());
        metrics
    }

    /// The queue grew or shrank.
    pub fn queue_changed(&self, by: i64) {
        if by != 0 {
            self.queue_depth.inc_by(by);
        }
    }

    /// The autoscaler changed something.
    pub fn scaled(&self, decision: Scaling) {
        self.decisions.get_or_create(&ScalingLabel { decision }).inc();
    }

    /// A deployment ended.
    pub fn deployed(&self, outcome: Outcome) {
        self.deploys.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

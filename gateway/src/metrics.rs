//! What the gateway counts. A core looks a function's series up once and keeps the handles, so that the warm path
//! touches a few atomics and one uncontended lock. Label values are bounded; they never come from a request.

use neap_sdk::{
    id::{FunctionName, TenantName},
    limits,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the latency buckets, in seconds: from a warm Wasm call to the longest usual timeout.
const BUCKETS_S: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// Label values that no function's name can have, because names hold no underscore.
pub(crate) const SYSTEM: &str = "_system";
const UNROUTED: &str = "_unrouted";
const OTHER: &str = "_other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    code_class: &'static str,
}

/// The series, shared by all cores.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    /// Requests that are being answered.
    pub(crate) in_flight: Gauge,
    /// Open connections.
    pub(crate) connections: Gauge,
    functions: Arc<Mutex<HashSet<String>>>,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS_S)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            functions: Arc::default(),
        };
        registry.register("neap_requests", "Requests that were answered", metrics.requests.clone());
        registry.register(
            "neap_request_duration_seconds",
            "From the request's head to the end of the response",
            metrics.durations.clone(),
        );
        registry.register("neap_requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register("neap_connections", "Open client connections", metrics.connections.clone());
        metrics
    }

    fn series(&self, label: &str) -> Rc<FunctionMetrics> {
        Rc::new(FunctionMetrics {
            label: label.to_owned(),
            requests: self.requests.clone(),
            by_class: Default::default(),
            duration: self.durations.get_or_create_owned(&FunctionLabel { function: label.to_owned() }),
        })
    }

    /// The name under which a function is counted: its own while there is room.
    fn admit(&self, label: String) -> String {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.contains(&label) {
            return label;
        }
        if functions.len() >= limits::METRIC_FUNCTIONS_MAX {
            return OTHER.to_owned();
        }
        functions.insert(label.clone());
        label
    }
}

/// One core's handles.
#[derive(Debug)]
pub(crate) struct CoreMetrics {
    shared: Metrics,
    /// Requests for the plain host.
    pub(crate) system: Rc<FunctionMetrics>,
    /// Requests that no route took.
    pub(crate) unrouted: Rc<FunctionMetrics>,
    functions: RefCell<HashMap<TenantName, HashMap<FunctionName, Rc<FunctionMetrics>>>>,
}

impl CoreMetrics {
    /// Handles for one core.
    pub(crate) fn new(shared: Metrics) -> Self {
        let (system, unrouted) = (shared.series(SYSTEM), shared.series(UNROUTED));
        Self { shared, system, unrouted, functions: RefCell::default() }
    }

    /// The gauges.
    pub(crate) fn shared(&self) -> &Metrics {
        &self.shared
    }

    /// A function's handles.
    pub(crate) fn function(&self, tenant: &TenantName, function: &FunctionName) -> Rc<FunctionMetrics> {
        let mut functions = self.functions.borrow_mut();
        if let Some(found) = functions.get(tenant).and_then(|of_tenant| of_tenant.get(function)) {
            return Rc::clone(found);
        }
        // Functions come and go; what is kept of them here is a cache.
        if functions.values().map(HashMap::len).sum::<usize>() >= 2 * limits::METRIC_FUNCTIONS_MAX {
            functions.clear();
        }
        let label = match *tenant == TenantName::default() {
            true => function.to_string(),
            false => format!("{tenant}/{function}"),
        };
        let made = self.shared.series(&self.shared.admit(label));
        functions.entry(tenant.clone()).or_default().insert(function.clone(), Rc::clone(&made));
        made
    }
}

/// The series of one function.
#[derive(Debug)]
pub(crate) struct FunctionMetrics {
    label: String,
    requests: Family<RequestLabels, Counter>,
    by_class: [OnceCell<Counter>; 5],
    duration: Histogram,
}

impl FunctionMetrics {
    /// The label's value.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Counts one request that has ended.
    pub(crate) fn ended(&self, status: u16, took: Duration) {
        const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        let made = || {
            let labels = RequestLabels { function: self.label.clone(), code_class: CLASSES[class] };
            self.requests.get_or_create_owned(&labels)
        };
        self.by_class[class].get_or_init(made).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_beyond_the_limit_share_one_series() {
        let mut registry = Registry::default();
        let core = CoreMetrics::new(Metrics::register(&mut registry));
        let tenant = TenantName::default();
        for number in 0..limits::METRIC_FUNCTIONS_MAX + 7 {
            let name = format!("f{number}").parse().expect("name");
            core.function(&tenant, &name).ended(200, Duration::from_micros(70));
        }
        let other = "b".parse().expect("name");
        core.function(&"acme".parse().expect("name"), &other).ended(503, Duration::from_secs(1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(text.contains(r#"neap_requests_total{function="f0",code_class="2xx"} 1"#), "{text}");
        assert!(text.contains(r#"neap_requests_total{function="_other",code_class="2xx"} 7"#));
        assert!(text.contains(r#"neap_requests_total{function="_other",code_class="5xx"} 1"#));
        assert!(text.contains(r#"neap_request_duration_seconds_bucket{le="0.00005",function="f0"} 0"#));
        assert!(text.contains(r#"neap_request_duration_seconds_bucket{le="0.0001",function="f0"} 1"#));
    }
}

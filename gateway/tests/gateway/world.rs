//! A gateway on a free port, over a scheduler with three functions: `hello`, `broken` (never starts) and `full`
//! (one instance, one request at a time).

use crate::{client::Client, guest::Guests};
use http::Response;
use http_body_util::{BodyExt, Full};
use neap_gateway::{BindError, Body, Gateway, GatewaySettings, SystemService};
use neap_scheduler::Scheduler;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Everything that a test needs; what is left of it ends when it is dropped.
pub struct World {
    gateway: Option<Gateway>,
    address: SocketAddr,
    scheduler: Scheduler,
    guests: Arc<Guests>,
    metrics: Registry,
    _dir: TempDir,
}

impl World {
    /// With default settings, on two cores.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings.
    pub async fn with(change: impl FnOnce(&mut GatewaySettings)) -> Self {
        let guests = Arc::new(Guests::new());
        let mut metrics = Registry::default();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let scheduler =
            crate::guest::scheduler(Arc::clone(&guests), dir.path().to_owned(), &mut metrics).await;
        let listen = "127.0.0.1:0".parse().expect("address");
        let mut settings = GatewaySettings { cores: 2, ..GatewaySettings::new(listen, Handle::current()) };
        change(&mut settings);
        let gateway =
            Gateway::bind(settings, scheduler.clone(), system(), &mut metrics).expect("a free port");
        let address = gateway.local_addr();
        Self { gateway: Some(gateway), address, scheduler, guests, metrics, _dir: dir }
    }

    /// A second gateway at the same address.
    pub fn bind_again(&self) -> Result<Gateway, BindError> {
        let settings = GatewaySettings::new(self.address, Handle::current());
        Gateway::bind(settings, self.scheduler.clone(), system(), &mut Registry::default())
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub fn take_gateway(&mut self) -> Gateway {
        self.gateway.take().expect("it was not taken yet")
    }

    /// Calls that reached a function.
    pub fn began(&self) -> usize {
        self.guests.began.load(SeqCst)
    }

    /// Calls that were given up.
    pub fn cancelled(&self) -> usize {
        self.guests.cancelled.load(SeqCst)
    }

    /// Lets one call to `/gate` end, now or when it comes.
    pub fn open_gate(&self) {
        self.guests.gate.add_permits(1);
    }

    /// The next call to `/flaky` finds its instance gone.
    pub fn break_next_call(&self) {
        self.guests.flaws.store(1, SeqCst);
    }

    /// The value of one series, by its name with labels.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let mut text = String::new();
        encode(&mut text, &self.metrics).expect("encodes");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().expect("a number"))
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < crate::client::PATIENCE, "waited too long for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Answers for the plain host: `/upload` gives the request's body back, `/panic` breaks.
fn system() -> SystemService {
    Arc::new(|request| {
        Box::pin(async move {
            let body: Body = match request.uri().path() {
                "/upload" => request.into_body().map_err(Into::into).boxed_unsync(),
                "/panic" => panic!("as the test asked"),
                _ => Full::from("system").map_err(|never| match never {}).boxed_unsync(),
            };
            Response::new(body)
        })
    })
}

//! Serves an empty registry on loopback until it is killed: what `tests/conformance.sh` and other clients run
//! against. Not a product: `neap up` is. It admits nothing.
//!
//! `serve DIR [ADDRESS]` prints the address that it listens on.

use axum::serve;
use futures_util::future::BoxFuture;
use neap_registry::{Preparer, Registry, RegistrySettings, Release};
use neap_sdk::{ErrorCode, admission::Reason};
use std::{error::Error, sync::Arc};

struct NothingRuns;

impl Preparer for NothingRuns {
    fn prepare<'a>(&'a self, _: &'a Release) -> BoxFuture<'a, Result<(), Reason>> {
        let text = "this example only stores".to_owned();
        Box::pin(async { Err(Reason { code: ErrorCode::Unsupported, text }) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: serve DIR [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let registry = Registry::open(RegistrySettings::new(dir), Arc::new(NothingRuns)).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(serve(listener, registry.router()).await?)
}

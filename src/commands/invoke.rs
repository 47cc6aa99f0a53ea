//! `neap invoke`: one request through the gateway, as any client would send it. The body goes to stdout as it comes.

use crate::{
    cli::InvokeArgs,
    config::Server,
    exit::{Failure, Outcome},
    output,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use neap_sdk::{ErrorCode, FunctionName, TenantName, error::exit};
use std::{io::Read as _, net::SocketAddr, process::ExitCode};

/// Ends with 0 for a status below 400, else with the exit code of neap's own error, or 1 for the function's.
pub async fn run(args: &InvokeArgs, server: &Server) -> Outcome {
    let gateway = server.gateway(&server.client()?).await?;
    let request = request(args, &host(&args.name, &server.tenant, gateway))?;
    let response = send(gateway, request).await?;
    let code = outcome(&response);
    if args.include {
        output::say(format!("{:?} {}", response.version(), response.status()));
        for (name, value) in response.headers() {
            output::say(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::failed("the response broke off", &error))?;
        if let Some(data) = frame.data_ref() {
            output::bytes(data)?;
        }
    }
    Ok(ExitCode::from(code))
}

/// The host name that leads to a function through the gateway at `gateway`.
pub fn host(name: &FunctionName, tenant: &TenantName, gateway: SocketAddr) -> String {
    let port = gateway.port();
    if *tenant == TenantName::default() {
        format!("{name}.localhost:{port}")
    } else {
        format!("{name}.{tenant}.localhost:{port}")
    }
}

/// Sends one request on a connection of its own.
pub async fn send(gateway: SocketAddr, request: Request<Full<Bytes>>) -> Outcome<Response<Incoming>> {
    let unreachable = |cause: &dyn std::error::Error| {
        Failure::new(exit::UNREACHABLE, format!("the gateway at {gateway} does not answer")).because(cause)
    };
    let stream = tokio::net::TcpStream::connect(gateway).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(&error))?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

fn request(args: &InvokeArgs, host: &str) -> Outcome<Request<Full<Bytes>>> {
    let body = match args.data.as_deref() {
        None => Bytes::new(),
        Some("@-") => {
            let mut data = Vec::new();
            std::io::stdin()
                .read_to_end(&mut data)
                .map_err(|error| Failure::failed("stdin cannot be read", &error))?;
            data.into()
        }
        Some(text) => match text.strip_prefix('@') {
            None => Bytes::copy_from_slice(text.as_bytes()),
            Some(path) => std::fs::read(path)
                .map_err(|error| Failure::new(exit::USAGE, format!("{path} cannot be read")).because(&error))?
                .into(),
        },
    };
    let method =
        args.method.clone().unwrap_or_else(|| if args.data.is_some() { "POST" } else { "GET" }.to_owned());
    let path = if args.path.starts_with('/') { args.path.clone() } else { format!("/{}", args.path) };
    let mut request = Request::builder()
        .method(method.as_str())
        .uri(&path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("neap/", env!("CARGO_PKG_VERSION")));
    for text in &args.header {
        let (name, value) = parse_header(text)?;
        request = request.header(name, value);
    }
    request
        .body(Full::new(body))
        .map_err(|error| Failure::usage(format!("{method} {path} is no request")).because(&error))
}

fn parse_header(text: &str) -> Outcome<(HeaderName, HeaderValue)> {
    let parts = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
    });
    parts.ok_or_else(|| Failure::usage(format!("{text:?} is not a header like \"Accept: text/plain\"")))
}

fn outcome(response: &Response<Incoming>) -> u8 {
    if response.status().as_u16() < 400 {
        return exit::OK;
    }
    let code = response.headers().get("x-neap-error").and_then(|value| value.to_str().ok());
    let known = code.and_then(|name| ErrorCode::ALL.iter().find(|code| code.name() == name));
    known.map_or(exit::FAILED, |code| code.exit_code())
}

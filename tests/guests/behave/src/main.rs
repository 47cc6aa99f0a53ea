//! A `wasi:http` 0.2 component that behaves as its path says; what a number means stands in the query.
//! It is the hostile neighbour of the tests: it spins, grows, traps and keeps silent when it is told to.

use futures_lite::stream;
use neap_sdk::guest::{__private::wasip2, *};
use std::hint::black_box;

struct Behave;

impl wasip2::exports::http::incoming_handler::Guest for Behave {
    fn handle(
        request: wasip2::http::types::IncomingRequest,
        response: wasip2::http::types::ResponseOutparam,
    ) {
        // The one thing that cannot be said through an async function: no answer at all.
        if request.path_with_query().as_deref() == Some("/no-response") {
            return drop(response);
        }
        neap_sdk::guest::__private::handle(request, response, behave);
    }
}

wasip2::http::proxy::export!(Behave with_types_in wasip2);

fn main() {}

type Answer = Result<Response<Body>, Error>;

fn text(text: impl Into<String>) -> Answer {
    Ok(Response::builder().header("content-type", "text/plain").body(text.into().into())?)
}

async fn behave(request: Request<Body>) -> Answer {
    let number = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0_u64);
    match request.uri().path() {
        "/" => text("hello\n"),
        "/echo" => Ok(Response::new(request.into_body())),
        "/headers" => headers(&request),
        "/env" => text(std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect::<String>()),
        "/log" => {
            println!("to stdout");
            eprintln!("to stderr");
            text("logged\n")
        }
        "/sleep" => {
            sleep(Duration::from_millis(number)).await;
            text("slept\n")
        }
        "/big" => Ok(Response::new(big(number))),
        "/tick" => Ok(Response::new(ticking(number))),
        "/fetch" => fetch(request.uri().query().unwrap_or_default()).await,
        "/spin" => spin(),
        "/spin-late" => Ok(Response::new(then(spin))),
        "/trap" => trap(),
        "/trap-late" => Ok(Response::new(then(trap))),
        "/grow" => grow(),
        "/exit" => std::process::exit(3),
        "/fail" => Err(Error::msg("told to fail")),
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such behaviour\n".into())?),
    }
}

fn headers(request: &Request<Body>) -> Answer {
    let uri = request.uri();
    let mut lines = format!(
        "method {}\nscheme {}\nauthority {}\npath {}\n",
        request.method(),
        uri.scheme_str().unwrap_or("-"),
        uri.authority().map_or("-", |authority| authority.as_str()),
        uri.path_and_query().map_or("-", |path| path.as_str()),
    );
    for (name, value) in request.headers() {
        lines.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text(lines)
}

/// `bytes` bytes in pieces of 64 KiB.
fn big(bytes: u64) -> Body {
    Body::from_stream(stream::unfold(bytes, |left| async move {
        let piece = left.min(64 << 10);
        (piece > 0).then(|| (Bytes::from(vec![b'x'; piece as usize]), left - piece))
    }))
}

/// One line every `ms` milliseconds for ever; each also goes to the log.
fn ticking(ms: u64) -> Body {
    Body::from_stream(stream::unfold(0_u64, move |count| async move {
        sleep(Duration::from_millis(ms)).await;
        println!("tick {count}");
        Some((Bytes::from(format!("{count}\n")), count + 1))
    }))
}

/// A piece of body, and then whatever `what` does.
fn then(what: fn() -> Answer) -> Body {
    Body::from_stream(stream::unfold(0, move |count| async move {
        if count == 1 {
            sleep(Duration::from_millis(20)).await;
            let _ = what();
        }
        Some((Bytes::from_static(b"first\n"), count + 1))
    }))
}

async fn fetch(url: &str) -> Answer {
    match Client::new().send(Request::get(url).body(Body::empty())?).await {
        Ok(answer) => Ok(Response::builder().status(answer.status()).body(answer.into_body())?),
        Err(error) => match error.downcast_ref::<ErrorCode>() {
            Some(code) => text(format!("refused: {code:?}\n")),
            None => text(format!("failed: {error:?}\n")),
        },
    }
}

fn spin() -> Answer {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn trap() -> Answer {
    core::arch::wasm32::unreachable()
}

fn grow() -> Answer {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; 1 << 20]));
    }
}

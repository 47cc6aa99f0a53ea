//! A `wasi:http` 0.3 component that behaves as its path says: streams, late work, outgoing requests.

use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Behave;

wasip3::http::service::export!(Behave);

impl wasip3::exports::http::handler::Guest for Behave {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        match path {
            "/echo" => Ok(echo(request)),
            "/headers" => Ok(text(format!(
                "scheme {:?}\nauthority {:?}\npath {path}\n",
                request.get_scheme(),
                request.get_authority()
            ))),
            "/fetch" => fetch(query).await,
            "/fail" => Err(ErrorCode::InternalError(Some("told to fail".into()))),
            "/trap" => core::arch::wasm32::unreachable(),
            "/spin" => loop {
                core::hint::black_box(());
            },
            "/log" => {
                println!("to stdout");
                eprintln!("to stderr");
                Ok(text("logged\n".into()))
            }
            "/after" => {
                let answer = text("done\n".into());
                wit_bindgen::spawn_local(async {
                    wasip3::clocks::monotonic_clock::wait_for(30_000_000).await;
                    println!("after the response");
                });
                Ok(answer)
            }
            _ => Ok(text("hello from 0.3\n".into())),
        }
    }
}

fn text(text: String) -> Response {
    let (mut sender, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(body), trailers);
    wit_bindgen::spawn_local(async move {
        sender.write_all(text.into_bytes()).await;
    });
    response
}

fn echo(request: Request) -> Response {
    let (_, result) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, result);
    Response::new(Fields::new(), Some(body), trailers).0
}

/// `authority/path` over plain HTTP, streamed back.
async fn fetch(url: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(&format!("/{path}")));
    match wasip3::http::client::send(request).await {
        Ok(answer) => {
            let (_, result) = wit_future::new(|| Ok(()));
            let (body, trailers) = Response::consume_body(answer, result);
            Ok(Response::new(Fields::new(), Some(body), trailers).0)
        }
        Err(code) => Ok(text(format!("refused: {code:?}\n"))),
    }
}

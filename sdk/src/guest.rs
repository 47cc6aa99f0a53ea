//! What a Wasm function is written with: an async function from request to response, and [`serve!`].
//!
//! ```ignore
//! use neap_sdk::guest::*;
//!
//! async fn hello(_request: Request<Body>) -> Result<Response<Body>, Error> {
//!     Ok(Response::new("hello\n".into()))
//! }
//!
//! serve!(hello);
//! ```
//!
//! Builds for `wasm32-wasip2` only. It adds nothing of neap's own: the component that comes out exports
//! `wasi:http/incoming-handler` and runs on any host of that interface.

#[doc(inline)]
pub use crate::serve;
pub use wstd::http::{
    Body, Client, Error, ErrorCode, HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
    StatusCode, Uri,
    body::{Bytes, Frame, HttpBody},
};
pub use wstd::{task::sleep, time::Duration};

/// Exports an `async fn(Request<Body>) -> Result<Response<Body>, Error>` as the component's HTTP handler.
///
/// The function runs once per request, in an instance of its own. An `Err` before the response is a failed
/// invocation (502); once the head is sent, a body that fails cuts the response short.
#[macro_export]
macro_rules! serve {
    ($handler:path) => {
        struct __NeapHandler;

        impl $crate::guest::__private::wasip2::exports::http::incoming_handler::Guest for __NeapHandler {
            fn handle(
                request: $crate::guest::__private::wasip2::http::types::IncomingRequest,
                response: $crate::guest::__private::wasip2::http::types::ResponseOutparam,
            ) {
                $crate::guest::__private::handle(request, response, $handler)
            }
        }

        $crate::guest::__private::wasip2::http::proxy::export!(
            __NeapHandler with_types_in $crate::guest::__private::wasip2
        );

        // A binary must have one; the host calls the exported handler instead.
        fn main() {
            eprintln!("this component answers HTTP requests; it has no command to run")
        }
    };
}

/// For [`serve!`] alone; may change with any version.
#[doc(hidden)]
pub mod __private {
    use super::{Body, Error, Request, Response};
    use wasip2::http::types::{IncomingRequest, ResponseOutparam};
    pub use wstd::__internal::wasip2;

    /// Runs `handler` on one request and writes out what it answers.
    pub fn handle<F>(
        request: IncomingRequest,
        response: ResponseOutparam,
        handler: impl FnOnce(Request<Body>) -> F,
    ) where
        F: Future<Output = Result<Response<Body>, Error>>,
    {
        let responder = wstd::http::server::Responder::new(response);
        wstd::runtime::block_on(async {
            let answer = match wstd::http::request::try_from_incoming(request) {
                Ok(request) => handler(request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    if let Err(error) = responder.respond(answer).await {
                        eprintln!("the response was cut short: {error:#}");
                    }
                }
                Err(error) => responder.fail(error),
            }
        });
    }
}

//! Fetches the URL in `?url=`, or else in the environment variable `URL`, and streams the answer back.
//! The URL's host must be granted to the function: `outbound_hosts` in its spec.

use neap_sdk::guest::*;

async fn fetch(request: Request<Body>) -> Result<Response<Body>, Error> {
    let asked = request.uri().query().and_then(|query| query.strip_prefix("url=")).map(str::to_owned);
    let Some(url) = asked.or_else(|| std::env::var("URL").ok()) else {
        return Ok(Response::builder()
            .status(StatusCode::BAD_REQUEST)
            .body("name a URL: ?url=http://…\n".into())?);
    };
    let answer = Client::new().send(Request::get(url.as_str()).body(Body::empty())?).await;
    match answer {
        Ok(answer) => Ok(Response::builder().status(answer.status()).body(answer.into_body())?),
        Err(error) => Ok(Response::builder()
            .status(StatusCode::BAD_GATEWAY)
            .body(format!("{url}: {error}\n").into())?),
    }
}

serve!(fetch);

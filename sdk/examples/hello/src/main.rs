//! The smallest function: greets whoever `?name=` names, and the world otherwise.

use neap_sdk::guest::*;

async fn hello(request: Request<Body>) -> Result<Response<Body>, Error> {
    let name = request.uri().query().and_then(|query| query.strip_prefix("name=")).unwrap_or("world");
    Ok(Response::new(format!("hello, {name}\n").into()))
}

serve!(hello);

//! Who may do what: tokens, challenges, and a platform's own rule.

use crate::harness::{Scripted, Server, basic, error_code, header, http, repository, tag};
use neap_registry::{
    access::{Access, Denied, Operation, Token},
    client::{ClientError, RegistryClient, no_progress},
    package,
};
use std::sync::Arc;

#[tokio::test]
async fn a_token_opens_the_registry_and_its_lack_is_a_challenge() {
    let server = Server::start_with(Access::Token(Token::new("s3cret")), Scripted(None)).await;
    let answer = http().get(server.url("/v2/")).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "www-authenticate")),
        (401, "Basic realm=\"neap\"")
    );
    assert_eq!(error_code(answer).await, "UNAUTHORIZED");

    let artifact = package::wasm(crate::harness::component(1)).expect("packaged");
    let push = async |password: &str| {
        let client = RegistryClient::new(&server.host, basic("me", password)).expect("a client");
        client.push(&repository("a"), Some(&tag("v1")), &artifact, no_progress()).await
    };
    assert!(matches!(push("wrong").await, Err(ClientError::Unauthorized(_))));
    assert_eq!(push("s3cret").await.expect("pushed"), artifact.digest);
    let anonymous = http().get(server.url("/v2/a/manifests/v1")).send().await.expect("an answer");
    assert_eq!(anonymous.status(), 401);
    let bearer =
        http().get(server.url("/v2/a/manifests/v1")).bearer_auth("s3cret").send().await.expect("an answer");
    assert_eq!(bearer.status(), 200);
}

#[tokio::test]
async fn a_platform_rule_sees_operation_and_repository() {
    let rule = |_: &http::request::Parts, operation: Operation, repository: Option<&_>| match operation {
        Operation::Ping | Operation::Push => Ok(()),
        _ if repository.is_some_and(|name: &neap_sdk::artifact::Repository| name.as_str() == "open") => {
            Ok(())
        }
        _ => Err(Denied::Forbidden("not yours".to_owned())),
    };
    let server = Server::start_with(Access::Check(Arc::new(rule)), Scripted(None)).await;
    let secret = server.push_blob("closed", b"secret").await;
    let get = server.url(&format!("/v2/closed/blobs/{secret}"));
    assert_eq!(error_code(http().get(&get).send().await.expect("an answer")).await, "DENIED");
    assert_eq!(http().delete(&get).send().await.expect("an answer").status(), 403);
    // Mounting is reading: it must not bring closed content into an open repository.
    let mount = server.url(&format!("/v2/open/blobs/uploads/?mount={secret}&from=closed"));
    assert_eq!(http().post(mount).send().await.expect("an answer").status(), 202);
    let get = server.url(&format!("/v2/open/blobs/{secret}"));
    assert_eq!(http().get(get).send().await.expect("an answer").status(), 404);
}

//! Who answers, and what each side gets to see.

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_to_functions_and_plain_hosts_to_the_system() {
    let world = World::new().await;
    let mut client = world.client().await;
    for host in ["hello.localhost", "Hello.LOCALHOST:8080", "hello.localhost."] {
        assert_eq!(client.get(host, "/").await.text(), "hello", "{host}");
    }
    let own = world.address().to_string();
    for host in ["localhost", "localhost:1", "127.0.0.1", "127.0.0.2:80", "[::1]:8080", &own] {
        assert_eq!(client.get(host, "/healthz").await.text(), "system", "{host}");
    }
    let problem = client.get("nobody.localhost", "/").await.problem(404, "no_route");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("neap ls")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("nobody.localhost")), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_id_and_says_where_its_time_went() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.send("GET /show HTTP/1.1\r\nHost: hello.localhost\r\nX-Request-Id: mine-1\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert!(answer.text().contains("x-request-id: mine-1\n"), "{}", answer.text());
    client.send("GET /hop HTTP/1.1\r\nHost: hello.localhost\r\nX-Request-Id: not valid\r\n\r\n").await;
    let answer = client.answer().await;
    let id = answer.header("x-request-id").expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");

    let timings: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "server-timing")
        .map(|(_, value)| &**value)
        .collect();
    let [own, ours] = timings[..] else { panic!("the function's and ours: {timings:?}") };
    assert_eq!(own, "db;dur=1");
    let parts: Vec<(&str, f64)> = ours
        .split(", ")
        .map(|part| part.split_once(";dur=").expect("a duration"))
        .map(|(name, ms)| (name, ms.parse().expect("milliseconds")))
        .collect();
    assert_eq!(parts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["queue", "start", "run"]);
    assert!(parts.iter().all(|(_, ms)| (0.0..10_000.0).contains(ms)), "{parts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_forge_where_they_come_from() {
    let world = World::new().await;
    let forged = "GET /show?q=1 HTTP/1.1\r\nHost: hello.localhost:80\r\nX-Forwarded-For: 6.6.6.6\r\n\
                  X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\
                  Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n";
    let mut client = world.client().await;
    client.send(forged).await;
    let shown = client.answer().await.text();
    assert!(shown.starts_with("GET /show?q=1\n"), "{shown}");
    for there in [
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: hello.localhost:80\n",
        "host: hello.localhost:80\n",
    ] {
        assert!(shown.contains(there), "{there} in {shown}");
    }
    for gone in ["6.6.6.6", "evil", "x-drop", "connection", "upgrade", "te: "] {
        assert!(!shown.contains(gone), "{gone} in {shown}");
    }

    let world = World::with(|settings| settings.trust_forwarded = true).await;
    let mut client = world.client().await;
    client.send(forged).await;
    let shown = client.answer().await.text();
    assert!(shown.contains("x-forwarded-for: 6.6.6.6, 127.0.0.1\n"), "{shown}");
    assert!(
        shown.contains("x-forwarded-proto: https\n") && shown.contains("x-forwarded-host: evil\n"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_functions_connection_stay_there() {
    let world = World::new().await;
    let answer = world.client().await.get("hello.localhost", "/hop").await;
    assert_eq!(answer.header("x-public"), Some("1"));
    for gone in ["x-private", "keep-alive", "upgrade", "connection"] {
        assert_eq!(answer.header(gone), None, "{answer:?}");
    }
    let ids = answer.headers.iter().filter(|(name, _)| name == "x-request-id").count();
    assert!(ids == 1 && answer.header("x-request-id") != Some("forged"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_none() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    client.send("HEAD / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.status, 404);
    for status in [204, 304] {
        client.send(format!("GET /status/{status} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!((head.status, head.header("transfer-encoding")), (status, None));
    }
    assert_eq!(client.get("hello.localhost", "/").await.text(), "hello", "no body was left on the wire");
    client.get("hello.localhost", "/status/101").await.problem(502, "function_failed");
    client.get("hello.localhost", "/status/103").await.problem(502, "function_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_a_problem_document() {
    let world = World::new().await;
    let mut client = world.client().await;
    for (code, status) in
        [("guest_trapped", 500), ("function_failed", 502), ("queue_timeout", 503), ("timeout", 504)]
    {
        let answer = client.get("hello.localhost", &format!("/fail/{code}")).await;
        answer.problem(status, code);
        assert!(answer.header("server-timing").is_some(), "{answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{answer:?}");
    }
    let answer = client.get("broken.localhost", "/").await;
    let problem = answer.problem(503, "start_failed");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("status 3")), "{problem}");
    let after: u64 = answer.header("retry-after").expect("when to try again").parse().expect("seconds");
    assert!((1..=600).contains(&after), "{after}");
    let failures = r#"neap_requests_total{function="hello",code_class="5xx"}"#;
    assert_eq!(world.metric(failures), Some(4.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_just_ended_costs_no_request() {
    let world = World::new().await;
    let mut client = world.client().await;
    world.break_next_call();
    assert_eq!(client.get("hello.localhost", "/flaky").await.text(), "hello", "another one was asked");
    world.break_next_call();
    client.send("POST /flaky HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1\r\n\r\nx").await;
    client.answer().await.problem(502, "function_failed");
}

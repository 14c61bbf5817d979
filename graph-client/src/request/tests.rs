use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    Cost, LocalLedger, MessageChange, QuotaLedger as _, QuotaLimits, Scope,
    testing::{Server, TestClock, json as answer, refusal, with_header},
};

const MESSAGE: &str =
    r#"{"id":"m","changeKey":"k","parentFolderId":"f","isDraft":false,"body":{"content":"x"}}"#;

/// A server that reads one request per connection and answers with raw bytes, then closes.
async fn raw_server(answer: &'static [u8]) -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(Mutex::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 16 << 10];
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                *counter.lock().unwrap() += 1;
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    (url, count)
}

/// The same, but it keeps the connection open.
async fn raw_server_that_stalls(answer: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 16 << 10];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    });
    (url, serving)
}

#[tokio::test]
async fn every_call_carries_the_headers_that_microsoft_asks_for() {
    let server = Server::start(|_, _| answer(200, MESSAGE)).await;
    server.client().message("alex@contoso.com", "AAMk+/=").await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.header("authorization"), Some("Bearer token-1"));
    assert!(seen.header("user-agent").unwrap().starts_with("ISV|Holdfast|"));
    assert!(seen.header("client-request-id").unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!(seen.header("accept-encoding"), Some("gzip"));
    assert_eq!(seen.uri.path(), "/v1.0/users/alex%40contoso.com/messages/AAMk%2B%2F%3D");
}

#[tokio::test]
async fn no_attempt_comes_before_the_time_that_was_named() {
    for (value, least) in [("1", 1000), ("0.35", 350)] {
        let server = Server::start(move |n, _| match n {
            0 => with_header(refusal(429, "TooManyRequests"), "retry-after", value),
            _ => answer(200, MESSAGE),
        })
        .await;
        let client = server.client();
        client.message("u", "m").await.unwrap();
        let seen = server.seen();
        assert!(seen[1].at - seen[0].at >= Duration::from_millis(least), "{value}");
        assert_eq!(client.requests(), 2);
    }
}

#[tokio::test]
async fn a_date_counts_from_the_servers_own_clock() {
    let server = Server::start(|n, _| match n {
        0 => {
            let refused =
                with_header(refusal(503, "serviceNotAvailable"), "date", "Thu, 01 Jan 1970 00:00:59 GMT");
            with_header(refused, "retry-after", "Thu, 01 Jan 1970 00:01:00 GMT")
        }
        _ => answer(200, MESSAGE),
    })
    .await;
    server.client().message("u", "m").await.unwrap();
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn without_a_retry_after_the_client_backs_off_by_itself_and_gives_up() {
    let server = Server::start(|_, _| refusal(429, "TooManyRequests")).await;
    let client = server.client_with(|options| options.max_attempts = 2);
    let error = client.message("u", "m").await.unwrap_err();
    assert!(matches!(&error, GraphError::Throttled { code: Some(code), .. } if code == "TooManyRequests"));
    assert_eq!((error.class(), server.seen().len()), (ErrorClass::Wait, 2));
}

#[tokio::test]
async fn a_pause_holds_for_everybody_who_shares_the_mailbox_and_for_nobody_else() {
    let server = Server::start(|n, _| match n {
        0 => with_header(refusal(429, "x"), "retry-after", "1"),
        _ => answer(200, MESSAGE),
    })
    .await;
    let clock = TestClock::shared();
    let ledger = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
    let first = server.client_on(ledger.clone(), clock.clone(), |options| options.max_wait = Duration::ZERO);
    let second = server.client_on(ledger, clock, |_| {});
    assert_eq!(first.message("u", "m").await.unwrap_err().retry_after(), Some(Duration::from_secs(1)));
    second.message("somebody-else", "m").await.unwrap();
    second.message("U", "m").await.unwrap();
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at < Duration::from_millis(900));
    assert!(seen[2].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_long_wait_is_returned_so_that_the_job_is_deferred() {
    let server = Server::start(|_, _| with_header(refusal(429, "x"), "retry-after", "120")).await;
    let client = server.client();
    assert_eq!(client.message("u", "m").await.unwrap_err().retry_after(), Some(Duration::from_mins(2)));
    // The next call does not even go out.
    assert!(matches!(client.message("u", "m").await, Err(GraphError::Throttled { code: None, .. })));
    assert_eq!(client.requests(), 1);
}

#[tokio::test]
async fn a_401_gets_one_new_token_and_a_second_one_fails_the_tenant() {
    let server = Server::start(|_, seen| match seen.header("authorization") {
        Some("Bearer token-1") => refusal(401, "InvalidAuthenticationToken"),
        _ => answer(200, MESSAGE),
    })
    .await;
    server.client().message("u", "m").await.unwrap();
    assert_eq!(server.seen().len(), 2);

    for (code, class) in [
        ("InvalidAuthenticationToken", ErrorClass::FailTenant),
        ("AuthenticationError", ErrorClass::FailResource),
    ] {
        let server = Server::start(move |_, _| refusal(401, code)).await;
        assert_eq!(server.client().message("u", "m").await.unwrap_err().class(), class);
        assert_eq!(server.seen().len(), 2, "{code}");
    }
}

/// A tenant that demands claims of every token that was made without them, or of all.
struct Challenging {
    server: Server,
    client: GraphClient,
}

impl Challenging {
    async fn start(demands: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        const CHALLENGE: &str =
            r#"Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ""#;
        let clock = TestClock::shared();
        let passing = clock.clone();
        let server = Server::start(move |n, seen| {
            if seen.uri.path().ends_with("/token") {
                let kind =
                    if String::from_utf8_lossy(&seen.body).contains("claims=") { "claims" } else { "plain" };
                return answer(200, format!(r#"{{"expires_in":3600,"access_token":"{kind}-{n}"}}"#));
            }
            if demands(seen.header("authorization").unwrap()) {
                passing.push(Duration::from_secs(10));
                // The catch-all code must not hide the challenge.
                return with_header(refusal(401, "AuthenticationError"), "www-authenticate", CHALLENGE);
            }
            answer(200, MESSAGE)
        })
        .await;
        let app = crate::AppCredentials {
            client_id: "app".into(),
            secret: crate::Credential::Secret("s".to_owned().into()),
        };
        let random = Arc::new(crate::testing::TestRandom::default());
        let tokens = crate::ClientCredentials::new(
            &server.url,
            "https://graph.example",
            "t",
            app,
            clock.clone(),
            random.clone(),
        );
        let mut options = crate::GraphOptions::new(crate::Cloud::Global, "t", "app");
        options.graph_url.clone_from(&server.url);
        let ledger = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
        let class = holdfast_model::JobClass::Incremental;
        let client =
            GraphClient::new(options, Arc::new(tokens.unwrap()), ledger, class, clock, random).unwrap();
        Self { server, client }
    }

    fn claims_sent(&self) -> Vec<Option<String>> {
        let token_requests =
            self.server.seen().into_iter().filter(|seen| seen.uri.path().ends_with("/token"));
        let claims = |body: &Bytes| {
            let form = format!("http://x/?{}", String::from_utf8_lossy(body));
            let url = Url::parse(&form).unwrap();
            url.query_pairs().find(|(name, _)| name == "claims").map(|(_, value)| value.into_owned())
        };
        token_requests.map(|seen| claims(&seen.body)).collect()
    }
}

#[tokio::test]
async fn a_claims_challenge_is_answered_with_a_token_made_with_the_claims() {
    let tenant = Challenging::start(|bearer| bearer.contains("plain")).await;
    tenant.client.message("u", "m").await.unwrap();
    assert_eq!(tenant.claims_sent(), [None, Some(r#"{"access_token":{}}"#.to_owned())]);
    assert_eq!(tenant.client.requests(), 2);
}

#[tokio::test]
async fn a_second_challenge_says_that_conditional_access_blocks_the_app() {
    let tenant = Challenging::start(|_| true).await;
    let error = tenant.client.message("u", "m").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::FailTenant, "insufficient-claims"));
    assert!(error.to_string().contains("exclude its service principal from the policy"), "{error}");
    assert_eq!((tenant.client.requests(), tenant.claims_sent().len()), (2, 2));
}

#[tokio::test]
async fn any_refusal_with_a_retry_after_pauses_the_mailbox_before_its_body_has_come() {
    // The body of the refusal never comes.
    let (url, _) =
        raw_server_that_stalls(b"HTTP/1.1 502 x\r\nretry-after: 30\r\ncontent-length: 9\r\n\r\n").await;
    let server = Server::start(|_, _| answer(200, MESSAGE)).await;
    let clock = TestClock::shared();
    let ledger = Arc::new(LocalLedger::new(QuotaLimits::default(), clock.clone()));
    let first = server.client_on(ledger.clone(), clock.clone(), |options| options.graph_url = url);
    let second = server.client_on(ledger.clone(), clock, |options| options.max_wait = Duration::ZERO);
    let stalled = tokio::spawn(async move { first.message("u", "m").await });
    let key = second.quota_key(Scope::Mailbox("u".into()));
    let class = holdfast_model::JobClass::Incremental;
    for _ in 0..200 {
        if ledger.acquire(&key, Cost::ONE, class).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!stalled.is_finished());
    let refused = second.message("u", "m").await.unwrap_err();
    assert!(refused.retry_after().unwrap() > Duration::from_secs(20), "{refused}");
    assert_eq!(second.requests(), 0);
    stalled.abort();
}

#[tokio::test]
async fn the_token_is_sent_to_no_other_host() {
    let stranger = Server::start(|_, _| answer(200, r#"{"value":[]}"#)).await;
    let link = format!("{}/v1.0/steal", stranger.url);
    let redirect_to = link.clone();
    let server = Server::start(move |_, _| with_header(answer(302, ""), "location", &redirect_to)).await;
    let client = server.client();
    for link in
        [link.as_str(), "https://graph.microsoft.com.evil.example/x", "http://user@127.0.0.1/", "nonsense"]
    {
        let error = client.messages_delta("u", "f", Some(link)).await.unwrap_err();
        assert!(matches!(error, GraphError::ForeignHost { .. }), "{link}");
        assert_eq!(error.class(), ErrorClass::Programming);
    }
    assert_eq!(client.requests(), 0);
    assert_eq!(client.messages_delta("u", "f", None).await.unwrap_err().status(), Some(302));
    assert!(stranger.seen().is_empty());
}

#[tokio::test]
async fn prefer_goes_with_every_page_and_links_are_replayed_unchanged() {
    let server = Server::start(|n, seen| match n {
        0 => {
            let host = seen.header("host").unwrap();
            answer(200, format!(r#"{{"value":[],"@odata.nextLink":"http://{host}/v1.0/next?$skiptoken=a%2Bb"}}"#))
        }
        _ => answer(200, format!(r#"{{"value":[{MESSAGE},{{"id":"r","@removed":{{"reason":"deleted"}}}}],"@odata.deltaLink":"d"}}"#)),
    })
    .await;
    let client = server.client();
    let first = client.messages_delta("u", "f", None).await.unwrap();
    assert!(first.items.is_empty() && first.delta.is_none());
    let second = client.messages_delta("u", "f", first.next.as_deref()).await.unwrap();
    assert_eq!((second.next, second.delta.as_deref()), (None, Some("d")));
    assert!(
        matches!(&second.items[0], MessageChange::Present(m) if m.raw == MESSAGE.as_bytes() && !m.is_partial)
    );
    assert_eq!(second.items[1], MessageChange::Removed { id: "r".into(), reason: "deleted".into() });
    for seen in server.seen() {
        assert_eq!(seen.header("prefer"), Some(r#"odata.maxpagesize=50, IdType="ImmutableId""#));
    }
    assert_eq!(server.seen()[1].uri.to_string(), "/v1.0/next?$skiptoken=a%2Bb");
}

#[tokio::test]
async fn a_dead_delta_token_asks_for_a_resync() {
    let server = Server::start(|n, _| match n {
        0 => refusal(410, "SyncStateNotFound"),
        _ => refusal(400, "syncstateinvalid"),
    })
    .await;
    let client = server.client();
    for _ in 0..2 {
        assert_eq!(client.messages_delta("u", "f", None).await.unwrap_err().class(), ErrorClass::Resync);
    }
    assert_eq!(client.requests(), 2);
}

#[tokio::test]
async fn broken_gateways_are_tried_again_and_a_slow_query_asks_for_less() {
    let server = Server::start(|n, _| match n {
        0 => answer(503, ""),
        1 => answer(502, "<html>bad gateway</html>"),
        _ => answer(200, r#"{"value":[]}"#),
    })
    .await;
    server.client().messages_delta("u", "f", None).await.unwrap();
    let sizes: Vec<_> =
        server.seen().iter().map(|seen| seen.header("prefer").unwrap()[..20].to_owned()).collect();
    assert_eq!(sizes, ["odata.maxpagesize=50", "odata.maxpagesize=12", "odata.maxpagesize=12"]);
}

#[tokio::test]
async fn a_create_with_an_unknown_outcome_is_never_repeated() {
    for status in [500, 502, 503, 504] {
        let server = Server::start(move |_, _| refusal(status, "")).await;
        let error = server.client().create_message("u", "f", &json!({})).await.unwrap_err();
        assert!(matches!(error, GraphError::Ambiguous { .. }), "{status}");
        assert_eq!((error.class(), server.seen().len()), (ErrorClass::Reread, 1));
    }
    let (url, count) = raw_server(b"").await;
    let server = Server::start(|_, _| answer(200, "")).await;
    let client = server.client_with(|options| options.graph_url = url);
    let error = client.create_message("u", "f", &json!({})).await.unwrap_err();
    assert!(matches!(error, GraphError::Ambiguous { .. }));
    assert_eq!(*count.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_create_that_was_refused_for_sure_is_repeated() {
    let server = Server::start(|n, _| match n {
        0 => with_header(refusal(429, "x"), "retry-after", "0"),
        _ => answer(201, r#"{"id":"new","isDraft":false}"#),
    })
    .await;
    let created = server.client().create_message("u", "f", &json!({"subject": "s"})).await.unwrap();
    assert_eq!((created.id.as_str(), created.is_draft, server.seen().len()), ("new", false, 2));
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_message() {
    let (url, _) = raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nSubject: half").await;
    let server = Server::start(|_, _| answer(200, "")).await;
    let client = server.client_with(|options| {
        options.graph_url = url;
        options.max_attempts = 2;
    });
    let mime = client.message_mime("u", "m").await.unwrap();
    assert_eq!(mime.content_length, Some(100));
    let error = mime.read_all(1 << 20).await.unwrap_err();
    assert!(matches!(error, GraphError::Truncated { expected: Some(100), got: 13 }), "{error:?}");
    assert!(error.is_retryable());
    // The same on a page is tried again by the client itself.
    assert!(matches!(client.message("u", "m").await, Err(GraphError::Truncated { .. })));
    assert_eq!(client.requests(), 3);
}

#[tokio::test]
async fn a_slot_is_held_until_the_body_is_read() {
    let server = Server::start(|_, _| answer(200, MESSAGE)).await;
    let clock = TestClock::shared();
    let limits = QuotaLimits { mailbox_in_flight: 1, ..QuotaLimits::default() };
    let client = server.client_on(Arc::new(LocalLedger::new(limits, clock.clone())), clock, |options| {
        options.max_wait = Duration::from_millis(200);
    });
    let mime = client.message_mime("u", "m").await.unwrap();
    assert!(matches!(client.message("u", "m").await, Err(GraphError::Throttled { .. })));
    assert_eq!(mime.read_all(1 << 20).await.unwrap(), MESSAGE);
    client.message("u", "m").await.unwrap();
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::start(|_, _| answer(200, "")).await;
    let client = server.client_with(|options| {
        options.graph_url = url;
        options.max_attempts = 1;
        options.request_timeout = Duration::from_millis(200);
    });
    let error = client.message("u", "m").await.unwrap_err();
    assert!(matches!(error, GraphError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_404_is_asked_once_more_and_a_true_one_is_believed() {
    let server = Server::start(|n, _| match n {
        0 => answer(404, ""),
        1 => answer(200, MESSAGE),
        _ => refusal(404, "ErrorItemNotFound"),
    })
    .await;
    let client = server.client();
    client.message("u", "m").await.unwrap();
    assert_eq!(client.message("u", "m").await.unwrap_err().class(), ErrorClass::Gone);
    assert_eq!(client.requests(), 3);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_asked_for_again() {
    let server = Server::start(|n, _| match n {
        0 => answer(200, &MESSAGE[..20]),
        1 => answer(200, "<html>busy</html>"),
        _ => answer(200, MESSAGE),
    })
    .await;
    assert_eq!(server.client().message("u", "m").await.unwrap().id, "m");
    assert_eq!(server.seen().len(), 3);
    let server = Server::start(|_, _| answer(200, "nonsense")).await;
    let error = server.client().messages_delta("u", "f", None).await.unwrap_err();
    assert!(matches!(error, GraphError::Malformed { .. }));
    assert_eq!(server.seen().len(), 4);
}

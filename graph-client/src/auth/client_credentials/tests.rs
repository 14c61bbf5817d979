use aws_lc_rs::digest;
use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::*;
use crate::{
    ErrorClass,
    testing::{Seen, Server, TestClock, TestRandom, json, with_header},
};

fn source(server: &Server, secret: Credential, clock: Arc<TestClock>) -> ClientCredentials {
    let app = AppCredentials { client_id: "app".into(), secret };
    ClientCredentials::new(
        &server.url,
        "https://graph.example/",
        "contoso",
        app,
        clock,
        Arc::new(TestRandom::default()),
    )
    .unwrap()
}

fn secret() -> Credential {
    Credential::Secret("s e&cret".to_owned().into())
}

fn granted(number: usize, life_s: u64) -> axum::response::Response {
    json(200, format!(r#"{{"token_type":"Bearer","expires_in":{life_s},"access_token":"token-{number}"}}"#))
}

fn field(seen: &Seen, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&seen.body))).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_hundred_calls_make_one_token_request() {
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let source = source(&server, secret(), TestClock::shared());
    let tokens = futures::future::join_all((0..100).map(|_| source.token())).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().secret.as_str() == "token-0"));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].uri.path(), "/contoso/oauth2/v2.0/token");
    assert_eq!(field(&seen[0], "grant_type").unwrap(), "client_credentials");
    assert_eq!(field(&seen[0], "scope").unwrap(), "https://graph.example/.default");
    assert_eq!(field(&seen[0], "client_secret").unwrap(), "s e&cret");
}

#[tokio::test]
async fn a_hundred_calls_with_the_same_rejected_token_renew_it_once() {
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let clock = TestClock::shared();
    let source = source(&server, secret(), clock.clone());
    let old = source.token().await.unwrap();
    clock.push(MIN_RENEWAL_INTERVAL);
    let tokens = futures::future::join_all((0..100).map(|_| source.renew(&old, None))).await;
    assert!(tokens.into_iter().all(|token| token.unwrap().secret.as_str() == "token-1"));
    assert_eq!(server.seen().len(), 2);
}

fn rejection(token: &AccessToken, claims: Option<&Claims>) -> Rejection {
    Rejection { fingerprint: token.fingerprint(), claims: claims.cloned() }
}

#[tokio::test]
async fn an_app_whose_every_token_is_rejected_gets_one_per_interval() {
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let clock = TestClock::shared();
    let source = source(&server, secret(), clock.clone());
    let mut token = source.token().await.unwrap();
    for round in 1..4 {
        for _ in 0..20 {
            assert!(source.replace(&rejection(&token, None)).await.unwrap().is_none(), "it is too young");
        }
        assert_eq!(server.seen().len(), round);
        clock.push(MIN_RENEWAL_INTERVAL);
        let next = source.replace(&rejection(&token, None)).await.unwrap().unwrap();
        assert_ne!(next.fingerprint(), token.fingerprint());
        token = next;
    }
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn the_rejection_of_an_older_token_gives_no_token_that_may_be_revoked_too() {
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let clock = TestClock::shared();
    let source = source(&server, secret(), clock.clone());
    let first = source.token().await.unwrap();
    clock.push(MIN_RENEWAL_INTERVAL);
    let second = source.replace(&rejection(&first, None)).await.unwrap().unwrap();
    let again = source.replace(&rejection(&first, None)).await.unwrap().unwrap();
    assert_eq!((second.secret.as_str(), again.secret.as_str()), ("token-1", "token-1"));
    clock.push(MIN_RENEWAL_INTERVAL);
    let late = source.replace(&rejection(&first, None)).await.unwrap().unwrap();
    assert_eq!((late.secret.as_str(), server.seen().len()), ("token-2", 3));
}

#[tokio::test]
async fn demanded_claims_go_with_the_request_and_a_token_without_them_does_not_do() {
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let clock = TestClock::shared();
    let source = source(&server, secret(), clock.clone());
    let first = source.token().await.unwrap();
    clock.push(MIN_RENEWAL_INTERVAL);
    let plain = source.replace(&rejection(&first, None)).await.unwrap().unwrap();
    let claims = Claims::from_json(r#"{"access_token":{"nbf":{"value":"1"}}}"#).unwrap();
    let challenged = rejection(&first, Some(&claims));
    assert!(source.replace(&challenged).await.unwrap().is_none(), "the present one lacks the claims");
    clock.push(MIN_RENEWAL_INTERVAL);
    let with_claims = source.replace(&challenged).await.unwrap().unwrap();
    assert_ne!(with_claims.fingerprint(), plain.fingerprint());
    assert_eq!(source.replace(&challenged).await.unwrap().unwrap().fingerprint(), with_claims.fingerprint());
    let seen = server.seen();
    let sent: Vec<_> = seen.iter().map(|seen| field(seen, "claims")).collect();
    assert_eq!(sent, [None, None, Some(claims.as_str().to_owned())]);
}

#[tokio::test]
async fn the_endpoints_own_retry_after_holds_for_everybody_who_asks_later() {
    let server = Server::start(|n, _| match n {
        0 => with_header(json(429, "{}"), "retry-after", "120"),
        n => granted(n, 3600),
    })
    .await;
    let clock = TestClock::shared();
    let source = source(&server, secret(), clock.clone());
    for _ in 0..3 {
        let wait = source.token().await.unwrap_err().retry_after().unwrap();
        assert!(wait > Duration::from_secs(100), "{wait:?}");
    }
    assert_eq!(server.seen().len(), 1);
    clock.push(Duration::from_secs(120));
    assert_eq!(source.token().await.unwrap().secret.as_str(), "token-1");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = Server::start(|n, _| granted(n, 1)).await;
    let source = source(&server, secret(), TestClock::shared());
    source.token().await.unwrap();
    source.token().await.unwrap();
    assert_eq!(server.seen().len(), 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(source.token().await.unwrap().secret.as_str(), "token-1");
}

#[tokio::test]
async fn a_refusal_fails_the_tenant_and_is_not_asked_for_again_by_everybody() {
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: x","error_codes":[7000215]}"#;
    let server = Server::start(move |_, _| json(401, body)).await;
    let source = source(&server, secret(), TestClock::shared());
    for result in futures::future::join_all((0..20).map(|_| source.token())).await {
        let error = result.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::FailTenant, "invalid_client"));
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_throttled_or_busy_endpoint_is_asked_again_after_the_wait() {
    let server = Server::start(|n, _| match n {
        0 => with_header(json(429, "{}"), "retry-after", "0.2"),
        1 => with_header(json(400, r#"{"error":"x","error_codes":[90033]}"#), "retry-after", "0.2"),
        n => granted(n, 3600),
    })
    .await;
    let source = source(&server, secret(), TestClock::shared());
    assert_eq!(source.token().await.unwrap().secret.as_str(), "token-2");
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(200));
    assert!(seen[2].at - seen[1].at >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_certificate_signs_a_ps256_assertion_that_verifies() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
    let pem = Zeroizing::new(format!("{}\n{}", certificate.pem(), key.serialize_pem()));
    let server = Server::start(|n, _| granted(n, 3600)).await;
    let source = source(&server, Credential::Certificate { pem }, TestClock::shared());
    source.token().await.unwrap();

    let seen = server.seen();
    let assertion = field(&seen[0], "client_assertion").unwrap();
    assert!(field(&seen[0], "client_assertion_type").unwrap().ends_with("client-assertion-type:jwt-bearer"));
    assert_eq!(field(&seen[0], "client_secret"), None);
    let header = decode_header(&assertion).unwrap();
    let thumbprint = digest::digest(&digest::SHA256, certificate.der());
    let thumbprint = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(thumbprint);
    assert_eq!((header.alg, header.x5t_s256), (Algorithm::PS256, Some(thumbprint)));
    let mut validation = Validation::new(Algorithm::PS256);
    validation.set_audience(&[format!("{}/contoso/oauth2/v2.0/token", server.url)]);
    validation.validate_nbf = false;
    let public = DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).unwrap();
    let claims = decode::<Value>(&assertion, &public, &validation).unwrap().claims;
    assert_eq!((&claims["iss"], &claims["sub"]), (&Value::from("app"), &Value::from("app")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 300);
    assert!(claims["jti"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
}

#[test]
fn a_pem_without_key_or_certificate_says_so() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let reason = |pem: &str| match Signer::from_pem(pem) {
        Err(GraphError::Config { reason, .. }) => reason,
        _ => "",
    };
    assert_eq!(reason(&key.serialize_pem()), "it holds no certificate");
    let certificate = rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
    assert_eq!(reason(&certificate.pem()), "it holds no private key");
}

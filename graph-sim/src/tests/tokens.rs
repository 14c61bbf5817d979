use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::*;

fn code(body: &Value) -> u64 {
    body["error_codes"][0].as_u64().unwrap()
}

#[tokio::test]
async fn the_secret_is_checked_and_every_refusal_has_its_code() {
    let bench = start(options()).await;
    let tenant = options().tenant_id;
    type Form<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Form<'_>, u16, u64); 5] = [
        (&tenant, &[("client_id", CLIENT), ("client_secret", "wrong")], 401, 7_000_215),
        (&tenant, &[("client_id", "nobody"), ("client_secret", SECRET)], 400, 700_016),
        ("other", &[("client_id", CLIENT), ("client_secret", SECRET)], 400, 90_002),
        (
            &tenant,
            &[("client_id", CLIENT), ("client_secret", SECRET), ("scope", "Mail.Read")],
            400,
            1_002_012,
        ),
        (&tenant, &[("client_id", CLIENT)], 401, 7_000_218),
    ];
    for (tenant, form, status, expected) in cases {
        let (got, body) = grant(&bench.http, &bench.sim, tenant, form).await;
        assert_eq!((got, code(&body)), (status, expected), "{form:?}");
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{expected}:")));
    }
    assert_eq!(bench.sim.counters().tokens_refused, 5);
    assert_eq!(bench.sim.counters().tokens_issued, 1);
}

#[tokio::test]
async fn a_certificate_assertion_is_verified() {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
    let mut options = options();
    options.apps[0].certificate_pem = Some(certificate.pem());
    let tenant = options.tenant_id.clone();
    let bench = start(options).await;
    let now = bench.clock.now_ms() / 1000;
    let endpoint = format!("{}/{tenant}/oauth2/v2.0/token", bench.sim.base_url());
    let signing = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
    let assertion = |aud: &str, exp: u64, print: Option<String>| {
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = print;
        let claims =
            json!({"aud": aud, "iss": CLIENT, "sub": CLIENT, "jti": "1", "nbf": now, "iat": now, "exp": exp});
        jsonwebtoken::encode(&header, &claims, &signing).unwrap()
    };
    let print = crate::token::certificate_thumbprint(&certificate.pem());
    let der = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    assert_eq!(
        print.as_deref(),
        Some(base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, der).as_str())
    );
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let cases = [
        (assertion(&endpoint, now + 300, print.clone()), 200, 0),
        (assertion(&endpoint, now + 300, Some("wrong".into())), 401, 700_027),
        (assertion("http://x/other/oauth2/v2.0/token", now + 300, print.clone()), 401, 700_027),
        (assertion(&endpoint, now + 3600, print.clone()), 401, 700_024),
        (assertion(&endpoint, now + 300, print) + "x", 401, 700_027),
    ];
    for (number, (assertion, status, expected)) in cases.into_iter().enumerate() {
        let form = [("client_id", CLIENT), kind, ("client_assertion", assertion.as_str())];
        let (got, body) = grant(&bench.http, &bench.sim, &tenant, &form).await;
        assert_eq!(got, status, "case {number}: {body}");
        assert_eq!(body["error_codes"][0].as_u64().unwrap_or(0), expected, "case {number}");
    }
}

#[tokio::test]
async fn tokens_expire_and_carry_roles() {
    use base64::Engine as _;
    let bench = start(options()).await;
    let payload = bench.token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["roles"], json!(["Mail.ReadWrite", "User.Read.All"]));
    assert_eq!(bench.get("/mailFolders").await.status(), 200);
    bench.clock.push(3_600_000);
    let response = bench.get("/mailFolders").await;
    assert_eq!(response.status(), 401);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "InvalidAuthenticationToken");
    assert!(body["error"]["innerError"]["request-id"].is_string());
}

#[tokio::test]
async fn missing_roles_are_refused() {
    let mut options = options();
    options.apps[0].roles = vec!["Mail.Read".into()];
    let bench = start(options).await;
    assert_eq!(bench.get("/mailFolders").await.status(), 200);
    let (status, body) = bench.send(Method::POST, "/mailFolders", &json!({"displayName": "x"})).await;
    assert_eq!((status, body["error"]["code"].as_str()), (403, Some("ErrorAccessDenied")));
    let users = bench.get(&format!("{}/v1.0/users", bench.sim.base_url())).await;
    assert_eq!(users.status(), 403);
    assert_eq!(users.json::<Value>().await.unwrap()["error"]["code"], "Authorization_RequestDenied");
    bench.control("expire-tokens", json!({})).await;
    assert_eq!(bench.get("/mailFolders").await.status(), 401);
}

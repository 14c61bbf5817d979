//! The token endpoint and the tokens it gives.
//!
//! Invariant: a token is good only with our mark on it, before its expiry, and while nobody has expired them all.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::options::{SimApp, SimOptions};
use crate::world::World;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const MAX_ASSERTION_SECONDS: u64 = 10 * 60;
const CLOCK_SKEW_SECONDS: u64 = 5 * 60;

pub(crate) struct Tokens {
    key: [u8; 32],
    generation: AtomicU64,
    issued: AtomicU64,
}

/// What a good token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    aud: String,
    iss: String,
    pub appid: String,
    tid: String,
    pub roles: Vec<String>,
    iat: u64,
    exp: u64,
    jti: String,
    generation: u64,
}

impl Tokens {
    pub(crate) fn new(seed: u64) -> Self {
        let key = *blake3::hash(format!("holdfast graph-sim token {seed}").as_bytes()).as_bytes();
        Self { key, generation: AtomicU64::new(0), issued: AtomicU64::new(0) }
    }

    /// Makes every token given so far worthless.
    pub(crate) fn expire_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn issue(&self, app: &SimApp, options: &SimOptions, audience: &str, now_s: u64) -> String {
        let claims = Claims {
            aud: audience.into(),
            iss: format!("https://sts.windows.net/{}/", options.tenant_id),
            appid: app.client_id.clone(),
            tid: options.tenant_id.clone(),
            roles: app.roles.clone(),
            iat: now_s,
            exp: now_s + options.token_lifetime_seconds,
            jti: self.issued.fetch_add(1, Ordering::Relaxed).to_string(),
            generation: self.generation.load(Ordering::Relaxed),
        };
        let payload = serde_json::to_vec(&claims).expect("claims are json");
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"HS256","kid":"simulated"}"#),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let mark = blake3::keyed_hash(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark.as_bytes()))
    }

    /// The claims of a good token.
    pub(crate) fn check(&self, token: &str, now_ms: u64) -> Option<Claims> {
        let (signed, mark) = token.rsplit_once('.')?;
        let mark: [u8; 32] = URL_SAFE_NO_PAD.decode(mark).ok()?.try_into().ok()?;
        if blake3::keyed_hash(&self.key, signed.as_bytes()) != mark {
            return None;
        }
        let payload = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        let good = claims.exp > now_ms / 1000 && claims.generation == self.generation.load(Ordering::Relaxed);
        good.then_some(claims)
    }
}

/// A refusal of the token endpoint.
struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: &'static str,
}

const fn refusal(status: u16, error: &'static str, code: u32, text: &'static str) -> Refusal {
    Refusal { status, error, code, text }
}

/// Answers `POST /{tenant}/oauth2/v2.0/token` with a status and a body.
pub(crate) fn answer(world: &World, tenant: &str, form: &[(String, String)], host: &str) -> (u16, Vec<u8>) {
    let options = world.options();
    match grant(world, &options, tenant, form, host) {
        Ok(token) => {
            world.counters.with(|all| all.tokens_issued += 1);
            let life = options.token_lifetime_seconds;
            let body = json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token});
            (200, body.to_string().into_bytes())
        }
        Err(refused) => {
            world.counters.with(|all| all.tokens_refused += 1);
            let number = world.requests.fetch_add(1, Ordering::Relaxed);
            let body = json!({
                "error": refused.error,
                "error_description": format!("AADSTS{}: {}", refused.code, refused.text),
                "error_codes": [refused.code],
                "timestamp": crate::json::timestamp(world.clock.now_ms()),
                "trace_id": format!("00000000-0000-4000-9000-{number:012x}"),
                "correlation_id": format!("00000000-0000-4000-a000-{number:012x}"),
            });
            (refused.status, body.to_string().into_bytes())
        }
    }
}

fn grant(
    world: &World,
    options: &SimOptions,
    tenant: &str,
    form: &[(String, String)],
    host: &str,
) -> Result<String, Refusal> {
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if !tenant.eq_ignore_ascii_case(&options.tenant_id) {
        return Err(refusal(400, "invalid_request", 90002, "tenant not found"));
    }
    if field("grant_type") != Some("client_credentials") {
        return Err(refusal(400, "unsupported_grant_type", 70003, "the grant type is not supported"));
    }
    let scope = field("scope").unwrap_or_default();
    let Some(audience) =
        scope.strip_suffix("/.default").filter(|root| !root.is_empty() && !root.contains(' '))
    else {
        return Err(refusal(
            400,
            "invalid_scope",
            1_002_012,
            "the scope must be one resource with /.default",
        ));
    };
    let client = field("client_id").unwrap_or_default();
    let Some(app) = options.apps.iter().find(|app| app.client_id.eq_ignore_ascii_case(client)) else {
        return Err(refusal(
            400,
            "unauthorized_client",
            700_016,
            "application was not found in the directory",
        ));
    };
    let now_s = world.clock.now_ms() / 1000;
    match (field("client_secret"), field("client_assertion")) {
        (Some(secret), None) => {
            if app.client_secret.as_deref() != Some(secret) {
                return Err(refusal(401, "invalid_client", 7_000_215, "invalid client secret provided"));
            }
        }
        (None, Some(assertion)) if field("client_assertion_type") == Some(ASSERTION_TYPE) => {
            let endpoint = format!("{host}/{tenant}/oauth2/v2.0/token");
            check_assertion(app, assertion, &endpoint, now_s)?;
        }
        _ => {
            let text = "the request body must contain client_assertion or client_secret";
            return Err(refusal(401, "invalid_client", 7_000_218, text));
        }
    }
    Ok(world.tokens.issue(app, options, audience, now_s))
}

#[derive(Deserialize)]
struct Assertion {
    aud: String,
    iss: String,
    sub: String,
    jti: String,
    nbf: u64,
    exp: u64,
}

fn check_assertion(app: &SimApp, assertion: &str, endpoint: &str, now_s: u64) -> Result<(), Refusal> {
    let bad = |text| refusal(401, "invalid_client", 700_027, text);
    let pem = app.certificate_pem.as_deref().ok_or_else(|| bad("no certificate is registered"))?;
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| bad("the assertion is not a jwt"))?;
    if header.alg != Algorithm::PS256 {
        return Err(bad("the algorithm must be PS256"));
    }
    let thumbprint =
        certificate_thumbprint(pem).ok_or_else(|| bad("the registered certificate is not pem"))?;
    if header.x5t_s256.as_deref() != Some(thumbprint.as_str()) {
        return Err(bad("the key was not found by its thumbprint"));
    }
    let key =
        DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| bad("the certificate holds no rsa key"))?;
    let mut validation = Validation::new(Algorithm::PS256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Assertion>(assertion, &key, &validation)
        .map_err(|_| bad("the signature or the claims are wrong"))?
        .claims;
    let (Ok(aud), Ok(own)) = (path_of(&claims.aud), path_of(endpoint)) else {
        return Err(bad("the audience is not a url"));
    };
    if aud != own || claims.iss != app.client_id || claims.sub != app.client_id || claims.jti.is_empty() {
        return Err(bad("audience, issuer, subject or id is wrong"));
    }
    let young = claims.nbf <= now_s + CLOCK_SKEW_SECONDS && now_s < claims.exp + CLOCK_SKEW_SECONDS;
    if !young || claims.exp > claims.nbf + MAX_ASSERTION_SECONDS {
        return Err(refusal(
            401,
            "invalid_client",
            700_024,
            "the assertion is not within its valid time range",
        ));
    }
    Ok(())
}

/// The host differs behind a proxy or a service name; the path names tenant and endpoint.
fn path_of(url: &str) -> Result<String, http::uri::InvalidUri> {
    Ok(url.parse::<http::Uri>()?.path().to_ascii_lowercase())
}

/// base64url(SHA-256 of the DER).
pub(crate) fn certificate_thumbprint(pem: &str) -> Option<String> {
    let inner = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let inner: String = inner.split_whitespace().collect();
    let der = STANDARD.decode(inner).ok()?;
    Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, &der)))
}

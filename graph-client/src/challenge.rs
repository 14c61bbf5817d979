//! The claims challenge: a 401 that says which claims the next token must carry.
//!
//! The one invariant to know: what Microsoft demands goes into a token request only when it is a JSON object of bounded size,
//! and it is never shown, not even by `Debug`.

use std::{borrow::Cow, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde_json::{Map, Value};

/// Longer demands are not passed on.
const MAX_CLAIMS_BYTES: usize = 8 << 10;

/// Longer headers are not read.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The value of `error` that makes a refusal a challenge.
const INSUFFICIENT_CLAIMS: &str = "insufficient_claims";

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What the next token must carry, as the JSON object that the token endpoint takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims(String);

impl Claims {
    /// Takes JSON text; none when it is not an object, or too large.
    pub fn from_json(text: &str) -> Option<Self> {
        let is_object =
            text.len() <= MAX_CLAIMS_BYTES && serde_json::from_str::<Map<String, Value>>(text).is_ok();
        is_object.then(|| Self(text.to_owned()))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the header's value: base64 in any of its dialects, or, where a gateway decoded it already, the JSON itself.
    fn from_header(value: &str) -> Option<Self> {
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        if value.len() > MAX_CLAIMS_BYTES * 2 {
            return None;
        }
        let decoded = STANDARD.decode(value.as_bytes()).or_else(|_| URL_SAFE.decode(value.as_bytes()));
        decoded
            .ok()
            .and_then(|bytes| Self::from_json(std::str::from_utf8(&bytes).ok()?))
            .or_else(|| Self::from_json(&value))
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(redacted)")
    }
}

/// A 401 that a token with other claims would not have got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// None where they cannot be read: then only a plain new token can be tried.
    pub claims: Option<Claims>,
}

/// The challenge among all `WWW-Authenticate` headers; all of its fields stand in one of them.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter().filter(|value| value.len() <= MAX_HEADER_BYTES);
    let mut unreadable = None;
    for header in all.filter_map(|value| value.to_str().ok()) {
        for fields in bearer_challenges(header) {
            let field = |wanted: &str| fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            if field("error").is_none_or(|(_, value)| !value.eq_ignore_ascii_case(INSUFFICIENT_CLAIMS)) {
                continue;
            }
            match field("claims").and_then(|(_, value)| Claims::from_header(value)) {
                Some(claims) => return Some(Challenge { claims: Some(claims) }),
                None => unreadable = Some(Challenge { claims: None }),
            }
        }
    }
    unreadable
}

type Fields<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// The fields of every `Bearer` challenge of one header, which may hold several challenges.
fn bearer_challenges(header: &str) -> Vec<Fields<'_>> {
    let mut found: Vec<Fields<'_>> = Vec::new();
    let mut is_bearer = false;
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let spaced = after.trim_start_matches([' ', '\t']);
        if let Some(value) = spaced.strip_prefix('=').filter(|_| !word.is_empty()) {
            let (value, after) = field_value(value.trim_start_matches([' ', '\t']));
            if let Some(fields) = found.last_mut().filter(|_| is_bearer) {
                fields.push((word, value));
            }
            rest = after;
        } else if word.is_empty() {
            // A stray `=`, or the end.
            let Some(after) = rest.strip_prefix('=') else { return found };
            rest = after;
        } else {
            is_bearer = word.eq_ignore_ascii_case("bearer");
            if is_bearer {
                found.push(Vec::new());
            }
            rest = after;
        }
    }
}

/// A quoted text, where a backslash takes the next character as it is, or everything up to the next comma or blank.
fn field_value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (Cow::Borrowed(&text[..end]), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return (Cow::Owned(value), &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    // Cut off: what came is all there is.
    (Cow::Owned(value), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
    const NBF: &str =
        "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ==";
    const NBF_JSON: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;

    fn read(values: &[&str]) -> Option<Option<String>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenge(&headers).map(|found| found.claims.map(|claims| claims.0))
    }

    #[test]
    fn a_challenge_is_found_in_every_awkward_form() {
        let bare = NBF.trim_end_matches('=');
        let escaped = NBF_JSON.replace('"', "\\\"");
        let rows: Vec<Vec<String>> = vec![
            vec![format!(
                r#"Bearer realm="", authorization_uri="https://login.example/common/oauth2/authorize", error="insufficient_claims", claims="{NBF}""#
            )],
            vec![format!(r#"bearer error=insufficient_claims,claims={bare}"#)],
            vec![format!(r#"BEARER  Claims = "{bare}" ,, ERROR = "Insufficient_Claims" ,"#)],
            vec![format!(r#"Bearer error="insufficient_claims", claims="{}""#, NBF.replace('=', "%3D"))],
            vec![format!(r#"Bearer error="insufficient_claims", claims="{escaped}""#)],
            vec!["Negotiate".into(), format!(r#"Bearer error="insufficient_claims", claims="{NBF}""#)],
            vec![format!(
                r#"Negotiate abc==, Bearer realm="a, b=\"c\"", claims="{NBF}", error="insufficient_claims""#
            )],
            vec![
                r#"Bearer error="insufficient_claims", claims="%%%""#.into(),
                format!(r#"Bearer error="insufficient_claims", claims="{NBF}""#),
            ],
            vec![format!(
                r#"PoP nonce="x", Bearer error="insufficient_claims", claims="{NBF}", realm="cut off"#
            )],
        ];
        for row in rows {
            let values: Vec<&str> = row.iter().map(String::as_str).collect();
            assert_eq!(read(&values), Some(Some(NBF_JSON.to_owned())), "{row:?}");
        }
    }

    #[test]
    fn other_refusals_are_no_challenge() {
        let elsewhere = format!(r#"PoP error="insufficient_claims", claims="{NBF}""#);
        let invalid = format!(r#"Bearer error="invalid_token", claims="{NBF}""#);
        let only_claims = format!(r#"Bearer claims="{NBF}""#);
        let quoted = format!(r#"Bearer realm="error=insufficient_claims, claims={NBF}""#);
        for value in
            ["", "Bearer", "Bearer realm=\"\"", "====", ", ,=,", &elsewhere, &invalid, &only_claims, &quoted]
        {
            assert_eq!(read(&[value]), None, "{value}");
        }
        // The fields of one challenge do not complete another.
        assert_eq!(read(&[r#"Bearer error="insufficient_claims""#, &only_claims]), Some(None));
    }

    #[test]
    fn claims_that_are_no_object_or_too_large_are_not_passed_on() {
        let encoded = |text: &str| URL_SAFE.encode(text);
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_CLAIMS_BYTES));
        for claims in ["", "%%%", &encoded("[1]"), &encoded("\"text\""), &encoded("{\"cut"), &encoded(&large)]
        {
            let header = format!(r#"Bearer error="insufficient_claims", claims="{claims}""#);
            assert_eq!(read(&[&header]), Some(None), "{}", &claims[..claims.len().min(20)]);
        }
        assert!(!format!("{:?}", Claims::from_json(NBF_JSON)).contains("nbf"));
    }
}

//! `Retry-After` in every form Microsoft sends it: whole seconds, fractions of seconds, an HTTP date, or nothing.
//!
//! The one invariant to know: the answer is never shorter than what was asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_model::Millis;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// No longer wait is believed: a wrong clock must not park a mailbox for ever.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Reads the header; of several the longest. A date counts from the answer's own `Date`, so that a wrong clock on our side does not matter.
pub(crate) fn retry_after(headers: &HeaderMap, now_ms: Millis) -> Option<Duration> {
    headers
        .get_all(RETRY_AFTER)
        .iter()
        .filter_map(|value| one(value.to_str().ok()?.trim(), headers, now_ms))
        .max()
}

fn one(text: &str, headers: &HeaderMap, now_ms: Millis) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && seconds >= 0.0).then(|| rounded_up(seconds));
    }
    let until = millis(httpdate::parse_http_date(text).ok()?);
    let server_now = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = server_now.and_then(|date| httpdate::parse_http_date(date).ok()).map_or(now_ms, millis);
    Some(Duration::from_millis(until.saturating_sub(now)).min(MAX_RETRY_AFTER))
}

/// Up to the next millisecond.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn rounded_up(seconds: f64) -> Duration {
    let capped = seconds.min(MAX_RETRY_AFTER.as_secs() as f64);
    Duration::from_millis((capped * 1000.0).ceil() as u64)
}

fn millis(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str, date: Option<&str>, now_ms: Millis) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers, now_ms)
    }

    #[test]
    fn all_forms_are_read_and_none_is_shortened() {
        assert_eq!(read("7", None, 0), Some(Duration::from_secs(7)));
        assert_eq!(read(" 2.128 ", None, 0), Some(Duration::from_millis(2128)));
        assert_eq!(read("0.0001", None, 0), Some(Duration::from_millis(1)));
        assert_eq!(read("Thu, 01 Jan 1970 00:01:00 GMT", None, 10_000), Some(Duration::from_secs(50)));
        let served = Some("Thu, 01 Jan 1970 00:00:58 GMT");
        assert_eq!(read("Thu, 01 Jan 1970 00:01:00 GMT", served, 0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn of_several_the_longest_holds() {
        let mut headers = HeaderMap::new();
        for value in ["1", "soon", "3.5", "2"] {
            headers.append(RETRY_AFTER, value.parse().unwrap());
        }
        assert_eq!(retry_after(&headers, 0), Some(Duration::from_millis(3500)));
    }

    #[test]
    fn nonsense_is_no_answer_and_eternity_is_a_day() {
        for value in ["-3", "soon", "NaN", "inf", ""] {
            assert_eq!(read(value, None, 0), None, "{value}");
        }
        assert_eq!(read("99999999999999999999", None, 0), Some(MAX_RETRY_AFTER));
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }
}

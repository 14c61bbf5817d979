//! What Microsoft says about the quota beside its answers, good ones too, from 80 % on: `RateLimit-*` of SharePoint, and the
//! percentage of the directory.

use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::Scope;

/// How much of a window is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// So many resource units.
    Units(u64),
    /// So many hundredths of the limit.
    Percent(u64),
}

/// What Microsoft says about the first window of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// What may still be used.
    pub left: Left,
    /// When the count starts anew. Longer than the window where that was not said.
    pub reset: Duration,
}

impl RateLimit {
    /// What is left of a limit.
    pub(crate) fn units_left(&self, limit: u64) -> u64 {
        match self.left {
            Left::Units(units) => units,
            Left::Percent(percent) => limit / 100 * percent + limit % 100 * percent / 100,
        }
    }
}

/// No longer time to the reset is believed: the counts are of seconds and minutes.
const MAX_RESET: Duration = Duration::from_mins(10);

/// Reads the headers that the scope has; none where they are missing or nonsense.
pub(crate) fn rate_limit(scope: &Scope, headers: &HeaderMap) -> Option<RateLimit> {
    let number = |name: &str| {
        headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok().filter(|number| number.is_finite())
    };
    match scope {
        Scope::SharePoint => {
            let reset = number("ratelimit-reset").filter(|reset| *reset >= 0.0)?;
            let reset = Duration::from_secs_f64(reset.min(MAX_RESET.as_secs_f64()));
            Some(RateLimit { left: Left::Units(whole(number("ratelimit-remaining")?)), reset })
        }
        Scope::Directory => {
            let used = number("x-ms-throttle-limit-percentage").filter(|used| *used >= 0.0)?;
            // Of what is used; above 1 it is throttled already.
            let left = Left::Percent(whole((1.0 - used) * 100.0));
            Some(RateLimit { left, reset: MAX_RESET })
        }
        Scope::Mailbox(_) | Scope::Team(_) => None,
    }
}

/// Rounded down; what is below nothing is nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(remaining: &str, reset: &str) -> Option<RateLimit> {
        let mut headers = HeaderMap::new();
        headers.insert("RateLimit-Remaining", remaining.parse().unwrap());
        headers.insert("RateLimit-Reset", reset.parse().unwrap());
        rate_limit(&Scope::SharePoint, &headers)
    }

    #[test]
    fn what_is_left_is_rounded_down_and_never_negative() {
        let left = |units| Some(RateLimit { left: Left::Units(units), reset: Duration::from_millis(1500) });
        assert_eq!(read("12.9", " 1.5 "), left(12));
        assert_eq!(read("-4", "1.5"), left(0));
        assert_eq!(read("1", "1e12").unwrap().reset, MAX_RESET);
    }

    #[test]
    fn nonsense_says_nothing() {
        for (remaining, reset) in [("many", "1"), ("1", "soon"), ("NaN", "1"), ("1", "-1"), ("1", "inf")] {
            assert_eq!(read(remaining, reset), None, "{remaining} {reset}");
        }
        assert_eq!(rate_limit(&Scope::SharePoint, &HeaderMap::new()), None);
    }

    #[test]
    fn the_directory_says_how_much_is_used() {
        let left = |used: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ms-throttle-limit-percentage", used.parse().unwrap());
            rate_limit(&Scope::Directory, &headers).map(|said| said.units_left(3_500))
        };
        assert_eq!((left("0.75"), left("1.2"), left("much")), (Some(875), Some(0), None));
        assert_eq!(rate_limit(&Scope::Mailbox("m".into()), &HeaderMap::new()), None);
    }
}

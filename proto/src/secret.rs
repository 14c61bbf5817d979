//! `Debug` for messages that hold secrets: their fields never reach a log.

use std::fmt;

use crate::{coordinator, storage};

macro_rules! redacted {
    ($($name:ty => $text:literal),+ $(,)?) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        })+
    };
}

redacted!(
    coordinator::Keys => "Keys(redacted)",
    coordinator::GraphToken => "GraphToken(redacted)",
    coordinator::AppRegistration => "AppRegistration(redacted)",
    storage::SessionToken => "SessionToken(redacted)",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let graph = coordinator::GraphAccess {
            token: Some(coordinator::GraphToken { access_token: "hunter2".to_owned(), expires_at_ms: 1 }),
            ..Default::default()
        };
        let lease = coordinator::Lease {
            keys: Some(coordinator::Keys { job_keys: "hunter2".into() }),
            graph: Some(graph),
            ..Default::default()
        };
        assert!(!format!("{lease:?}").contains("hunter2"));
    }
}

//! What a message list can be filtered by.

use crate::json::parse_timestamp;
use crate::query::{literals, quoted};
use crate::workloads::mail::content::Content;
use crate::workloads::mail::json::extended;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Extended property, and its value when one is asked for.
    Extended(String, Option<String>),
    InternetMessageId(String),
    Subject(String),
    IsRead(bool),
    Received {
        above: bool,
        equal: bool,
        ms: u64,
    },
}

impl Filter {
    /// Parses one condition; conjunctions are not supported.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unsupported = || format!("The filter '{text}' is not supported");
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("singlevalueextendedproperties/any(") {
            let id = literals(text, "/id eq ").into_iter().next().ok_or_else(unsupported)?;
            let value = literals(text, "/value eq ").into_iter().next();
            return Ok(Self::Extended(id, value));
        }
        if lower.contains(" and ") || lower.contains(" or ") {
            return Err(unsupported());
        }
        let mut words = text.splitn(3, ' ');
        let (Some(field), Some(operator), Some(value)) = (words.next(), words.next(), words.next()) else {
            return Err(unsupported());
        };
        let literal = value.strip_prefix('\'').map(|inner| quoted(inner).0);
        match (field.to_ascii_lowercase().as_str(), operator, literal) {
            ("internetmessageid", "eq", Some(value)) => Ok(Self::InternetMessageId(value)),
            ("subject", "eq", Some(value)) => Ok(Self::Subject(value)),
            ("isread", "eq", None) => value.parse().map(Self::IsRead).map_err(|_| unsupported()),
            ("receiveddatetime", "ge" | "gt" | "le" | "lt", None) => {
                let ms = parse_timestamp(value).ok_or_else(unsupported)?;
                Ok(Self::Received { above: operator.starts_with('g'), equal: operator.ends_with('e'), ms })
            }
            _ => Err(unsupported()),
        }
    }

    pub(crate) fn accepts(&self, content: &Content) -> bool {
        match self {
            Self::Extended(id, value) => {
                let found = extended(content, id);
                found.is_some() && (value.is_none() || found == *value)
            }
            Self::InternetMessageId(id) => content.internet_message_id == *id,
            Self::Subject(subject) => content.subject == *subject,
            Self::IsRead(read) => content.is_read == *read,
            Self::Received { above, equal, ms } => {
                (*equal && content.received_ms == *ms)
                    || if *above { content.received_ms > *ms } else { content.received_ms < *ms }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        let id = "String {00020329-0000-0000-c000-000000000046} Name Key";
        let text = format!("singleValueExtendedProperties/any(ep: ep/id eq '{id}' and ep/value eq 'a''b')");
        assert_eq!(Filter::parse(&text), Ok(Filter::Extended(id.into(), Some("a'b".into()))));
        assert!(Filter::parse("subject eq 'x' and isRead eq true").is_err());
        assert!(Filter::parse("importance eq 'high'").is_err());
        assert_eq!(Filter::parse("isRead eq false"), Ok(Filter::IsRead(false)));
    }
}

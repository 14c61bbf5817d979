//! What lists of objects can be filtered by.

use serde_json::{Map, Value};

use crate::http::{Call, Refusal, refuse};
use crate::query::{literals, quoted};

/// One condition; conjunctions are not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Extended property, and its value when one is asked for.
    Extended(String, Option<String>),
    /// A text property, in the spelling given.
    Equals(String, String),
}

impl Condition {
    /// From `$filter`; `by` are the properties that may be compared.
    pub(crate) fn of(call: &Call, by: &[&str]) -> Result<Option<Self>, Refusal> {
        call.query.get("$filter").map(|text| Self::parse(text, by)).transpose()
    }

    fn parse(text: &str, by: &[&str]) -> Result<Self, Refusal> {
        let unsupported =
            || refuse(400, "ErrorInvalidUrlQueryFilter", format!("The filter '{text}' is not supported"));
        if text.to_ascii_lowercase().starts_with("singlevalueextendedproperties/any(") {
            let id = literals(text, "/id eq ").into_iter().next().ok_or_else(unsupported)?;
            return Ok(Self::Extended(id, literals(text, "/value eq ").into_iter().next()));
        }
        let (name, literal) = text.split_once(" eq '").ok_or_else(unsupported)?;
        let (value, rest) = quoted(literal);
        if !rest.trim().is_empty() || !by.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) {
            return Err(unsupported());
        }
        Ok(Self::Equals(name.trim().into(), value))
    }

    /// Whether a thing with one text property is accepted; without a condition everything is.
    pub(crate) fn accepts_text(condition: Option<&Self>, name: &str, text: &str) -> bool {
        match condition {
            None => true,
            Some(Self::Extended(..)) => false,
            Some(Self::Equals(by, value)) => by.eq_ignore_ascii_case(name) && value == text,
        }
    }

    pub(crate) fn accepts(&self, fields: &Map<String, Value>, extended: &[(String, String)]) -> bool {
        match self {
            Self::Extended(id, value) => extended.iter().any(|(known, found)| {
                known.eq_ignore_ascii_case(id) && value.as_ref().is_none_or(|value| value == found)
            }),
            Self::Equals(name, value) => {
                let found = fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.and_then(|(_, found)| found.as_str()).is_some_and(|found| found == value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_understood_or_refused() {
        let parse = |text: &str| Condition::parse(text, &["displayName"]).map_err(|refusal| refusal.status);
        let any =
            "singleValueExtendedProperties/any(ep: ep/id eq 'String {x} Name Key' and ep/value eq 'a''b')";
        assert_eq!(parse(any), Ok(Condition::Extended("String {x} Name Key".into(), Some("a'b".into()))));
        assert_eq!(
            parse("displayName eq 'O''Neil'"),
            Ok(Condition::Equals("displayName".into(), "O'Neil".into()))
        );
        assert_eq!(parse("displayName eq 'x' and surname eq 'y'"), Err(400));
        assert_eq!(parse("surname eq 'y'"), Err(400));
        assert_eq!(parse("startswith(displayName,'x')"), Err(400));
    }
}

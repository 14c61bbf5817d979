//! Percent-encoding of ids, names and query values.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$');

/// What OData uses in a value and a query may hold as it is.
const QUERY_VALUE: &AsciiSet = &SEGMENT
    .remove(b'(')
    .remove(b')')
    .remove(b',')
    .remove(b'=')
    .remove(b'/')
    .remove(b':')
    .remove(b'\'')
    .remove(b';');

/// An id as a path segment: Exchange ids hold `=`, `/` and `+`. Dots alone would climb even when encoded once.
pub(crate) fn segment(id: &str) -> String {
    match id {
        "." => "%252E".to_owned(),
        ".." => "%252E%252E".to_owned(),
        _ => utf8_percent_encode(id, SEGMENT).to_string(),
    }
}

pub(crate) fn query_value(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

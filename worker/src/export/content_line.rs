//! Lines of iCalendar (RFC 5545) and vCard (RFC 2426): escaped, and folded at 75 bytes.

use std::fmt::Write as _;

/// A line is at most so long, without its end (RFC 5545 3.1).
const MAX_LINE_BYTES: usize = 75;

/// Lines of a file in the making.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    /// A line whose value is taken as it is. The name may have parameters.
    pub(super) fn raw(&mut self, name: &str, value: &str) {
        let mut left = MAX_LINE_BYTES;
        for c in name.chars().chain([':']).chain(value.chars()) {
            if c.is_control() && c != '\t' {
                continue;
            }
            if c.len_utf8() > left {
                self.0.push_str("\r\n ");
                left = MAX_LINE_BYTES - 1;
            }
            self.0.push(c);
            left -= c.len_utf8();
        }
        self.0.push_str("\r\n");
    }

    /// A line of text; none where there is no text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.raw(name, &escaped(value));
        }
    }

    /// A line of several texts, where one of them is set.
    pub(super) fn texts(&mut self, name: &str, values: &[&str], separator: char) {
        if values.iter().any(|value| !value.is_empty()) {
            let values: Vec<String> = values.iter().map(|value| escaped(value)).collect();
            self.raw(name, &values.join(&separator.to_string()));
        }
    }

    /// All of them.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// Text as a value.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\\' | ';' | ',' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\{c}");
            }
            c => out.push(c),
        }
    }
    out
}

/// Text as the value of a parameter: quotes have no way into it.
pub(super) fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control() && *c != '"').collect();
    format!("\"{clean}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(write: impl FnOnce(&mut Lines)) -> String {
        let mut lines = Lines::default();
        write(&mut lines);
        String::from_utf8(lines.into_bytes()).unwrap()
    }

    #[test]
    fn long_lines_are_folded_between_characters() {
        let text = lines(|lines| lines.text("NOTE", &"\u{e9}".repeat(100)));
        assert!(text.split("\r\n").all(|line| line.len() <= 75));
        assert_eq!(text.replace("\r\n ", ""), format!("NOTE:{}\r\n", "\u{e9}".repeat(100)));
    }

    #[test]
    fn what_has_a_meaning_is_escaped_and_what_is_not_set_is_left_out() {
        assert_eq!(lines(|lines| lines.text("NOTE", "a;b,c\\d\r\ne")), "NOTE:a\\;b\\,c\\\\d\\ne\r\n");
        assert_eq!(lines(|lines| lines.text("NOTE", "")), "");
        assert_eq!(lines(|lines| lines.texts("N", &["a", "", "b;"], ';')), "N:a;;b\\;\r\n");
        assert_eq!(lines(|lines| lines.texts("N", &["", ""], ';')), "");
        assert_eq!(quoted("a\"b\n"), "\"ab\"");
    }
}

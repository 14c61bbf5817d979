//! What a search asks for: words and filters, all of which must match.

use holdfast_repository::ItemEntry;
use holdfast_runtime::ByteSize;

use super::super::properties::Properties;
use crate::error::Error;

/// Characters of a query: more is a mistake, and each word costs time for every item.
const MAX_QUERY_CHARS: usize = 1_000;
const FILTERS: &str = "from:, to:, after:, before:, larger: and in:";

/// A query; what is compared with texts is in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Each is in the item's name, or in the name or address of somebody it has to do with.
    words: Vec<String>,
    from: Vec<String>,
    to: Vec<String>,
    /// From this moment on.
    after_ms: Option<u64>,
    /// Before this moment.
    before_ms: Option<u64>,
    /// At least so many bytes.
    larger: Option<u64>,
    /// Paths or ids of folders: in all of them, or below.
    pub(super) folders: Vec<String>,
}

impl Query {
    /// Reads `budget from:ann after:2026-01-01`. What stands in double quotes is one word.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.chars().count() > MAX_QUERY_CHARS {
            return Err(refused(text, format!("write at most {MAX_QUERY_CHARS} characters")));
        }
        let mut query = Self::default();
        for term in terms(text)? {
            query.add(&term)?;
        }
        if query == Self::default() {
            return Err(refused(text, format!("write words to look for, or filters: {FILTERS}")));
        }
        Ok(query)
    }

    fn add(&mut self, term: &Term) -> Result<(), Error> {
        let value = term.value.to_lowercase();
        match term.filter.as_str() {
            "" => self.words.push(value),
            "from" => self.from.push(value),
            "to" => self.to.push(value),
            // As it was written: it may be an id.
            "in" => self.folders.push(term.value.clone()),
            // Of two, the narrower one counts: all must match.
            "after" => self.after_ms = self.after_ms.max(Some(moment(&term.value)?)),
            "before" => {
                let before = moment(&term.value)?;
                self.before_ms = Some(self.before_ms.map_or(before, |other| other.min(before)));
            }
            "larger" => self.larger = self.larger.max(Some(size(&term.value)?)),
            other => {
                let problem = format!(
                    "the filters are {FILTERS}; put the text in double quotes to search for it as it is"
                );
                return Err(refused(&format!("{other}:"), problem));
            }
        }
        Ok(())
    }

    /// Whether an item can match, by what is known of it before its properties are read.
    pub(super) fn may_match(&self, item: &ItemEntry) -> bool {
        self.larger.is_none_or(|least| item.size >= least && !item.kind.is_container())
    }

    /// Whether an item matches by its properties.
    pub(super) fn matches(&self, item: &ItemEntry, properties: &Properties) -> bool {
        self.matches_time(properties.time_ms(item.kind)) && self.matches_text(item, properties)
    }

    fn matches_time(&self, time_ms: Option<u64>) -> bool {
        if self.after_ms.is_none() && self.before_ms.is_none() {
            return true;
        }
        // Without a time it was at no time.
        time_ms.is_some_and(|time| {
            self.after_ms.is_none_or(|after| time >= after)
                && self.before_ms.is_none_or(|before| time < before)
        })
    }

    fn matches_text(&self, item: &ItemEntry, properties: &Properties) -> bool {
        if self.words.is_empty() && self.from.is_empty() && self.to.is_empty() {
            return true;
        }
        let from: Vec<String> = properties.senders().map(str::to_lowercase).collect();
        let to: Vec<String> = properties.recipients().map(str::to_lowercase).collect();
        let name = properties.name(item.kind).to_lowercase();
        let is_in = |texts: &[String], word: &String| texts.iter().any(|text| text.contains(word));
        self.from.iter().all(|word| is_in(&from, word))
            && self.to.iter().all(|word| is_in(&to, word))
            && self.words.iter().all(|word| name.contains(word) || is_in(&from, word) || is_in(&to, word))
    }
}

/// `from:ann`, or `budget` without a filter.
#[derive(Debug, Default)]
struct Term {
    filter: String,
    value: String,
}

/// Splits at blanks outside double quotes; a filter is what stands before the first colon, unless a quote comes first.
fn terms(text: &str) -> Result<Vec<Term>, Error> {
    let mut terms = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut term = Term::default();
        let (mut is_quoted, mut was_quoted, mut end) = (false, false, rest.len());
        for (at, c) in rest.char_indices() {
            match c {
                '"' => (is_quoted, was_quoted) = (!is_quoted, true),
                c if c.is_whitespace() && !is_quoted => {
                    end = at;
                    break;
                }
                ':' if !was_quoted && term.filter.is_empty() && is_filter(&term.value, &rest[at + 1..]) => {
                    term.filter = std::mem::take(&mut term.value).to_lowercase();
                }
                c => term.value.push(c),
            }
        }
        if is_quoted {
            return Err(refused(text, "a double quote is not closed".to_owned()));
        }
        if term.value.is_empty() && !term.filter.is_empty() {
            return Err(refused(&format!("{}:", term.filter), "write what to look for behind it".to_owned()));
        }
        if !term.value.is_empty() {
            terms.push(term);
        }
        rest = rest[end..].trim_start();
    }
    Ok(terms)
}

/// `Re:`, `14:30` and `https://…` are words.
fn is_filter(before: &str, behind: &str) -> bool {
    let is_word = !before.is_empty() && before.chars().all(|c| c.is_ascii_alphabetic());
    let is_last = behind.is_empty() || behind.starts_with(char::is_whitespace);
    let is_known =
        FILTERS.split([' ', ',']).any(|filter| filter.strip_suffix(':') == Some(&before.to_lowercase()));
    is_known || (is_word && !is_last && !behind.starts_with("//"))
}

/// A day, which begins at midnight UTC, or an exact time.
fn moment(text: &str) -> Result<u64, Error> {
    let day = text.parse::<jiff::civil::Date>().ok();
    let day = day.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok()).map(|day| day.timestamp());
    let at = text.parse::<jiff::Timestamp>().ok().or(day);
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
        .ok_or_else(|| refused(text, "write a day as 2026-01-31".to_owned()))
}

fn size(text: &str) -> Result<u64, Error> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.0).map_err(|_| refused(text, "write a size as 500KB or 10MiB".to_owned()))
}

fn refused(text: &str, problem: String) -> Error {
    Error::Invalid { field: "query", value: text.chars().take(60).collect(), problem }
}

#[cfg(test)]
mod tests;

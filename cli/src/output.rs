//! Data for people (aligned tables) and for scripts (`--json`), both on stdout.

use std::io::Write as _;

use holdfast_model::Account;
use serde::Serialize;

use crate::error::CliError;

/// Prints a line of data to stdout, like `println!`, except that a reader who has gone away (`| head`) is no defect of ours.
macro_rules! say {
    () => { $crate::output::data(format_args!("")) };
    ($($text:tt)*) => { $crate::output::data(format_args!($($text)*)) };
}

/// Prints a line about the work to stderr, like `eprintln!`, with the same exception.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::aside(format_args!($($text)*)) };
}

pub(crate) use {note, say};

/// Prints one line to stdout: use [`say!`].
pub fn data(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints one line to stderr: use [`note!`].
pub fn aside(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What stands before each step that a long command announces.
pub const BULLET: &str = "\u{2022}";

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences.
    Text,
    /// One JSON document.
    Json,
}

impl Format {
    /// Prints a document as JSON, or lets `text` print it for people.
    pub fn print<T: Serialize>(self, document: &T, text: impl FnOnce(&T)) -> Result<(), CliError> {
        match self {
            Self::Text => text(document),
            Self::Json => {
                let json = serde_json::to_string_pretty(document).map_err(CliError::failed)?;
                say!("{json}");
            }
        }
        Ok(())
    }

    /// Like [`print`](Self::print), with the JSON on one line: for what a script reads line by line while the command goes on.
    pub fn print_line<T: Serialize>(self, document: &T, text: impl FnOnce(&T)) -> Result<(), CliError> {
        match self {
            Self::Text => text(document),
            Self::Json => say!("{}", serde_json::to_string(document).map_err(CliError::failed)?),
        }
        Ok(())
    }
}

/// A table whose columns are as wide as their widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Prints it, or a sentence when it has no rows.
    pub fn print(&self, when_empty: &str) {
        if self.rows.len() == 1 {
            say!("{when_empty}");
            return;
        }
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

/// A number of bytes as people read it.
#[allow(clippy::cast_precision_loss)]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time stamp in UTC, to the second; a dash for none.
pub fn time(ms: u64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "-".to_owned(), |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A length of time in seconds or minutes.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number of things: `1 job`, `2 jobs`.
pub fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// An account on one line: only what is not zero. The kind of the job decides what `stored` and `skipped` are called.
pub fn account(account: &Account, kind: &str) -> String {
    let (stored, skipped) = match kind {
        "restore" => ("restored", "there already"),
        "export" => ("written", "skipped"),
        "verify" => ("proved", "outside the sample"),
        _ => ("stored", "skipped"),
    };
    let parts = [
        (stored, account.stored),
        ("of them with a part missing", account.incomplete),
        ("unchanged", account.unchanged),
        (skipped, account.skipped),
        ("gone", account.gone),
        ("failed, will be tried again", account.failed_retryable),
        ("failed for good", account.failed_permanent),
        ("removed", account.removed),
        ("carried", account.carried),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if shown.is_empty() { "nothing to do".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use holdfast_model::JobState;
    use holdfast_proto::coordinator::Job;
    use holdfast_runtime::Exit;

    use super::*;
    use crate::follow;

    #[test]
    fn sizes_read_like_a_person_writes_them() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn an_account_shows_only_what_happened() {
        let happened = Account { stored: 3, skipped: 2, removed: 1, ..Account::default() };
        assert_eq!(account(&happened, "backup"), "3 stored, 2 skipped, 1 removed");
        assert_eq!(account(&happened, "restore"), "3 restored, 2 there already, 1 removed");
        assert_eq!(account(&happened, "verify"), "3 proved, 2 outside the sample, 1 removed");
        let incomplete = Account { incomplete: 1, ..happened };
        let shown = "3 stored, 1 of them with a part missing, 2 skipped, 1 removed";
        assert_eq!(account(&incomplete, "backup"), shown);
        assert_eq!(account(&Account::default(), "backup"), "nothing to do");
    }

    #[test]
    fn a_run_that_stored_something_with_a_part_missing_ends_with_exceptions() {
        let job = |incomplete| Job {
            state: JobState::Done.as_str().to_owned(),
            account: Some(Account { listed: 3, stored: 3, incomplete, ..Account::default() }.into()),
            ..Job::default()
        };
        assert_eq!(follow::exit(&[job(0), job(0)]), Exit::Ok);
        assert_eq!(follow::exit(&[job(0), job(1)]), Exit::Exceptions);
    }
}

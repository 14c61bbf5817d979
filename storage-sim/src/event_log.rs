//! What happened in a run: every line goes into one hash, so that two runs of a seed can be compared.

use std::{
    collections::VecDeque,
    fmt,
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

/// The last lines kept to explain a violation.
const LINES_KEPT: usize = 60;

/// Whether each line is written out as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Only kept.
    Off,
    /// Written to standard error.
    On,
}

/// The log of one run.
pub struct EventLog {
    start: Instant,
    trace: Trace,
    lines: Mutex<Lines>,
}

struct Lines {
    hasher: blake3::Hasher,
    n: u64,
    last: VecDeque<String>,
}

impl EventLog {
    /// An empty log of a world that begins now.
    pub fn new(start: Instant, trace: Trace) -> Self {
        let lines = Lines { hasher: blake3::Hasher::new(), n: 0, last: VecDeque::new() };
        Self { start, trace, lines: Mutex::new(lines) }
    }

    /// Adds a line.
    pub fn add(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.3} ms  {what}", self.start.elapsed().as_secs_f64() * 1e3);
        if self.trace == Trace::On {
            // A closed pipe ends the reader's interest, not the run.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.hasher.update(line.as_bytes()).update(b"\n");
        lines.n += 1;
        if lines.last.len() >= LINES_KEPT {
            lines.last.pop_front();
        }
        lines.last.push_back(line);
    }

    /// How many lines, and the hash over all of them.
    pub fn summary(&self) -> (u64, String) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.n, lines.hasher.finalize().to_hex().to_string())
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.last.iter().cloned().collect()
    }
}

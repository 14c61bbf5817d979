//! Takes a message apart while it streams by, and the contents of its runs with it.
//!
//! Invariant: the events, with literals that follow each other joined, do not depend on how the bytes are split over
//! [`Splitter::push`].

use super::{Form, LastLine, MAX_DEPTH, MAX_RUNS, scanner::LineScanner};

/// A step in putting the message together. The message is the outermost content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the innermost open content.
    Literal(Vec<u8>),
    /// A run starts in it; what the run decodes to becomes the innermost content.
    Open(Form),
    /// The innermost content is whole, and how its run ends.
    Close(LastLine),
}

/// Finds the runs of one message.
pub struct Splitter {
    /// One for the message, one for the contents of each depth but the last, which are not looked through.
    levels: Vec<LineScanner>,
    out: Out,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// Starts a message.
    pub fn new() -> Self {
        let levels = (0..MAX_DEPTH).map(|_| LineScanner::default()).collect();
        Self { levels, out: Out { events: Vec::new(), runs_left: MAX_RUNS } }
    }

    /// What is decided by the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        Sink { below: &mut self.levels, out: &mut self.out }.decoded(bytes);
        std::mem::take(&mut self.out.events)
    }

    /// What the end decides.
    pub fn finish(mut self) -> Vec<Event> {
        Sink { below: &mut self.levels, out: &mut self.out }.end();
        self.out.events
    }
}

struct Out {
    events: Vec<Event>,
    runs_left: usize,
}

/// Where a scanner's findings go: literals out, decoded bytes to the scanner below.
pub(super) struct Sink<'a> {
    below: &'a mut [LineScanner],
    out: &'a mut Out,
}

impl Sink<'_> {
    pub(super) fn literal(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.out.events.last_mut() {
            Some(Event::Literal(before)) => before.extend_from_slice(bytes),
            _ => self.out.events.push(Event::Literal(bytes.to_vec())),
        }
    }

    /// Starts a run, unless there are too many.
    pub(super) fn open(&mut self, form: Form) -> bool {
        let Some(left) = self.out.runs_left.checked_sub(1) else { return false };
        self.out.runs_left = left;
        self.out.events.push(Event::Open(form));
        true
    }

    pub(super) fn decoded(&mut self, bytes: &[u8]) {
        match self.below.split_first_mut() {
            Some((scanner, below)) => scanner.push(bytes, &mut Sink { below, out: self.out }),
            None => self.literal(bytes),
        }
    }

    pub(super) fn close(&mut self, last: LastLine) {
        self.end();
        self.out.events.push(Event::Close(last));
    }

    fn end(&mut self) {
        if let Some((scanner, below)) = self.below.split_first_mut() {
            scanner.finish(&mut Sink { below, out: self.out });
        }
    }
}

//! Writes a run again: base64 in lines of one length.
//!
//! Invariant: what comes out does not depend on how the bytes are split over [`LineEncoder::push`].

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Form, LastLine};

pub(super) struct LineEncoder {
    form: Form,
    /// Less than a full line.
    pending: Vec<u8>,
    /// A line was written, its break was not: whether it has one shows when another line follows, or at the end.
    owes_break: bool,
}

impl LineEncoder {
    pub(super) fn new(form: Form) -> Self {
        Self { form, pending: Vec::with_capacity(form.line_bytes()), owes_break: false }
    }

    /// The lines that are complete now.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let line = self.form.line_bytes();
        let mut out =
            Vec::with_capacity((self.pending.len() + bytes.len()) / line * self.form.line_len() + 2);
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(line - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() < line {
                return out;
            }
            let whole = std::mem::take(&mut self.pending);
            self.line(&whole, &mut out);
            self.pending = whole;
            self.pending.clear();
        }
        let mut lines = bytes.chunks_exact(line);
        for whole in &mut lines {
            self.line(whole, &mut out);
        }
        self.pending.extend_from_slice(lines.remainder());
        out
    }

    /// What is left.
    pub(super) fn finish(mut self, last: LastLine) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.line(&rest, &mut out);
        }
        if self.owes_break && last == LastLine::Ended {
            out.extend_from_slice(self.form.eol.bytes());
        }
        out
    }

    fn line(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.owes_break, true) {
            out.extend_from_slice(self.form.eol.bytes());
        }
        let start = out.len();
        out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for every character");
    }
}

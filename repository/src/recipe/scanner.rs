//! Finds the runs of one content, line by line.
//!
//! Memory: one line of at most [`MAX_LINE_BYTES`], and what may become a run until it decodes to [`MIN_RUN_BYTES`]. Invariant:
//! a line becomes part of a run only if it is exactly what the decoded bytes are written as, so that nothing can be lost.

use std::io::BufRead as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Eol, Form, LastLine, MAX_CELLS, MIN_RUN_BYTES, splitter::Sink};

/// The longest line of a run, with its break.
const MAX_LINE_BYTES: usize = MAX_CELLS as usize * 4 + 2;
/// Decoded bytes of an open run are handed on in pieces of this.
const PIECE_BYTES: usize = 4 << 10;

#[derive(Default)]
pub(super) struct LineScanner {
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// The line that has not ended is too long for a run; its start was handed on.
    is_long: bool,
    run: Option<OpenRun>,
}

/// Lines of one form, handed on as a run once there are enough.
struct OpenRun {
    form: Form,
    /// The lines as they came, while it is not known whether they are a run.
    held: Vec<u8>,
    decoded: Vec<u8>,
    is_open: bool,
}

/// What a line is to the run before it.
enum Fit {
    Full,
    Last(LastLine),
    No,
}

impl LineScanner {
    pub(super) fn push(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(line_len(bytes));
            bytes = rest;
            let ends = piece.last() == Some(&b'\n');
            if self.is_long {
                sink.literal(piece);
                self.is_long = !ends;
            } else if self.line.is_empty() && ends {
                self.take_line(piece, sink);
            } else if self.line.len() + piece.len() > MAX_LINE_BYTES {
                self.end_run(LastLine::Ended, sink);
                sink.literal(&std::mem::take(&mut self.line));
                sink.literal(piece);
                self.is_long = !ends;
            } else {
                self.line.extend_from_slice(piece);
                if ends {
                    self.take_held_line(sink);
                }
            }
        }
    }

    /// Ends the content; the next bytes are those of another.
    pub(super) fn finish(&mut self, sink: &mut Sink<'_>) {
        if !self.line.is_empty() {
            self.take_held_line(sink);
        }
        self.end_run(LastLine::Ended, sink);
        self.is_long = false;
    }

    fn take_held_line(&mut self, sink: &mut Sink<'_>) {
        let mut line = std::mem::take(&mut self.line);
        self.take_line(&line, sink);
        line.clear();
        self.line = line;
    }

    /// A line with its break, or the last one of the content without.
    fn take_line(&mut self, line: &[u8], sink: &mut Sink<'_>) {
        let (chars, eol) = split_break(line);
        let mut buffer = [0; MAX_CELLS as usize * 3];
        let Some(decoded) = decode(chars, &mut buffer) else {
            self.end_run(LastLine::Ended, sink);
            return sink.literal(line);
        };
        if let Some(run) = &mut self.run {
            match run.fit(chars, eol) {
                Fit::Full => return self.append(line, decoded, sink),
                Fit::Last(last) => {
                    self.append(line, decoded, sink);
                    return self.end_run(last, sink);
                }
                Fit::No => self.end_run(LastLine::Ended, sink),
            }
        }
        match (u8::try_from(chars.len() / 4), eol) {
            (Ok(cells), Some(eol)) if chars.last() != Some(&b'=') => {
                let form = Form { cells, eol };
                self.run = Some(OpenRun { form, held: Vec::new(), decoded: Vec::new(), is_open: false });
                self.append(line, decoded, sink);
            }
            _ => sink.literal(line),
        }
    }

    fn append(&mut self, line: &[u8], decoded: &[u8], sink: &mut Sink<'_>) {
        let Some(run) = &mut self.run else { return };
        run.decoded.extend_from_slice(decoded);
        if run.is_open {
            if run.decoded.len() >= PIECE_BYTES {
                run.hand_on(sink);
            }
            return;
        }
        run.held.extend_from_slice(line);
        if run.decoded.len() >= MIN_RUN_BYTES {
            if sink.open(run.form) {
                run.is_open = true;
                run.held = Vec::new();
                run.hand_on(sink);
            } else {
                self.end_run(LastLine::Ended, sink);
            }
        }
    }

    fn end_run(&mut self, last: LastLine, sink: &mut Sink<'_>) {
        let Some(mut run) = self.run.take() else { return };
        if run.is_open {
            run.hand_on(sink);
            sink.close(last);
        } else {
            sink.literal(&run.held);
        }
    }
}

impl OpenRun {
    fn fit(&self, chars: &[u8], eol: Option<Eol>) -> Fit {
        let full = self.form.line_chars();
        match eol {
            Some(eol) if eol != self.form.eol => Fit::No,
            _ if chars.len() > full => Fit::No,
            None => Fit::Last(LastLine::Open),
            Some(_) if chars.len() == full && chars.last() != Some(&b'=') => Fit::Full,
            Some(_) => Fit::Last(LastLine::Ended),
        }
    }

    fn hand_on(&mut self, sink: &mut Sink<'_>) {
        sink.decoded(&self.decoded);
        self.decoded.clear();
    }
}

/// The bytes up to and with the first line break; all of them when there is none.
fn line_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    // Reading from a slice cannot fail.
    rest.skip_until(b'\n').unwrap_or(bytes.len())
}

fn split_break(line: &[u8]) -> (&[u8], Option<Eol>) {
    match line {
        [chars @ .., b'\r', b'\n'] => (chars, Some(Eol::CrLf)),
        [chars @ .., b'\n'] => (chars, Some(Eol::Lf)),
        chars => (chars, None),
    }
}

/// The bytes of a line that is whole cells of canonical base64.
fn decode<'a>(chars: &[u8], buffer: &'a mut [u8; MAX_CELLS as usize * 3]) -> Option<&'a [u8]> {
    if chars.is_empty() || !chars.len().is_multiple_of(4) || chars.len() > usize::from(MAX_CELLS) * 4 {
        return None;
    }
    let len = STANDARD.decode_slice(chars, buffer).ok()?;
    Some(&buffer[..len])
}

//! Puts a message together from the events of a [`super::Splitter`], as a reader will from the recipe.

use std::borrow::Cow;

use super::{Event, encoder::LineEncoder};

/// Turns events back into bytes.
#[derive(Default)]
pub struct Rebuilder {
    /// Of the open runs, from the outermost.
    encoders: Vec<LineEncoder>,
}

impl Rebuilder {
    /// Starts a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of the message that are known now.
    pub fn take<'a>(&mut self, event: &'a Event) -> Cow<'a, [u8]> {
        match event {
            Event::Literal(bytes) => self.outwards(Cow::Borrowed(bytes)),
            Event::Open(form) => {
                self.encoders.push(LineEncoder::new(*form));
                Cow::Borrowed(&[])
            }
            Event::Close(last) => match self.encoders.pop() {
                Some(encoder) => self.outwards(Cow::Owned(encoder.finish(*last))),
                None => Cow::Borrowed(&[]),
            },
        }
    }

    /// What the bytes of the innermost content are in the message.
    fn outwards<'a>(&mut self, bytes: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        self.encoders.iter_mut().rev().fold(bytes, |bytes, encoder| Cow::Owned(encoder.push(&bytes)))
    }
}

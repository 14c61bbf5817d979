//! Whatever a message is, what is taken apart makes the same bytes, and how the bytes came changes nothing.
//!
//! The first byte says how long the pieces are. Every byte 0xFF in the rest stands for a run of base64 long enough to be taken
//! out: a fuzzer would never find twelve kilobytes of it by itself. What follows it is its seed, length and line length.
#![no_main]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_repository::recipe::{Event, MIN_RUN_BYTES, Rebuilder, Splitter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let message = expand(rest);
    let piece = usize::from(*first) * 37 + 1;
    let events = split(&message, piece);
    let mut rebuilder = Rebuilder::new();
    let rebuilt: Vec<u8> = events.iter().flat_map(|event| rebuilder.take(event).into_owned()).collect();
    assert!(rebuilt == message, "{} bytes came back otherwise", message.len());
    assert!(events == split(&message, usize::MAX), "pieces of {piece} make other events");
});

fn expand(input: &[u8]) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), input);
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        match (byte, more) {
            (0xFF, [seed, len, cells, after @ ..]) if message.len() < 64 << 10 => {
                rest = after;
                let bytes = vec![*seed; MIN_RUN_BYTES - 64 + usize::from(*len)];
                let line = (usize::from(*cells) + 1) * 4;
                for chars in STANDARD.encode(bytes).as_bytes().chunks(line) {
                    message.extend_from_slice(chars);
                    message.extend_from_slice(if seed % 2 == 0 { b"\r\n" } else { b"\n" });
                }
            }
            // Everything before is written as base64 itself: runs in runs.
            (0xFE, [_, ..]) if message.len() < 96 << 10 => {
                let text = STANDARD.encode(&message);
                message.clear();
                for chars in text.as_bytes().chunks(76) {
                    message.extend_from_slice(chars);
                    message.extend_from_slice(b"\r\n");
                }
            }
            _ => message.push(*byte),
        }
    }
    message
}

/// The events with literals that follow each other joined.
fn split(message: &[u8], piece: usize) -> Vec<Event> {
    let mut splitter = Splitter::new();
    let mut all: Vec<Event> = Vec::new();
    let mut add = |events: Vec<Event>| {
        for event in events {
            match (all.last_mut(), event) {
                (Some(Event::Literal(before)), Event::Literal(more)) => before.extend(more),
                (_, event) => all.push(event),
            }
        }
    };
    message.chunks(piece).for_each(|piece| add(splitter.push(piece)));
    add(splitter.finish());
    all
}

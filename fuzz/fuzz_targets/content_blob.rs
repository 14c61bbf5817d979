//! No bytes make the reader of content blobs and recipes panic.
#![no_main]

use holdfast_repository::check_content_blob;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = check_content_blob(input);
});

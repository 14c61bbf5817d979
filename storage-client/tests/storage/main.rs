//! The storage client against fake nodes over real mTLS sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cluster;
mod fake;
mod moves;
mod pins;
mod reads;
mod sessions;
mod writes;

//! The only code that talks to Microsoft: tokens, requests, paging, errors and the quota that all workers share.
//!
//! The one invariant to know: no request leaves without a permit of the [`QuotaLedger`], and the bearer token goes to the
//! configured Graph host only, never across a redirect and never to an upload or download address.

mod api;
mod auth;
mod body;
mod challenge;
mod client;
mod cloud;
mod error;
mod json;
mod metrics;
mod page;
mod quick_xor_hash;
mod quota;
mod rate_limit;
mod request;
mod retry_after;
#[cfg(test)]
mod testing;

pub use api::*;
pub use auth::{
    AccessToken, AppCredentials, ClientCredentials, Credential, HeldToken, MAX_TOKEN_WAIT, Rejection,
    TokenFingerprint, TokenSource,
};
pub use body::MimeStream;
pub use challenge::Claims;
pub use client::{GraphClient, GraphOptions};
pub use cloud::{Cloud, ParseCloudError};
pub use error::{ErrorClass, GraphError, StatusError};
pub use page::Page;
pub use quick_xor_hash::QuickXorHash;
pub use quota::{
    ClassShares, Cost, LedgerError, LocalLedger, Permit, QuotaKey, QuotaLedger, QuotaLimits, RedisLedger,
    Scope, Shortage, Slot, Weight, WindowUse,
};
pub use rate_limit::{Left, RateLimit};

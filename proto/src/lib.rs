//! The wire between Holdfast's processes: code generated from `proto/holdfast/<area>/v1`, and conversions to the nouns of
//! `model`.
//!
//! [`storage`] is what storage nodes speak, [`coordinator`] what the coordinator speaks to workers and operators.
//! [`convert`] turns raw bytes and words into typed ids and back; [`signed`] signs and checks session tokens and commit
//! tickets; [`status`] is the closed set of error codes at every gRPC edge.

pub mod convert;
mod secret;
pub mod signed;
pub mod status;

// The folders of the packages, because generated code finds its neighbours by `super`.
mod holdfast {
    #![allow(clippy::all, clippy::too_many_lines, clippy::unwrap_used, missing_docs)]
    pub mod storage {
        pub mod v1 {
            tonic::include_proto!("holdfast.storage.v1");
        }
    }
    pub mod coordinator {
        pub mod v1 {
            tonic::include_proto!("holdfast.coordinator.v1");
        }
    }
}

pub use holdfast::{coordinator::v1 as coordinator, storage::v1 as storage};

/// The protocol versions this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// See [`PROTOCOL_MIN`].
pub const PROTOCOL_MAX: u32 = 1;
/// The metadata key of the session token on calls to storage nodes.
pub const SESSION_TOKEN_METADATA: &str = "holdfast-session-token-bin";
/// The metadata key of the version of the layout that a caller of storage nodes works by, in decimal.
pub const LAYOUT_VERSION_METADATA: &str = "holdfast-layout-version";

//! What every daemon does alike: configuration, telemetry, shutdown, background loops, retry, and gRPC with mTLS.
//!
//! Nothing here knows what a job or a chunk is. The invariant to know: time and randomness enter a process here
//! ([`SystemClock`], [`SystemRandom`]) and are passed on; nobody else reads them from the environment.

pub mod admin;
pub mod background;
mod clock;
pub mod config;
pub mod grpc;
mod identity;
mod metrics;
pub mod pki;
pub mod process;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
pub mod trace_context;
mod verifier;

pub use admin::{Admin, Readiness, ReadinessProbe, ReadyFlag};
pub use background::{Background, LoopState, LoopStatus, Step};
pub use clock::{SystemClock, SystemRandom};
pub use config::{ByteSize, ConfigError, HumanDuration};
pub use grpc::{Channels, GrpcError, RoleTable, TlsOptions, TraceInjector};
pub use identity::{IdentityError, PeerIdentity};
pub use pki::{Pki, PkiError, SigningKeyFiles, TlsFiles};
pub use process::Exit;
pub use retry::{Backoff, BackoffError, Retryable, retry};
pub use shutdown::Shutdown;
pub use telemetry::{LogFormat, TelemetryError, TelemetryGuard, TelemetryOptions};

/// Makes aws-lc-rs the process-wide TLS provider. May be called any number of times.
pub fn install_crypto() {
    // The only failure is that a provider is there already, which is what was asked for.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

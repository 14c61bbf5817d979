//! What a role could not start with, as one line and its exit code: 64 when a setting, or a file a setting names, is at fault;
//! 1 when it is the surroundings.

use std::error::Error;

use holdfast_job_queue::QueueError;
use holdfast_repository::KeyError;
use holdfast_runtime::GrpcError;

use crate::error::CliError;

/// An error of a role that could not start, or went on badly.
pub trait StartupError: Error {
    /// Whether the configuration is what must be corrected.
    fn is_configuration(&self) -> bool;
}

/// One line with every cause, and the exit code.
pub fn failed(error: impl StartupError) -> CliError {
    if error.is_configuration() { CliError::config(chain(&error)) } else { CliError::failed(chain(&error)) }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors show their cause already.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

impl StartupError for holdfast_coordinator::Error {
    fn is_configuration(&self) -> bool {
        match self {
            Self::Option { .. } | Self::Layout(_) | Self::File { .. } | Self::Signing(_) => true,
            Self::Key(KeyError::Missing { .. } | KeyError::Io { .. }) => true,
            Self::Ledger(error) => error.code() == "configuration",
            Self::Queue(error) => is_queue_setting(error),
            Self::Grpc(error) => is_grpc_setting(error),
            _ => false,
        }
    }
}

impl StartupError for holdfast_worker::Error {
    fn is_configuration(&self) -> bool {
        match self {
            Self::Setting { .. } => true,
            Self::Ledger(error) => error.code() == "configuration",
            Self::Queue(error) => is_queue_setting(error),
            Self::Grpc(error) => is_grpc_setting(error),
            _ => false,
        }
    }
}

impl StartupError for holdfast_storage_node::Error {
    fn is_configuration(&self) -> bool {
        match self {
            Self::Option { .. } => true,
            // Before it listens a node reads the files of its settings, and its own, which it makes where they are missing.
            Self::Io { action: "read", source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Grpc(error) => error.downcast_ref().is_some_and(is_grpc_setting),
            _ => false,
        }
    }
}

impl StartupError for holdfast_graph_sim::SimError {
    fn is_configuration(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

fn is_queue_setting(error: &QueueError) -> bool {
    matches!(error, QueueError::Url | QueueError::PasswordFile { .. } | QueueError::Region { .. })
}

fn is_grpc_setting(error: &GrpcError) -> bool {
    matches!(
        error,
        GrpcError::ReadFile { .. }
            | GrpcError::BadCertificate { .. }
            | GrpcError::Identity { .. }
            | GrpcError::OtherCluster { .. }
            | GrpcError::WrongRole { .. }
            | GrpcError::KeyPair { .. }
            | GrpcError::Authority(_)
            | GrpcError::Address { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_exits_64_and_a_taken_port_exits_1() {
        let setting = holdfast_worker::Error::Setting { setting: "queue.amqp-url", problem: "missing" };
        assert_eq!(failed(setting).exit().code(), 64);
        let file = holdfast_worker::Error::Grpc(GrpcError::ReadFile {
            path: "/nowhere".into(),
            source: std::io::ErrorKind::NotFound.into(),
        });
        assert_eq!(failed(file).exit().code(), 64);
        let url = holdfast_coordinator::Error::Queue(QueueError::Url);
        assert_eq!(failed(url).exit().code(), 64);
        let taken = || GrpcError::AddressInUse { address: "127.0.0.1:1".to_owned() };
        assert_eq!(failed(holdfast_coordinator::Error::Grpc(taken())).exit().code(), 1);
        assert_eq!(failed(holdfast_storage_node::Error::Grpc(Box::new(taken()))).exit().code(), 1);
        let identity =
            holdfast_storage_node::Error::Grpc(Box::new(GrpcError::Address { address: "x".into() }));
        assert_eq!(failed(identity).exit().code(), 64);
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = holdfast_worker::Error::Queue(QueueError::Url);
        assert_eq!(chain(&error).matches("amqp://").count(), 1);
    }
}

//! What a command fails with: one line that says what to do, and the exit code a script reads.

use std::fmt;

use holdfast_proto::status::ErrorCode;
use holdfast_runtime::Exit;

/// One clear line, and its exit code.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    message: String,
}

impl CliError {
    /// The command failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// The arguments do not fit together.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// A configuration file is wrong or missing.
    pub fn config(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Config, message: message.to_string() }
    }

    /// Nobody answers.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, message: message.to_string() }
    }

    /// What the process exits with.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        match ErrorCode::of(&status) {
            // Only what the transport made has a source: what the coordinator itself says is not its silence.
            ErrorCode::Unavailable if std::error::Error::source(&status).is_some() => {
                Self::unreachable(format!(
                    "the coordinator does not answer ({}); start it, or name another with --server",
                    status.message()
                ))
            }
            ErrorCode::Unavailable => Self::unreachable(status.message()),
            _ => Self::failed(status.message()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let code = |error: CliError| error.exit().code();
        assert_eq!(code(CliError::failed("x")), 1);
        assert_eq!(code(CliError::usage("x")), 2);
        assert_eq!(code(CliError::unreachable("x")), 4);
        assert_eq!(code(CliError::config("x")), 64);
        for refused in [ErrorCode::BadRequest, ErrorCode::NotFound, ErrorCode::Forbidden, ErrorCode::Internal]
        {
            let error = CliError::from(refused.status("no tenant 'x'"));
            assert_eq!((error.to_string().as_str(), code(error)), ("no tenant 'x'", 1));
        }
    }

    #[test]
    fn a_coordinator_that_answers_is_not_called_silent() {
        let error = CliError::from(ErrorCode::Unavailable.status("no storage node answers"));
        assert_eq!((error.to_string().as_str(), error.exit().code()), ("no storage node answers", 4));
        let silence = tonic::Status::from_error(Box::new(std::io::Error::other("connection refused")));
        let error = CliError::from(silence);
        assert!(error.to_string().starts_with("the coordinator does not answer"), "{error}");
        assert_eq!(error.exit().code(), 4);
    }
}

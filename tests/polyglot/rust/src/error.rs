//! Errors with the details of google.rpc.Status.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A failed call.
#[derive(Debug)]
pub struct ChatError {
    pub code: Code,
    /// An ErrorReason of the contract, without its prefix; empty where the gateway was not reached.
    pub reason: String,
    /// The invalid field of the request.
    pub param: String,
    /// The time after which the call may succeed.
    pub retry_after: Option<Duration>,
    pub request_id: String,
    status: Box<Status>,
}

impl From<Status> for ChatError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let metadata = |name| info.and_then(|i| i.metadata.get(name).cloned()).unwrap_or_default();
        let reason = match (info, status.code()) {
            (Some(info), _) => info.reason.clone(),
            // This side's deadline comes without details.
            (None, Code::DeadlineExceeded) => "TIMEOUT".to_owned(),
            _ => String::new(),
        };
        Self {
            code: status.code(),
            reason,
            param: metadata("param"),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            request_id: metadata("request_id"),
            status: Box::new(status),
        }
    }
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.code, self.reason)?;
        if !self.param.is_empty() {
            write!(f, " ({})", self.param)?;
        }
        write!(f, ": {}", self.status.message())?;
        if !self.request_id.is_empty() {
            write!(f, " [{}]", self.request_id)?;
        }
        Ok(())
    }
}

impl std::error::Error for ChatError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.status)
    }
}

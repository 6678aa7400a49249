//! Errors of the core as JavaScript errors: code, message and issues as one JSON text that the TypeScript layer reads.

use framewright_core::job::{Error, ErrorCode};

/// What is thrown: its message is the error as JSON.
pub fn thrown(error: Error) -> napi::Error {
    napi::Error::from_reason(serde_json::to_string(&error).unwrap_or(error.message))
}

/// An error with a code alone.
pub fn failure(code: ErrorCode, message: impl Into<String>) -> napi::Error {
    thrown(Error::new(code, message))
}

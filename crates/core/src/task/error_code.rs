//! Codes of errors that end an attempt.

use crate::types::name::Name;

/// Stable code that says why an attempt failed, such as `timeout` or `http_503`.
///
/// nobat's own codes are a closed list ([`ErrorCode::ALL`]). A handler may return other codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode(Name);

impl ErrorCode {
    /// The worker died, or the handler panicked.
    pub const CRASHED: &'static str = "crashed";
    /// The attempt took longer than its timeout.
    pub const TIMEOUT: &'static str = "timeout";
    /// The deadline passed before the task could start.
    pub const EXPIRED: &'static str = "expired";
    /// A client canceled the task.
    pub const CANCELED: &'static str = "canceled";
    /// The worker was told to stop.
    pub const INTERRUPTED: &'static str = "interrupted";
    /// Hints for the task were delivered repeatedly, but no worker claimed the task.
    pub const DISPATCH_FAILED: &'static str = "dispatch_failed";
    /// The payload is not valid for the kind.
    pub const INVALID_PAYLOAD: &'static str = "invalid_payload";
    /// The result of the handler cannot be stored: it is too long, or cannot be written as JSON.
    pub const INVALID_RESULT: &'static str = "invalid_result";
    /// The handler failed without a code.
    pub const HANDLER_ERROR: &'static str = "handler_error";
    /// The receiver refused the connection.
    pub const CONNECTION_REFUSED: &'static str = "connection_refused";
    /// The receiver closed the connection before its response was complete.
    pub const CONNECTION_RESET: &'static str = "connection_reset";
    /// The connection to the receiver failed for another reason.
    pub const CONNECTION_FAILED: &'static str = "connection_failed";
    /// The receiver's host name has no address.
    pub const DNS: &'static str = "dns";
    /// The receiver's certificate is not trusted, or the receiver does not speak TLS.
    pub const TLS: &'static str = "tls";
    /// The response is not HTTP, or its headers are too large.
    pub const PROTOCOL: &'static str = "protocol";
    /// The destination is not a public address.
    pub const BLOCKED_ADDRESS: &'static str = "blocked_address";
    /// The URL cannot be called.
    pub const INVALID_URL: &'static str = "invalid_url";
    /// The response to a batch holds no result for this item.
    pub const ITEM_RESULT_MISSING: &'static str = "item_result_missing";
    /// The response to a batch, or its result for this item, cannot be read as per-item results.
    pub const INVALID_RESPONSE: &'static str = "invalid_response";
    /// The response to a batch is longer than the maximum that nobat reads, so the per-item results are
    /// incomplete.
    pub const RESPONSE_TOO_LARGE: &'static str = "response_too_large";
    /// The store failed or did not respond while nobat created the tasks of an event.
    pub const STORE_UNAVAILABLE: &'static str = "store_unavailable";
    /// A subscription selected the event, but the task from its template would not be valid.
    pub const SUBSCRIPTION_FAILED: &'static str = "subscription_failed";
    /// The receiver accepted the call, but did not report the outcome before the time-out of the wait.
    pub const WAIT_TIMEOUT: &'static str = "wait_timeout";
    /// The payload told the `noop` handler to fail.
    pub const NOOP_FAILED: &'static str = "noop_failed";

    /// All codes that nobat sets by itself, except `http_` followed by the status of a response.
    pub const ALL: [&'static str; 24] = [
        Self::TIMEOUT,
        Self::CONNECTION_REFUSED,
        Self::CONNECTION_RESET,
        Self::CONNECTION_FAILED,
        Self::DNS,
        Self::TLS,
        Self::PROTOCOL,
        Self::BLOCKED_ADDRESS,
        Self::INVALID_URL,
        Self::ITEM_RESULT_MISSING,
        Self::INVALID_RESPONSE,
        Self::RESPONSE_TOO_LARGE,
        Self::CRASHED,
        Self::INTERRUPTED,
        Self::CANCELED,
        Self::EXPIRED,
        Self::DISPATCH_FAILED,
        Self::INVALID_PAYLOAD,
        Self::INVALID_RESULT,
        Self::HANDLER_ERROR,
        Self::STORE_UNAVAILABLE,
        Self::SUBSCRIPTION_FAILED,
        Self::WAIT_TIMEOUT,
        Self::NOOP_FAILED,
    ];

    /// Returns the code for `word`, or `handler_error` if `word` is not a [`Name`].
    pub fn new(word: &str) -> Self {
        Self(Name::new(word).unwrap_or_else(|_| Name::constant(Self::HANDLER_ERROR)))
    }

    /// Returns the HTTP status of the receiver's response if the code holds one, such as 503 for `http_503`.
    pub fn status(&self) -> Option<u16> {
        self.as_str().strip_prefix("http_")?.parse().ok()
    }

    /// Returns the code as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

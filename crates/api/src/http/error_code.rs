//! Error codes of the API: a closed list, with the HTTP status and the title of each.

use axum::http::StatusCode;

/// Error code of the API. The meaning of a code never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The body is not JSON, or contains a field twice.
    MalformedJson,
    /// The body ended early, or its framing is wrong.
    MalformedBody,
    /// The `Idempotency-Key` is not valid, or the request has more than one.
    InvalidIdempotencyKey,
    /// The route does not accept an `Idempotency-Key`.
    IdempotencyKeyNotSupported,
    /// The cursor does not belong to this list.
    InvalidCursor,
    /// The request has no valid API key.
    Unauthorized,
    /// The request to a source is not proved to come from the provider.
    WebhookNotVerified,
    /// The task has not issued this completion token.
    InvalidCompletionToken,
    /// The API key lacks the scope that the route requires.
    MissingScope,
    /// The server, or this key, does not accept requests from this address.
    AddressNotAllowed,
    /// No route has this path.
    NotFound,
    /// The task does not exist, or its retention has ended.
    TaskNotFound,
    /// The API key does not exist.
    KeyNotFound,
    /// The endpoint does not exist.
    EndpointNotFound,
    /// The event does not exist, or its retention has ended.
    EventNotFound,
    /// The subscription does not exist.
    SubscriptionNotFound,
    /// The schedule does not exist.
    ScheduleNotFound,
    /// The source does not exist.
    SourceNotFound,
    /// The route does not accept this method.
    MethodNotAllowed,
    /// The body took too long to arrive.
    BodyTimeout,
    /// The API key is revoked or expired.
    KeyInactive,
    /// The task has ended. It can only be replayed.
    TaskEnded,
    /// The task no longer waits for this completion.
    WaitEnded,
    /// Only nobat changes this task: it runs a schedule.
    InternalTask,
    /// The task has not ended, so it cannot be replayed.
    TaskNotEnded,
    /// A stored request to the source has the same event id and another body.
    EventIdReused,
    /// The task's generation differs from the generation in the request.
    GenerationMismatch,
    /// The maximum number of secrets (5) is in use.
    TooManySecrets,
    /// The idempotency key was used for a batch, and some tasks of that batch are no longer stored.
    IdempotencyKeyPartlyExpired,
    /// The body is larger than 256 KiB.
    BodyTooLarge,
    /// The body is compressed.
    UnsupportedContentEncoding,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The server has no API keys, and the request does not come from a program on its own machine.
    MisdirectedRequest,
    /// Fields or parameters are not valid. `errors` names them.
    ValidationFailed,
    /// No worker of this server runs tasks of this kind.
    UnknownKind,
    /// The task names an endpoint that does not exist.
    UnknownEndpoint,
    /// The host of the URL is an address that nobat does not call.
    BlockedAddress,
    /// The request passed through more than 3 tasks. nobat takes this for a loop.
    LoopDetected,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// The tenant exceeds its request rate.
    RateLimited,
    /// The tenant has reached its maximum number of waiting tasks.
    QuotaExceeded,
    /// Too many requests from one address had no valid API key or completion token.
    TooManyAuthFailures,
    /// The maximum number of endpoint tests is in progress.
    TooManyTests,
    /// A bug, or a damaged store.
    Internal,
    /// The server has no master key to encrypt a secret with.
    NoMasterKey,
    /// The store, the message queue or the key service does not answer.
    StoreUnavailable,
    /// The server is overloaded.
    Overloaded,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 47] = [
        Self::MalformedJson,
        Self::MalformedBody,
        Self::InvalidIdempotencyKey,
        Self::IdempotencyKeyNotSupported,
        Self::InvalidCursor,
        Self::Unauthorized,
        Self::WebhookNotVerified,
        Self::InvalidCompletionToken,
        Self::MissingScope,
        Self::AddressNotAllowed,
        Self::NotFound,
        Self::TaskNotFound,
        Self::KeyNotFound,
        Self::EndpointNotFound,
        Self::EventNotFound,
        Self::SubscriptionNotFound,
        Self::ScheduleNotFound,
        Self::SourceNotFound,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::KeyInactive,
        Self::TaskEnded,
        Self::WaitEnded,
        Self::InternalTask,
        Self::TaskNotEnded,
        Self::EventIdReused,
        Self::GenerationMismatch,
        Self::TooManySecrets,
        Self::IdempotencyKeyPartlyExpired,
        Self::BodyTooLarge,
        Self::UnsupportedContentEncoding,
        Self::UnsupportedMediaType,
        Self::MisdirectedRequest,
        Self::ValidationFailed,
        Self::UnknownKind,
        Self::UnknownEndpoint,
        Self::BlockedAddress,
        Self::LoopDetected,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::TooManyAuthFailures,
        Self::TooManyTests,
        Self::Internal,
        Self::NoMasterKey,
        Self::StoreUnavailable,
        Self::Overloaded,
    ];

    /// Returns the code for programs.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Returns the HTTP status of the response.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// Returns the title for people.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// Returns the code for programs, the status and the title.
    #[rustfmt::skip] // One row per line.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::MalformedJson => ("malformed_json", StatusCode::BAD_REQUEST, "The body is not well-formed JSON"),
            Self::MalformedBody => ("malformed_body", StatusCode::BAD_REQUEST, "The body could not be read"),
            Self::InvalidIdempotencyKey => ("invalid_idempotency_key", StatusCode::BAD_REQUEST, "The idempotency key is not valid"),
            Self::IdempotencyKeyNotSupported => {
                ("idempotency_key_not_supported", StatusCode::BAD_REQUEST, "This request takes no idempotency key")
            }
            Self::InvalidCursor => ("invalid_cursor", StatusCode::BAD_REQUEST, "The cursor is not valid here"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "A valid API key is required"),
            Self::WebhookNotVerified => {
                ("webhook_not_verified", StatusCode::UNAUTHORIZED, "The webhook is not verified")
            }
            Self::InvalidCompletionToken => ("invalid_completion_token", StatusCode::UNAUTHORIZED, "A valid completion token is required"),
            Self::MissingScope => ("missing_scope", StatusCode::FORBIDDEN, "The API key lacks a scope"),
            Self::AddressNotAllowed => ("address_not_allowed", StatusCode::FORBIDDEN, "The client address is not allowed"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "No such route"),
            Self::TaskNotFound => ("task_not_found", StatusCode::NOT_FOUND, "No such task"),
            Self::KeyNotFound => ("key_not_found", StatusCode::NOT_FOUND, "No such API key"),
            Self::EndpointNotFound => ("endpoint_not_found", StatusCode::NOT_FOUND, "No such endpoint"),
            Self::EventNotFound => ("event_not_found", StatusCode::NOT_FOUND, "No such event"),
            Self::SubscriptionNotFound => {
                ("subscription_not_found", StatusCode::NOT_FOUND, "No such subscription")
            }
            Self::ScheduleNotFound => ("schedule_not_found", StatusCode::NOT_FOUND, "No such schedule"),
            Self::SourceNotFound => ("source_not_found", StatusCode::NOT_FOUND, "No such source"),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "This method is not allowed here"),
            Self::BodyTimeout => ("body_timeout", StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive"),
            Self::KeyInactive => ("key_inactive", StatusCode::CONFLICT, "The API key is revoked or expired"),
            Self::TaskEnded => ("task_ended", StatusCode::CONFLICT, "The task has ended"),
            Self::WaitEnded => ("wait_ended", StatusCode::CONFLICT, "The task no longer waits for this completion"),
            Self::InternalTask => ("internal_task", StatusCode::CONFLICT, "The task runs a schedule"),
            Self::TaskNotEnded => ("task_not_ended", StatusCode::CONFLICT, "The task has not ended"),
            Self::EventIdReused => ("event_id_reused", StatusCode::CONFLICT, "The event id was used for another webhook"),
            Self::GenerationMismatch => ("generation_mismatch", StatusCode::CONFLICT, "The task is at another generation"),
            Self::TooManySecrets => ("too_many_secrets", StatusCode::CONFLICT, "Too many secrets are in use"),
            Self::IdempotencyKeyPartlyExpired => {
                ("idempotency_key_partly_expired", StatusCode::CONFLICT, "Some tasks of this idempotency key are no longer stored")
            }
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedContentEncoding => {
                ("unsupported_content_encoding", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The content encoding is not supported")
            }
            Self::UnsupportedMediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The media type is not supported"),
            Self::MisdirectedRequest => {
                ("misdirected_request", StatusCode::MISDIRECTED_REQUEST, "The host of the request is not this server")
            }
            Self::ValidationFailed => ("validation_failed", StatusCode::UNPROCESSABLE_ENTITY, "The request is not valid"),
            Self::UnknownKind => ("unknown_kind", StatusCode::UNPROCESSABLE_ENTITY, "Unknown kind of task"),
            Self::UnknownEndpoint => ("unknown_endpoint", StatusCode::UNPROCESSABLE_ENTITY, "Unknown endpoint"),
            Self::BlockedAddress => ("blocked_address", StatusCode::UNPROCESSABLE_ENTITY, "This address is not allowed"),
            Self::LoopDetected => ("loop_detected", StatusCode::UNPROCESSABLE_ENTITY, "Tasks submit one another in a loop"),
            Self::IdempotencyKeyReused => {
                ("idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key was used for another request")
            }
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::QuotaExceeded => ("quota_exceeded", StatusCode::TOO_MANY_REQUESTS, "Too many tasks are waiting"),
            Self::TooManyAuthFailures => {
                ("too_many_auth_failures", StatusCode::TOO_MANY_REQUESTS, "Too many requests without a valid credential")
            }
            Self::TooManyTests => ("too_many_tests", StatusCode::TOO_MANY_REQUESTS, "Too many endpoint tests are in progress"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::NoMasterKey => ("no_master_key", StatusCode::NOT_IMPLEMENTED, "The server has no master key"),
            Self::StoreUnavailable => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE, "The store does not answer"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "The server is overloaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_with_a_unique_name() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(Code::ALL.iter().position(|other| *other as usize == code as usize), Some(place));
            assert_eq!(Code::ALL.iter().position(|other| other.as_str() == code.as_str()), Some(place));
        }
    }
}

//! The codes of what can be wrong: one closed list, with the status and the title of each.

use axum::http::StatusCode;

/// The closed list of what can be wrong, from outside. A code keeps its meaning for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The body is not JSON, or names one field twice.
    MalformedJson,
    /// The body broke off, or its framing is wrong.
    MalformedBody,
    /// The `Idempotency-Key` header is not one key.
    InvalidIdempotencyKey,
    /// The route takes no `Idempotency-Key`.
    IdempotencyKeyNotSupported,
    /// The cursor was not given out for this list.
    InvalidCursor,
    /// There is no key, or none that is good.
    Unauthorized,
    /// The key may not do this.
    MissingScope,
    /// Requests, or this key, are not taken from there.
    AddressNotAllowed,
    /// There is nothing at this path.
    NotFound,
    /// There is no such task, or it is kept no longer.
    TaskNotFound,
    /// There is no such key.
    KeyNotFound,
    /// There is no such endpoint.
    EndpointNotFound,
    /// This path does not take this method.
    MethodNotAllowed,
    /// The body took too long to arrive.
    BodyTimeout,
    /// The key was revoked, or has expired.
    KeyOver,
    /// The task has ended, and an end is the end.
    TaskEnded,
    /// The task has not ended, so it cannot be replayed.
    TaskNotEnded,
    /// The task is at another generation than the one to be replayed.
    GenerationMismatch,
    /// As many secrets sign as may.
    TooManySecrets,
    /// Some tasks of the batch that the key stands for are kept no longer.
    IdempotencyKeyPartlyExpired,
    /// The body is longer than is taken.
    BodyTooLarge,
    /// The body is compressed.
    UnsupportedContentEncoding,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The request was meant for another server.
    MisdirectedRequest,
    /// Fields or parameters are wrong; `errors` says which.
    ValidationFailed,
    /// Nobody here runs a task of that kind.
    UnknownKind,
    /// There is no endpoint of the name that the task gives.
    UnknownEndpoint,
    /// The URL leads where nobat does not go.
    BlockedAddress,
    /// The request came through too many tasks that made one another.
    TooManyHops,
    /// The key was used for another request.
    IdempotencyKeyReused,
    /// The tenant asks more often than it may.
    RateLimited,
    /// As many tasks of the tenant wait as may.
    QuotaExceeded,
    /// Too many requests from one address had no good key.
    TooManyFailures,
    /// As many tests of endpoints are under way as may be.
    TooManyTests,
    /// A bug, or a damaged store.
    Internal,
    /// There is no master key here to keep a secret with.
    NoMasterKey,
    /// The store or the queue does not answer.
    StoreUnavailable,
    /// There is more to do than can be taken on.
    Overloaded,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 38] = [
        Self::MalformedJson,
        Self::MalformedBody,
        Self::InvalidIdempotencyKey,
        Self::IdempotencyKeyNotSupported,
        Self::InvalidCursor,
        Self::Unauthorized,
        Self::MissingScope,
        Self::AddressNotAllowed,
        Self::NotFound,
        Self::TaskNotFound,
        Self::KeyNotFound,
        Self::EndpointNotFound,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::KeyOver,
        Self::TaskEnded,
        Self::TaskNotEnded,
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
        Self::TooManyHops,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::TooManyFailures,
        Self::TooManyTests,
        Self::Internal,
        Self::NoMasterKey,
        Self::StoreUnavailable,
        Self::Overloaded,
    ];

    /// The word for it, for programs.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that it is answered with.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// What it is called, for people.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::MalformedJson => ("malformed_json", StatusCode::BAD_REQUEST, "The body is not well-formed JSON"),
            Self::MalformedBody => ("malformed_body", StatusCode::BAD_REQUEST, "The body could not be read"),
            Self::InvalidIdempotencyKey => ("invalid_idempotency_key", StatusCode::BAD_REQUEST, "The idempotency key is not valid"),
            Self::IdempotencyKeyNotSupported => {
                ("idempotency_key_not_supported", StatusCode::BAD_REQUEST, "This request takes no idempotency key")
            }
            Self::InvalidCursor => ("invalid_cursor", StatusCode::BAD_REQUEST, "The cursor is not valid here"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "A valid key is needed"),
            Self::MissingScope => ("missing_scope", StatusCode::FORBIDDEN, "The key may not do this"),
            Self::AddressNotAllowed => ("address_not_allowed", StatusCode::FORBIDDEN, "Not from this address"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is nothing here"),
            Self::TaskNotFound => ("task_not_found", StatusCode::NOT_FOUND, "There is no such task"),
            Self::KeyNotFound => ("key_not_found", StatusCode::NOT_FOUND, "There is no such key"),
            Self::EndpointNotFound => ("endpoint_not_found", StatusCode::NOT_FOUND, "There is no such endpoint"),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "This method is not allowed here"),
            Self::BodyTimeout => ("body_timeout", StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive"),
            Self::KeyOver => ("key_over", StatusCode::CONFLICT, "The key opens nothing any more"),
            Self::TaskEnded => ("task_ended", StatusCode::CONFLICT, "The task has ended"),
            Self::TaskNotEnded => ("task_not_ended", StatusCode::CONFLICT, "The task has not ended"),
            Self::GenerationMismatch => ("generation_mismatch", StatusCode::CONFLICT, "The task is at another generation"),
            Self::TooManySecrets => ("too_many_secrets", StatusCode::CONFLICT, "Too many secrets are in use"),
            Self::IdempotencyKeyPartlyExpired => {
                ("idempotency_key_partly_expired", StatusCode::CONFLICT, "Part of the batch of this key is kept no longer")
            }
            Self::BodyTooLarge => ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedContentEncoding => {
                ("unsupported_content_encoding", StatusCode::UNSUPPORTED_MEDIA_TYPE, "This content encoding is not taken")
            }
            Self::UnsupportedMediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "This media type is not taken"),
            Self::MisdirectedRequest => ("misdirected_request", StatusCode::MISDIRECTED_REQUEST, "This is another server"),
            Self::ValidationFailed => ("validation_failed", StatusCode::UNPROCESSABLE_ENTITY, "The request is not valid"),
            Self::UnknownKind => ("unknown_kind", StatusCode::UNPROCESSABLE_ENTITY, "Nobody here runs this kind of task"),
            Self::UnknownEndpoint => ("unknown_endpoint", StatusCode::UNPROCESSABLE_ENTITY, "There is no endpoint of this name"),
            Self::BlockedAddress => ("blocked_address", StatusCode::UNPROCESSABLE_ENTITY, "This address is not allowed"),
            Self::TooManyHops => ("too_many_hops", StatusCode::UNPROCESSABLE_ENTITY, "This is a loop"),
            Self::IdempotencyKeyReused => {
                ("idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key was used for another request")
            }
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::QuotaExceeded => ("quota_exceeded", StatusCode::TOO_MANY_REQUESTS, "Too many tasks are waiting"),
            Self::TooManyFailures => ("too_many_failures", StatusCode::TOO_MANY_REQUESTS, "Too many requests without a valid key"),
            Self::TooManyTests => ("too_many_tests", StatusCode::TOO_MANY_REQUESTS, "Too many endpoint tests are under way"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something is wrong on our side"),
            Self::NoMasterKey => ("no_master_key", StatusCode::NOT_IMPLEMENTED, "No secrets are kept here"),
            Self::StoreUnavailable => ("store_unavailable", StatusCode::SERVICE_UNAVAILABLE, "The store does not answer"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "There is too much to do at the moment"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_and_named_apart() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(Code::ALL.iter().position(|other| *other as usize == code as usize), Some(place));
            assert_eq!(Code::ALL.iter().position(|other| other.as_str() == code.as_str()), Some(place));
        }
    }
}

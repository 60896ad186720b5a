//! Problem codes of the routes, for the OpenAPI document.

use std::collections::BTreeMap;

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::app::App;
use crate::http::error_code::Code;

/// Codes of authentication and authorization, for every route that requires a key.
const AUTH: [Code; 6] = [
    Code::Unauthorized,
    Code::MissingScope,
    Code::AddressNotAllowed,
    Code::MisdirectedRequest,
    Code::RateLimited,
    Code::TooManyAuthFailures,
];

/// Codes of the store, for every route that requires a key.
const STORE: [Code; 3] = [Code::Internal, Code::StoreUnavailable, Code::Overloaded];

/// Codes of routes that read a body.
pub(crate) const BODY: [Code; 7] = [
    Code::MalformedJson,
    Code::MalformedBody,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedContentEncoding,
    Code::UnsupportedMediaType,
    Code::ValidationFailed,
];

/// Codes of routes that submit tasks, in addition to [`BODY`].
pub(crate) const SUBMISSION: [Code; 7] = [
    Code::UnknownKind,
    Code::LoopDetected,
    Code::UnknownEndpoint,
    Code::BlockedAddress,
    Code::InvalidIdempotencyKey,
    Code::IdempotencyKeyReused,
    Code::QuotaExceeded,
];

/// Codes of the route that publishes events, in addition to [`BODY`].
pub(crate) const EVENT: [Code; 4] =
    [Code::LoopDetected, Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused, Code::QuotaExceeded];

/// Codes of the route that receives the webhooks of providers.
pub(crate) const WEBHOOK: [Code; 19] = [
    Code::MalformedBody,
    Code::BodyTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedContentEncoding,
    Code::WebhookNotVerified,
    Code::AddressNotAllowed,
    Code::TooManyAuthFailures,
    Code::SourceNotFound,
    Code::EventIdReused,
    Code::LoopDetected,
    Code::ValidationFailed,
    Code::UnknownKind,
    Code::UnknownEndpoint,
    Code::RateLimited,
    Code::QuotaExceeded,
    Code::NoMasterKey,
    Code::Internal,
    Code::StoreUnavailable,
    Code::Overloaded,
];

/// Codes of routes that change a task, in addition to [`BODY`].
pub(crate) const TASK_CHANGE: [Code; 3] =
    [Code::TaskNotFound, Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused];

/// Codes of routes for the completions by receivers, in addition to [`BODY`] and [`STORE`].
const COMPLETION: [Code; 6] = [
    Code::InvalidCompletionToken,
    Code::AddressNotAllowed,
    Code::RateLimited,
    Code::TooManyAuthFailures,
    Code::TaskEnded,
    Code::WaitEnded,
];

/// Codes of routes that rotate a secret, in addition to [`BODY`].
pub(crate) const ROTATION: [Code; 3] =
    [Code::TooManySecrets, Code::NoMasterKey, Code::IdempotencyKeyNotSupported];

/// Codes of routes that return a page.
pub(crate) const PAGE: [Code; 2] = [Code::InvalidCursor, Code::ValidationFailed];

/// Adds problem codes to the description of a route. A route that requires a key also gets [`AUTH`] and
/// [`STORE`].
pub(crate) fn declare(
    (schemas, mut paths, router): UtoipaMethodRouter<App>,
    codes: &[&[Code]],
) -> UtoipaMethodRouter<App> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        let codes = codes.concat();
        describe(
            operation,
            &if operation.security.is_some() { [&AUTH[..], &codes, &STORE].concat() } else { codes },
        );
    }
    (schemas, paths, router)
}

/// Adds problem codes and the completion token to the description of a route for completions.
pub(crate) fn declare_completion(
    (schemas, mut paths, router): UtoipaMethodRouter<App>,
) -> UtoipaMethodRouter<App> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(vec![SecurityRequirement::new(COMPLETION_TOKEN, [""; 0])]);
        describe(operation, &[&BODY[..], &COMPLETION, &STORE].concat());
    }
    (schemas, paths, router)
}

/// Name of the security scheme of completion tokens.
pub(crate) const COMPLETION_TOKEN: &str = "completion_token";

/// Returns all operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
}

fn describe(operation: &mut Operation, codes: &[Code]) {
    let mut by_status = BTreeMap::<_, Vec<String>>::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(format!("`{}`: {}.", code.as_str(), code.title()));
    }
    for (status, meanings) in by_status {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(meanings.join(" "))
            .content("application/problem+json", content);
        operation.responses.responses.insert(status.as_u16().to_string(), response.build().into());
    }
}

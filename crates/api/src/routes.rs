//! Routes of the API, with the problem codes of each.

mod audit;
mod callback_secret;
mod config_update;
mod endpoints;
mod events;
mod health;
mod keys;
pub(crate) mod problem_codes;
mod queues;
mod rotation;
mod schedules;
pub(crate) mod sources;
mod subscriptions;
mod tasks;
mod tenants;
mod wake;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::error_code::Code;
use crate::routes::problem_codes::{
    BODY, EVENT, PAGE, ROTATION, SUBMISSION, TASK_CHANGE, WEBHOOK, declare, declare_completion,
};
use crate::routes::tasks::{cancel_replay, complete_fail, explain, list, read, submit};

/// Returns the routes, each with its description for the OpenAPI document. The route of the document itself
/// is in [`mod@crate::openapi`].
pub(crate) fn all() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .merge(endpoints())
        .merge(events())
        .merge(schedules())
        .merge(sources())
        .routes(declare(routes!(submit::one), &[&BODY, &SUBMISSION]))
        .routes(declare(routes!(submit::batch), &[&BODY, &SUBMISSION, &[Code::IdempotencyKeyPartlyExpired]]))
        .routes(declare(routes!(list::page), &[&PAGE]))
        .routes(declare(routes!(read::one), &[&[Code::TaskNotFound, Code::ValidationFailed]]))
        .routes(declare(routes!(explain::one), &[&[Code::TaskNotFound]]))
        .routes(declare(
            routes!(cancel_replay::cancel),
            &[&BODY, &TASK_CHANGE, &[Code::TaskEnded, Code::InternalTask]],
        ))
        .routes(declare(
            routes!(cancel_replay::replay),
            &[&BODY, &TASK_CHANGE, &[Code::TaskNotEnded, Code::GenerationMismatch, Code::InternalTask]],
        ))
        .routes(declare_completion(routes!(complete_fail::complete)))
        .routes(declare_completion(routes!(complete_fail::fail)))
        .routes(declare(routes!(keys::create), &[&BODY, &[Code::IdempotencyKeyNotSupported]]))
        .routes(declare(routes!(keys::page), &[&PAGE]))
        .routes(declare(routes!(keys::one), &[&[Code::KeyNotFound]]))
        .routes(declare(routes!(keys::revoke), &[&BODY, &[Code::KeyNotFound, Code::KeyInactive]]))
        .routes(declare(
            routes!(keys::rotate),
            &[&BODY, &[Code::KeyNotFound, Code::KeyInactive, Code::IdempotencyKeyNotSupported]],
        ))
        .routes(declare(routes!(tenants::page), &[&PAGE]))
        .routes(declare(routes!(tenants::one), &[&[Code::NotFound]]))
        .routes(declare(routes!(tenants::put), &[&BODY, &[Code::NotFound]]))
        .routes(declare(routes!(callback_secret::one), &[]))
        .routes(declare(routes!(callback_secret::set), &[&BODY, &[Code::NoMasterKey]]))
        .routes(declare(routes!(callback_secret::remove), &[&BODY]))
        .routes(declare(routes!(callback_secret::rotate), &[&BODY, &ROTATION]))
        .routes(declare(routes!(queues::get_queue), &[&[Code::NotFound]]))
        .routes(declare(routes!(queues::put_queue), &[&BODY, &[Code::NotFound]]))
        .routes(declare(routes!(queues::get_kind), &[&[Code::NotFound]]))
        .routes(declare(routes!(queues::put_kind), &[&BODY, &[Code::NotFound]]))
        .routes(declare(routes!(queues::get_limits), &[&[Code::NotFound]]))
        .routes(declare(routes!(queues::put_limits), &[&BODY, &[Code::NotFound]]))
        .routes(declare(routes!(audit::page), &[&PAGE]))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

fn endpoints() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(declare(routes!(endpoints::page), &[&PAGE]))
        .routes(declare(routes!(endpoints::one), &[&[Code::NotFound, Code::EndpointNotFound]]))
        .routes(declare(
            routes!(endpoints::put),
            &[&BODY, &[Code::BlockedAddress, Code::NotFound, Code::NoMasterKey]],
        ))
        .routes(declare(routes!(endpoints::remove), &[&BODY, &[Code::NotFound, Code::EndpointNotFound]]))
        .routes(declare(
            routes!(endpoints::rotate),
            &[&BODY, &ROTATION, &[Code::NotFound, Code::EndpointNotFound]],
        ))
        .routes(declare(
            routes!(endpoints::pause),
            &[&BODY, &[Code::NotFound, Code::EndpointNotFound, Code::IdempotencyKeyNotSupported]],
        ))
        .routes(declare(
            routes!(endpoints::resume),
            &[&BODY, &[Code::NotFound, Code::EndpointNotFound, Code::IdempotencyKeyNotSupported]],
        ))
        .routes(declare(
            routes!(endpoints::test),
            &[
                &BODY,
                &[
                    Code::NotFound,
                    Code::EndpointNotFound,
                    Code::IdempotencyKeyNotSupported,
                    Code::TooManyTests,
                ],
            ],
        ))
}

fn events() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(declare(routes!(events::publish::publish), &[&BODY, &EVENT]))
        .routes(declare(routes!(events::page), &[&PAGE]))
        .routes(declare(routes!(events::one), &[&[Code::EventNotFound]]))
        .routes(declare(
            routes!(events::replay),
            &[
                &BODY,
                &[Code::EventNotFound, Code::SubscriptionNotFound, Code::InvalidIdempotencyKey],
                &[Code::IdempotencyKeyReused, Code::TaskNotEnded, Code::QuotaExceeded],
            ],
        ))
        .routes(declare(routes!(subscriptions::page), &[&PAGE]))
        .routes(declare(routes!(subscriptions::one), &[&[Code::NotFound, Code::SubscriptionNotFound]]))
        .routes(declare(
            routes!(subscriptions::put),
            &[&BODY, &[Code::NotFound, Code::UnknownKind, Code::UnknownEndpoint, Code::BlockedAddress]],
        ))
        .routes(declare(
            routes!(subscriptions::remove),
            &[&BODY, &[Code::NotFound, Code::SubscriptionNotFound]],
        ))
        .routes(declare(
            routes!(subscriptions::test),
            &[&BODY, &[Code::NotFound, Code::SubscriptionNotFound, Code::IdempotencyKeyNotSupported]],
        ))
}

fn sources() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(declare(routes!(sources::page), &[&PAGE]))
        .routes(declare(routes!(sources::one), &[&[Code::NotFound, Code::SourceNotFound]]))
        .routes(declare(
            routes!(sources::put),
            &[
                &BODY,
                &[Code::NotFound, Code::NoMasterKey],
                &[Code::UnknownKind, Code::UnknownEndpoint, Code::BlockedAddress],
            ],
        ))
        .routes(declare(routes!(sources::remove), &[&BODY, &[Code::NotFound, Code::SourceNotFound]]))
        .routes(declare(routes!(sources::receive::receive), &[&WEBHOOK]))
        .routes(declare(
            routes!(sources::receive::challenge),
            &[&[
                Code::SourceNotFound,
                Code::WebhookNotVerified,
                Code::AddressNotAllowed,
                Code::TooManyAuthFailures,
                Code::Internal,
                Code::NoMasterKey,
                Code::StoreUnavailable,
                Code::Overloaded,
            ]],
        ))
}

fn schedules() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(declare(routes!(schedules::page), &[&PAGE]))
        .routes(declare(routes!(schedules::one), &[&[Code::NotFound, Code::ScheduleNotFound]]))
        .routes(declare(
            routes!(schedules::put),
            &[&BODY, &[Code::NotFound, Code::UnknownKind, Code::UnknownEndpoint, Code::BlockedAddress]],
        ))
        .routes(declare(routes!(schedules::remove), &[&BODY, &[Code::NotFound, Code::ScheduleNotFound]]))
        .routes(declare(
            routes!(schedules::pause),
            &[&BODY, &[Code::NotFound, Code::ScheduleNotFound, Code::IdempotencyKeyNotSupported]],
        ))
        .routes(declare(
            routes!(schedules::resume),
            &[&BODY, &[Code::NotFound, Code::ScheduleNotFound, Code::IdempotencyKeyNotSupported]],
        ))
        .routes(declare(
            routes!(schedules::run),
            &[
                &BODY,
                &[Code::NotFound, Code::ScheduleNotFound, Code::InvalidIdempotencyKey],
                &[Code::IdempotencyKeyReused, Code::QuotaExceeded],
            ],
        ))
}

//! Routes of the API, with their requests and answers.

mod audit;
mod callback_secret;
mod config_update;
mod endpoints;
mod health;
mod keys;
mod queues;
mod rotation;
mod tasks;
mod tenants;
mod wake;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use tasks::{cancel_replay, explain, list, read, submit};

/// Returns the routes, each with its description for the OpenAPI document. The route of the document itself is in [`crate::openapi`].
pub(crate) fn all() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(submit::one, list::page))
        .routes(routes!(submit::batch))
        .routes(routes!(read::one))
        .routes(routes!(explain::one))
        .routes(routes!(cancel_replay::cancel))
        .routes(routes!(cancel_replay::replay))
        .routes(routes!(keys::create, keys::page))
        .routes(routes!(keys::one, keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(tenants::page))
        .routes(routes!(tenants::one, tenants::put))
        .routes(routes!(callback_secret::one, callback_secret::set, callback_secret::remove))
        .routes(routes!(callback_secret::rotate))
        .routes(routes!(endpoints::page))
        .routes(routes!(endpoints::one, endpoints::put, endpoints::remove))
        .routes(routes!(endpoints::rotate))
        .routes(routes!(endpoints::pause))
        .routes(routes!(endpoints::resume))
        .routes(routes!(endpoints::test))
        .routes(routes!(queues::get_queue, queues::put_queue))
        .routes(routes!(queues::get_kind, queues::put_kind))
        .routes(routes!(queues::get_limits, queues::put_limits))
        .routes(routes!(audit::page))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

//! Routes of the API.

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::problem::Problem;
use crate::openapi;
use crate::routes::tasks::{cancel_replay, explain, list, read, submit};
use crate::routes::{audit, callback_secret, endpoints, health, keys, queues, tenants};

/// Returns the router with all routes. It is the same on a laptop and in Lambda.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/tasks", post(submit::one).get(list::page))
        .route("/v1/tasks/batch", post(submit::batch))
        .route("/v1/tasks/{id}", get(read::one))
        .route("/v1/tasks/{id}/explain", get(explain::one))
        .route("/v1/tasks/{id}/cancel", post(cancel_replay::cancel))
        .route("/v1/tasks/{id}/replay", post(cancel_replay::replay))
        .route("/v1/keys", post(keys::create).get(keys::page))
        .route("/v1/keys/{id}", get(keys::one).delete(keys::revoke))
        .route("/v1/keys/{id}/rotate", post(keys::rotate))
        .route("/v1/tenants", get(tenants::page))
        .route("/v1/tenants/{name}", get(tenants::one).put(tenants::put))
        .route("/v1/callback-secret", get(callback_secret::one).put(callback_secret::set).delete(callback_secret::remove))
        .route("/v1/callback-secret/rotate", post(callback_secret::rotate))
        .route("/v1/endpoints", get(endpoints::page))
        .route("/v1/endpoints/{name}", get(endpoints::one).put(endpoints::put).delete(endpoints::remove))
        .route("/v1/endpoints/{name}/rotate", post(endpoints::rotate))
        .route("/v1/endpoints/{name}/pause", post(endpoints::pause))
        .route("/v1/endpoints/{name}/resume", post(endpoints::resume))
        .route("/v1/endpoints/{name}/test", post(endpoints::test))
        .route("/v1/queues/{name}", get(queues::get_queue).put(queues::put_queue))
        .route("/v1/kinds/{name}", get(queues::get_kind).put(queues::put_kind))
        .route("/v1/limits/{name}", get(queues::get_limits).put(queues::put_limits))
        .route("/v1/audit", get(audit::page))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::document))
        .fallback(async || Problem::new(Code::NotFound, "no route has this path; /openapi.json lists all routes"))
        // axum adds the header `Allow`. The server ignores `X-HTTP-Method-Override`.
        .method_not_allowed_fallback(async || {
            Problem::new(
                Code::MethodNotAllowed,
                "the route does not accept this method; the header Allow lists the methods that it accepts",
            )
        })
        .with_state(app)
}

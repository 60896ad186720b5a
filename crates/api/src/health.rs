//! For those who watch over the process.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use nobat_core::backend::Backend;
use nobat_core::ports::StoreError;
use nobat_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::problem::Problem;
use crate::reply;

/// That all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Liveness
///
/// The process answers. Nothing else is asked, so that a store that is away does not get it restarted.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", responses((status = 200, description = "It answers.", body = Health)))]
pub(crate) async fn live() -> Result<Response, Problem> {
    reply::value(StatusCode::OK, 16, &OK)
}

/// Readiness
///
/// The store and the queue answer, or did a second ago.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", responses((status = 200, description = "Both answer.", body = Health)))]
pub(crate) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    app.readiness().check(&app.backend, app.clock.now()).await?;
    reply::value(StatusCode::OK, 16, &OK)
}

/// That store and queue answered a moment ago, so that whoever asks often, and has no key, keeps neither of them busy.
#[derive(Default)]
pub(crate) struct Readiness {
    /// When, in milliseconds since the epoch.
    answered_at: AtomicI64,
}

/// For how long it is believed.
const BELIEVED: Duration = Duration::from_secs(1);

impl Readiness {
    async fn check(&self, backend: &Backend, now: Timestamp) -> Result<(), StoreError> {
        let answered_at = Timestamp::from_millis(self.answered_at.load(Ordering::Relaxed));
        if answered_at <= now && now < answered_at + BELIEVED {
            return Ok(());
        }
        backend.ready().await?;
        self.answered_at.store(now.millis(), Ordering::Relaxed);
        Ok(())
    }
}

/// This document
///
/// `OpenAPI` 3.1, generated from the code that serves it.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "health", responses((status = 200, description = "The document.", body = Object)))]
pub(crate) async fn document() -> Response {
    reply::json(StatusCode::OK, Bytes::from_static(crate::openapi::text()))
}

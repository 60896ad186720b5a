//! Options in an optional request body.

use axum::extract::Request;
use nobat_core::json::decode::read_object;
use nobat_core::task::KeyedRequest;
use nobat_core::types::name::Tenant;
use serde::Deserialize;

use crate::app::App;
use crate::http::body;
use crate::http::idempotency::{keyed_request, refuse_key};
use crate::http::problem::Problem;

/// Options of a request that has none yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// Returns the options from the body, and the request's idempotency key, if the request has one.
pub(crate) async fn keyed_options<T: Default + for<'de> Deserialize<'de>>(
    app: &App,
    tenant: &Tenant,
    request: Request,
    route: &'static str,
) -> Result<(T, Option<KeyedRequest>), Problem> {
    let (head, body) = request.into_parts();
    let body = body::optional_json(app, tenant, &head.headers, body).await?;
    let keyed = keyed_request(&head.headers, route, body.as_deref().unwrap_or_default())?;
    let options = body.map(|body| read_object(&body)).transpose()?;
    Ok((options.unwrap_or_default(), keyed))
}

/// Returns the options of a `POST` that takes no idempotency key. `instead` is the error text for a request
/// with a key.
pub(crate) async fn options_without_key<T: Default + for<'de> Deserialize<'de>>(
    app: &App,
    tenant: &Tenant,
    request: Request,
    instead: &'static str,
) -> Result<T, Problem> {
    refuse_key(request.headers(), instead)?;
    options(app, tenant, request).await
}

/// Returns the options from the body, or the defaults if the body is empty.
pub(crate) async fn options<T: Default + for<'de> Deserialize<'de>>(
    app: &App,
    tenant: &Tenant,
    request: Request,
) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    match body::optional_json(app, tenant, &head.headers, body).await? {
        Some(body) => Ok(read_object(&body)?),
        None => Ok(T::default()),
    }
}

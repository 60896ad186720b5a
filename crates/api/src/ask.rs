//! Asking the router without a socket.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::Service;

use crate::app::App;
use crate::router::router;

/// What the API answers to a request with that JSON for a body: for a program that has the store itself, so that what it does to it is
/// done as it would be over HTTP.
pub async fn ask(app: App, method: Method, path: &str, json: Option<String>) -> (StatusCode, Bytes) {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let Ok(request) = request.body(Body::from(json.unwrap_or_default())) else { return (StatusCode::NOT_FOUND, Bytes::new()) };
    match router(app).call(request).await {
        Ok(answer) => {
            let status = answer.status();
            // It stands in memory already, so reading it cannot fail.
            (status, answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default())
        }
        Err(impossible) => match impossible {},
    }
}

//! In-process requests to the router, without a socket.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower_service::Service;

use crate::app::App;
use crate::router::router;

/// Returns the API's response to a request with this JSON body. A program that has opened the store itself
/// sends its changes through this function, so that the changes pass the same checks as over HTTP.
pub async fn ask(app: App, method: Method, path: &str, json: Option<String>) -> (StatusCode, Bytes) {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let Ok(request) = request.body(Body::from(json.unwrap_or_default())) else {
        return (StatusCode::NOT_FOUND, Bytes::new());
    };
    match router(app).call(request).await {
        Ok(answer) => {
            let status = answer.status();
            // The body is in memory already, so reading it cannot fail.
            (
                status,
                answer
                    .into_body()
                    .collect()
                    .await
                    .map(http_body_util::Collected::to_bytes)
                    .unwrap_or_default(),
            )
        }
        Err(impossible) => match impossible {},
    }
}

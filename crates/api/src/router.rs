//! Router of the API: all routes, and the responses to requests that match none.

use axum::Router;

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::problem::Problem;
use crate::openapi;

/// Returns the router with all routes. It is the same on a laptop and in Lambda.
pub fn router(app: App) -> Router {
    Router::from(openapi::routes())
        .fallback(async || {
            Problem::new(Code::NotFound, "no route has this path; /openapi.json lists all routes")
        })
        // axum adds the header `Allow`. The server ignores `X-HTTP-Method-Override`.
        .method_not_allowed_fallback(async || {
            Problem::new(
                Code::MethodNotAllowed,
                "the route does not accept this method; the header Allow lists the methods that it accepts",
            )
        })
        .with_state(app)
}

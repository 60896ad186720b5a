//! HTTP API of nobat. The same router runs on a laptop and in Lambda.
//!
//! This crate decides nothing about tasks. Handlers read a request, call the core, and show the result.
//! Errors are RFC 9457 problem details that never repeat a value of the request.

mod app;
mod auth;
mod http;
mod openapi;
mod quotas;
mod readiness;
mod router;
mod routes;
mod server;

pub use app::{App, AppConfig};
pub use auth::policy::{AccessPolicy, AuthMode, Peer};
pub use http::error_code::Code;
pub use openapi::openapi;
pub use router::router;
pub use server::in_process::ask;
pub use server::limits::Limits;
pub use server::metrics::ConnectionMetrics;
pub use server::{serve, serve_within};

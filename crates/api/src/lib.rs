//! HTTP API of nobat. The same router serves a laptop and Lambda; [`router()`] lists all its routes.
//!
//! This crate decides nothing about tasks. Handlers read a request, call the core, and show the result. Errors are RFC 9457 problem details
//! that never repeat a value.

mod app;
mod ask;
mod body;
mod body_budget;
mod callback_secret;
mod change;
mod code;
mod connections;
mod cursor;
mod door;
mod endpoints;
mod explain;
mod head;
mod health;
mod identity;
mod keyring;
mod keys;
mod lanes;
mod list;
mod lookups;
mod openapi;
mod permits;
mod problem;
mod query;
mod quota;
mod quoted;
mod read;
mod reply;
mod router;
mod server;
mod socket;
mod submit;
mod tenants;
mod test_slots;
mod trail;
mod wake;

pub use app::{App, AppConfig};
pub use ask::ask;
pub use code::Code;
pub use connections::ConnectionMetrics;
pub use door::{AccessPolicy, AuthMode, Peer};
pub use openapi::openapi;
pub use router::router;
pub use server::{Limits, serve, serve_within};

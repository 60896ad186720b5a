//! The door: HTTP in, tasks out. One router for a laptop and for Lambda; all its routes are in [`router()`].
//!
//! Nothing here decides what becomes of a task. Handlers read a request, ask the core, and show what it says; what is
//! wrong with a request is said as RFC 9457 problem details, and never repeats a value.

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

pub use app::{App, Parts};
pub use ask::ask;
pub use code::Code;
pub use connections::ConnectionMetrics;
pub use door::{Door, Keys, Peer};
pub use openapi::openapi;
pub use router::router;
pub use server::{Limits, serve, serve_within};

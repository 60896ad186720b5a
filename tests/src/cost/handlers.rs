//! Handlers of the scenarios. They do almost nothing: only nobat's own usage is counted.

use nobat_worker::handler::Handler;
use nobat_worker::handler::context::TaskContext;
use nobat_worker::handler::failure::Failure;
use nobat_worker::handler::registry::Handlers;
use serde_json::{Value, json};

/// Returns all handlers.
pub(super) fn handlers() -> Handlers {
    Handlers::new().with(Work).with(Delivery)
}

/// Takes any payload. Fails the first `fail` attempts.
struct Work;

impl Handler for Work {
    const KIND: &'static str = "work";
    type Input = Value;
    type Output = Value;

    async fn run(&self, input: Value, context: &TaskContext) -> Result<Value, Failure> {
        if u64::from(context.attempt) <= input["fail"].as_u64().unwrap_or(0) {
            return Err(Failure::retry("http_503", "the endpoint responded: 503"));
        }
        Ok(json!({ "ok": true }))
    }
}

/// Stand-in for kind `http`, which delivers callbacks. It sends nothing and always returns status 204.
struct Delivery;

impl Handler for Delivery {
    const KIND: &'static str = "http";
    type Input = Value;
    type Output = Value;

    async fn run(&self, _: Value, _: &TaskContext) -> Result<Value, Failure> {
        Ok(
            json!({ "status": 204, "headers": { "date": "Tue, 24 Nov 2026 08:00:00 GMT" }, "body": "", "truncated": false }),
        )
    }
}

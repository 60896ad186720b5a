//! What the tasks of the scenarios do, which is next to nothing: what is counted is what nobat does around it.

use nobat_worker::context::TaskContext;
use nobat_worker::handler::{Failure, Handler, Handlers};
use serde_json::{Value, json};

/// All kinds there are.
pub(super) fn handlers() -> Handlers {
    Handlers::new().with(Work).with(Delivery)
}

/// Takes any payload; fails as many attempts as its `fail` says.
struct Work;

impl Handler for Work {
    const KIND: &'static str = "work";
    type Input = Value;
    type Output = Value;

    async fn run(&self, input: Value, context: &TaskContext) -> Result<Value, Failure> {
        if u64::from(context.attempt) <= input["fail"].as_u64().unwrap_or(0) {
            return Err(Failure::retry("http_503", "the other side answered 503"));
        }
        Ok(json!({ "ok": true }))
    }
}

/// Stands for kind `http` where callbacks are delivered: nothing is sent, and the answer is always 204.
struct Delivery;

impl Handler for Delivery {
    const KIND: &'static str = "http";
    type Input = Value;
    type Output = Value;

    async fn run(&self, _: Value, _: &TaskContext) -> Result<Value, Failure> {
        Ok(json!({ "status": 204, "headers": { "date": "Tue, 24 Nov 2026 08:00:00 GMT" }, "body": "", "truncated": false }))
    }
}

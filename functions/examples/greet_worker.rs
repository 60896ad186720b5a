//! The function `worker` of a program with its own kind. Its function `api` calls `api::run` instead of
//! `worker::run`.

use nobat_functions::{Error, Failure, Handler, Handlers, TaskContext, worker};
use serde_json::Value;

struct Greet;

impl Handler for Greet {
    const KIND: &'static str = "greet";
    type Input = String;
    type Output = Value;

    async fn run(&self, name: String, context: &TaskContext) -> Result<Value, Failure> {
        Ok(format!("Salam, {name}! (attempt {})", context.attempt).into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    worker::run(Handlers::new().with(Greet)).await
}

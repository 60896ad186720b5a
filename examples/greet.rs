//! Program with a kind of its own, `greet`, in addition to everything that `nobat` does.
//!
//! ```sh
//! cargo run --release --example greet &
//! cargo run --release --example greet -- submit greet --payload '{"name": "Ayna", "seconds": 3}' --wait
//! ```

use std::time::Duration;

use nobat::{Failure, Handler, Handlers, TaskContext};
use serde::{Deserialize, Serialize};

struct Greet;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Guest {
    name: String,
    seconds: u32,
}

#[derive(Serialize)]
struct Greeting {
    text: String,
}

impl Handler for Greet {
    const KIND: &'static str = "greet";
    type Input = Guest;
    type Output = Greeting;

    async fn run(&self, guest: Guest, context: &TaskContext) -> Result<Greeting, Failure> {
        for second in 0..guest.seconds {
            context.progress(&(f64::from(second) / f64::from(guest.seconds)));
            tokio::time::sleep(Duration::from_secs(1)).await; // nobat drops the future here on a cancel or a timeout
        }
        Ok(Greeting { text: format!("Salam, {}! (attempt {})", guest.name, context.attempt) })
    }
}

fn main() -> std::process::ExitCode {
    nobat::main(Handlers::new().with(Greet))
}

//! The function `worker` with the built-in kinds.

use nobat_functions::{Error, Handlers, worker};

#[tokio::main]
async fn main() -> Result<(), Error> {
    worker::run(Handlers::new()).await
}

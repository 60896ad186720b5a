//! The function `api` with the built-in kinds.

use nobat_functions::{Error, Handlers, api};

#[tokio::main]
async fn main() -> Result<(), Error> {
    api::run(Handlers::new()).await
}

//! The function `api`, with the kinds that everybody has.

use nobat_functions::{Error, Handlers, api};

#[tokio::main]
async fn main() -> Result<(), Error> {
    api::run(Handlers::new()).await
}

//! The function `sweeper`.

use nobat_functions::{Error, sweeper};

#[tokio::main]
async fn main() -> Result<(), Error> {
    sweeper::run().await
}

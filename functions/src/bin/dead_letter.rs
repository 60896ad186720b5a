//! The function `dead_letter`.

use nobat_functions::{Error, dead_letter};

#[tokio::main]
async fn main() -> Result<(), Error> {
    dead_letter::run().await
}

//! `cargo run --release -p nobat-tests --bin cost`: measures the cost of tasks on AWS again and writes it
//! into `docs/cost.md`.

use std::fs;

use nobat_tests::cost::prices::Prices;
use nobat_tests::cost::{page, scenario, starts};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let tables = page::tables(&scenario::all().await, &scenario::idle_sweep().await, &Prices::read());
    let tables = tables + &page::limits(&starts::starts().await, &starts::heat());
    print!("{tables}");
    let path = page::path();
    fs::write(&path, page::with_tables(&fs::read_to_string(&path)?, &tables))
}

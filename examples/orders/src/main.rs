//! A shop with three services behind it: stock (200 ms), payment (300 ms, and 1,650 ms for one order in 50) and mail
//! (150 ms). The shop first calls them in line, and then through nobat. Both times the same orders arrive, and the
//! payment service is down for a third of the time.
//!
//! ```sh
//! cargo run --release -p nobat-orders
//! ```
//!
//! With nobat, the shop publishes each order as an event, and a subscription calls each service. The payment service
//! accepts a charge at once, and the bank confirms it later by a webhook, twice, or never. A charge that the bank does
//! not confirm in time releases the stock.

mod client;
mod server;
mod services;
mod shop;
mod story;

use std::time::Duration;

use clap::Parser;

use crate::story::{Load, Outcome};

#[derive(Parser)]
#[command(about = "Compares a shop that calls its services in line with the same shop on nobat")]
struct Arguments {
    /// Seconds for which orders arrive
    #[arg(long, default_value_t = 9)]
    seconds: u32,
    /// Orders a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { seconds, rate } = Arguments::parse();
    let load = Load { rate, duration: Duration::from_secs(seconds.into()) };
    let (inline, queued) = (story::inline(load).await?, story::with_nobat(load).await?);
    println!("{:<34} {:>10} {:>10}", "", "in line", "with nobat");
    for (name, value) in ROWS {
        println!("{name:<34} {:>10} {:>10}", value(&inline), value(&queued));
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

type Row = (&'static str, fn(&Outcome) -> String);

const ROWS: [Row; 9] = [
    ("orders", |outcome| outcome.orders.to_string()),
    ("response, median", |outcome| milliseconds(outcome.median)),
    ("response, p99", |outcome| milliseconds(outcome.p99)),
    ("orders answered with an error", |outcome| outcome.errors.to_string()),
    ("orders with stock, charge and mail", |outcome| outcome.complete.to_string()),
    ("orders done in part", |outcome| outcome.partial.to_string()),
    ("unconfirmed charges", |outcome| outcome.unconfirmed.to_string()),
    ("of these, stock released", |outcome| outcome.released.to_string()),
    ("all work done after the last order", |outcome| milliseconds(outcome.remaining)),
];

//! Page `docs/cost.md`: generated tables between hand-written text.

use std::path::PathBuf;

use nobat_aws::meter::Units;

use crate::cost::context::Used;
use crate::cost::prices::Prices;
use crate::cost::scenario::Scenario;
use crate::cost::starts::{AT_ONCE, CALL, COUNT, Heat, IN_A_PROCESS, Starts, WORK};
use crate::harness::program::workspace;

const BEGIN: &str =
    "<!-- From here to the end mark, `cargo run --release -p nobat-tests --bin cost` writes. -->\n";
const END: &str = "<!-- The end mark. -->\n";

/// Returns the path of the page.
pub fn path() -> PathBuf {
    workspace().join("docs/cost.md")
}

/// Returns the page with its tables replaced.
pub fn with_tables(page: &str, tables: &str) -> String {
    let (above, rest) = page.split_once(BEGIN).expect("the page has the begin mark");
    let (_, below) = rest.split_once(END).expect("the page has the end mark");
    format!("{above}{BEGIN}{tables}{END}{below}")
}

/// Returns the tables: usage and cost of a million tasks, and cost of the sweeps while there are none.
pub fn tables(scenarios: &[Scenario], sweep: &Used, prices: &Prices) -> String {
    let units: String = scenarios.iter().map(units).collect();
    let dollars: String = scenarios.iter().map(|scenario| dollars(scenario, prices)).collect();
    format!(
        "Used by one task:\n\n\
         | | write units | read units | requests to SQS, by nobat + by Lambda | invocations, `api` + `worker` | HTTP requests |\n\
         |---|--:|--:|--:|--:|--:|\n{units}\n\
         Dollars per million tasks ({}, prices of {}):\n\n\
         | | DynamoDB | SQS | Lambda | HTTP API | total |\n|---|--:|--:|--:|--:|--:|\n{dollars}\n\
         A sweep that finds nothing reads {} units. One sweep a minute costs ${:.2} a month.\n",
        prices.region,
        prices.looked_up,
        short(sweep.units.read),
        prices.month_of_sweeps(sweep),
    )
}

fn units(scenario: &Scenario) -> String {
    let Scenario { name, tasks, used } = scenario;
    let each = |count: f64| short(count / f64::from(*tasks));
    let both = |ours: u32, others: u32| format!("{} + {}", each(ours.into()), each(others.into()));
    let sqs = both(used.sends, used.sqs_requests() - used.sends);
    let invocations = both(used.requests, used.batches);
    let (write, read, requests) = (each(used.units.write), each(used.units.read), each(used.requests.into()));
    format!("| {name} | {write} | {read} | {sqs} | {invocations} | {requests} |\n")
}

fn dollars(scenario: &Scenario, prices: &Prices) -> String {
    let bill = prices.bill(scenario);
    let (name, total) = (scenario.name, bill.total());
    format!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | **{total:.2}** |\n",
        bill.dynamodb, bill.sqs, bill.lambda, bill.http_api
    )
}

/// Returns the tables about limits: their extra usage, and the rate that one limit key can grant.
pub fn limits(starts: &[Starts], heat: &[Heat]) -> String {
    let starts: String = starts.iter().map(of_starts).collect();
    let heat: String = heat.iter().map(of_heat).collect();
    let (call, work) = (CALL.as_millis(), WORK.as_millis());
    format!(
        "\nExtra usage of {COUNT} starts through an endpoint, in one process, as write units + read units:\n\n\
         | limited by | one after the other | {AT_ONCE} at once |\n|---|--:|--:|\n{starts}\n\
         Starts that one limit key with a `rate` can grant, if a call to the table takes {call} ms and each process runs {IN_A_PROCESS} tasks at a time, of {work} ms each:\n\n\
         | processes | starts a second | writes a second, including refused ones | held a second because of overload |\n\
         |--:|--:|--:|--:|\n{heat}"
    )
}

fn of_starts(Starts { limits, alone, at_once }: &Starts) -> String {
    let units = |units: &Units| format!("{} + {}", short(units.write), short(units.read));
    format!("| {limits} | {} | {} |\n", units(alone), units(at_once))
}

fn of_heat(Heat { processes, starts, writes, turned_away }: &Heat) -> String {
    format!("| {processes} | {starts} | {writes} | {turned_away} |\n")
}

/// Formats a number with up to three decimals.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

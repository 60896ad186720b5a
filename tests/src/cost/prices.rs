//! What AWS asks for what was used, as `tests/aws/prices.json` has it.

use std::fs;

use serde::Deserialize;

use crate::cost::scenario::Scenario;
use crate::cost::stage::Used;
use crate::world::program::workspace;

/// Public prices on demand, without free tiers, and what is assumed besides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Where they hold.
    pub region: String,
    /// When they were looked up.
    pub looked_up: String,
    /// How.
    pub note: String,
    /// What they are.
    pub dollars_a_million: DollarsAMillion,
    /// What the meter cannot measure.
    pub assumed: Assumed,
    /// Where they can be looked up again.
    pub sources: Vec<String>,
}

/// Dollars for a million of each.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DollarsAMillion {
    /// Write request units of a table on demand.
    pub write_units: f64,
    /// Read request units of a table on demand.
    pub read_units: f64,
    /// Requests to a standard queue.
    pub sqs_requests: f64,
    /// Invocations of functions.
    pub invocations: f64,
    /// Gigabytes of memory that a function on arm64 has for a second.
    pub gigabyte_seconds: f64,
    /// Requests to an HTTP API.
    pub http_requests: f64,
    /// Invocations by a schedule.
    pub scheduled: f64,
}

/// How long functions take, with next to nothing done in the handler, and the memory they have.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    /// The memory of a function, in MiB.
    pub memory_mib: f64,
    /// One request to the API, in milliseconds.
    pub request_ms: f64,
    /// One batch of ten, in milliseconds.
    pub batch_ms: f64,
    /// One sweep that finds nothing, in milliseconds.
    pub sweep_ms: f64,
}

/// Dollars for a million tasks, by who is paid.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    /// The table.
    pub dynamodb: f64,
    /// The queue.
    pub sqs: f64,
    /// The functions.
    pub lambda: f64,
    /// The door.
    pub http_api: f64,
}

/// Lambda receives a batch, and deletes it.
pub const POLLER_REQUESTS: u32 = 2;
/// How many minutes a month has: 730 hours.
const MINUTES: f64 = 43_800.0;

impl Prices {
    /// Reads the file.
    pub fn read() -> Self {
        let path = workspace().join("tests/aws/prices.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What a million tasks come to.
    pub fn bill(&self, scenario: &Scenario) -> Bill {
        let (used, tasks, price) = (scenario.used, f64::from(scenario.tasks), &self.dollars_a_million);
        let seconds = f64::from(used.requests) * self.assumed.request_ms / 1_000.0
            + f64::from(used.batches) * self.assumed.batch_ms / 1_000.0
            + used.held.as_secs_f64();
        Bill {
            dynamodb: (used.units.write * price.write_units + used.units.read * price.read_units) / tasks,
            sqs: f64::from(used.sqs_requests()) * price.sqs_requests / tasks,
            lambda: (f64::from(used.invocations()) * price.invocations + self.compute(seconds)) / tasks,
            http_api: f64::from(used.requests) * price.http_requests / tasks,
        }
    }

    /// What a month of sweeps comes to that find nothing, in dollars.
    pub fn month_of_sweeps(&self, sweep: &Used) -> f64 {
        let price = &self.dollars_a_million;
        let units = sweep.units.write * price.write_units + sweep.units.read * price.read_units;
        let compute = self.compute(self.assumed.sweep_ms / 1_000.0);
        (units + price.invocations + compute + price.scheduled) * MINUTES / 1e6
    }

    fn compute(&self, seconds: f64) -> f64 {
        seconds * self.assumed.memory_mib / 1_024.0 * self.dollars_a_million.gigabyte_seconds
    }
}

impl Bill {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.dynamodb + self.sqs + self.lambda + self.http_api
    }
}

impl Used {
    /// nobat's requests to SQS, and Lambda's.
    pub fn sqs_requests(&self) -> u32 {
        self.sends + self.batches * POLLER_REQUESTS
    }

    /// Invocations of the API's function and of the worker.
    pub fn invocations(&self) -> u32 {
        self.requests + self.batches
    }
}

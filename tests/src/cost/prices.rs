//! Prices of AWS, read from `tests/aws/prices.json`.

use std::fs;

use serde::Deserialize;

use crate::cost::context::Used;
use crate::cost::scenario::Scenario;
use crate::harness::program::workspace;

/// Public on-demand prices without free tiers, and assumptions about what cannot be measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// AWS region of the prices.
    pub region: String,
    /// Date of the look-up.
    pub looked_up: String,
    /// Note on how the prices were looked up.
    pub note: String,
    /// Prices in dollars for a million of each unit.
    pub dollars_a_million: DollarsAMillion,
    /// Values that the meter cannot measure.
    pub assumed: Assumed,
    /// Pages that list the prices.
    pub sources: Vec<String>,
}

/// Dollars for a million of each unit.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DollarsAMillion {
    /// Write request units of an on-demand table.
    pub write_units: f64,
    /// Read request units of an on-demand table.
    pub read_units: f64,
    /// Requests to a standard queue.
    pub sqs_requests: f64,
    /// Invocations of functions.
    pub invocations: f64,
    /// Gigabyte-seconds of memory of a function on arm64.
    pub gigabyte_seconds: f64,
    /// Requests to an HTTP API.
    pub http_requests: f64,
    /// Invocations by a schedule.
    pub scheduled: f64,
}

/// Duration of functions whose handler does almost nothing, and their memory.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    /// Memory of a function, in MiB.
    pub memory_mib: f64,
    /// Duration of one request to the API, in milliseconds.
    pub request_ms: f64,
    /// Duration of one batch of 10, in milliseconds.
    pub batch_ms: f64,
    /// Duration of one sweep that finds nothing, in milliseconds.
    pub sweep_ms: f64,
}

/// Dollars for a million tasks, for each service.
#[derive(Clone, Copy, Debug)]
pub struct Bill {
    /// DynamoDB.
    pub dynamodb: f64,
    /// SQS.
    pub sqs: f64,
    /// Lambda.
    pub lambda: f64,
    /// HTTP API of API Gateway.
    pub http_api: f64,
}

/// Requests that Lambda makes to SQS for each batch: one receive and one delete.
pub const POLLER_REQUESTS: u32 = 2;
/// Minutes in a month of 730 hours.
const MINUTES: f64 = 43_800.0;

impl Prices {
    /// Reads the price file.
    pub fn read() -> Self {
        let path = workspace().join("tests/aws/prices.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Returns the cost of a million tasks of a scenario.
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

    /// Returns the cost of a month of sweeps that find nothing, one a minute, in dollars.
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
    /// Returns the sum.
    pub fn total(&self) -> f64 {
        self.dynamodb + self.sqs + self.lambda + self.http_api
    }
}

impl Used {
    /// Returns the number of requests to SQS, those of nobat and those of Lambda.
    pub fn sqs_requests(&self) -> u32 {
        self.sends + self.batches * POLLER_REQUESTS
    }

    /// Returns the number of invocations of the API's function and of the worker.
    pub fn invocations(&self) -> u32 {
        self.requests + self.batches
    }
}

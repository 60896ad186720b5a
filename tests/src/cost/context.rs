//! All of nobat on an emulator of AWS with a meter: the API behind a socket, the worker and the sweeper, in
//! one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nobat_api::{AccessPolicy, App, AppConfig, AuthMode, router};
use nobat_aws::Settings;
use nobat_aws::meter::{Meter, Reading, Units};
use nobat_core::auth::scope::Scopes;
use nobat_core::config::endpoint::NoEndpointTester;
use nobat_core::ports::{Clock, Delivery, Queue, Settlement};
use nobat_core::secrets::vault::Without;
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::types::name::Tenant;
use nobat_worker::execution::runner::Runner;
use nobat_worker::maintenance::sweeper::Sweeper;
use nobat_worker::system::SystemRandom;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::aws::emulator::Emulator;
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::cost::clock::WatchedClock;
use crate::cost::handlers::handlers;
use crate::harness::PATIENCE;
use crate::harness::exchange::{Answer, exchange};
use crate::time::Time;
use crate::{keys, sample};

/// Maximum of `?wait=` in Lambda.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// Maximum number of messages that Lambda hands to a worker at a time.
pub const BATCH: usize = 10;
/// Retention of ended tasks: 30 days. No scenario lasts that long.
const RETENTION: Duration = Duration::from_hours(30 * 24);
/// Maximum timeout of a task, and maximum duration of a function's invocation.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Visibility timeout of messages. No scenario reaches it.
const VISIBILITY: Duration = Duration::from_mins(5);
/// Interval between two checks that every request waits for time alone.
const LOOK: Duration = Duration::from_millis(1);

/// Empty table and queue with all engines. Time is virtual and passes only when a scenario advances it.
pub struct Stage {
    /// Backend whose calls the meter counts.
    pub backend: Backend,
    /// Virtual time.
    pub time: Arc<Time>,
    meter: Meter,
    clock: Arc<WatchedClock>,
    api: SocketAddr,
    runner: Runner,
    sweeper: Sweeper,
    /// Queue client of Lambda, which receives and deletes. The meter does not see it: its requests follow
    /// from the batches.
    poller: Arc<dyn Queue>,
    /// Usage that the meter does not count.
    used: Used,
    authorization: String,
    _stop: DropGuard,
}

/// Usage of AWS.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Units of the table and its indexes.
    pub units: Units,
    /// Requests to SQS that nobat makes itself.
    pub sends: u32,
    /// Batches handed to the worker. Each costs one invocation, and Lambda one receive and one delete.
    pub batches: u32,
    /// Requests to the API. Each costs one invocation.
    pub requests: u32,
    /// Time for which the API held requests with `?wait=`.
    pub held: Duration,
}

impl Stage {
    /// Sets up everything on the emulator that the process shares.
    pub async fn set() -> Self {
        let emulator = Emulator::shared();
        let (table, queues) =
            (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
        let settings = Settings {
            table: table.name().to_owned(),
            queue_url: queues.hints().to_owned(),
            retention: RETENTION,
        };
        let meter = Meter::default();
        let backend = nobat_aws::connect_to_emulator_with(&settings, &emulator.url(), &meter).await;
        let poller = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await.queue;
        let time = Time::at(sample::start());
        let (clock, chance) = (WatchedClock::new(&time), Arc::new(SystemRandom));
        let stop = CancellationToken::new();
        let key = keys::make(&backend, &Tenant::default(), Scopes::all(), time.now()).await;
        let mut stage = Self {
            api: serve(&backend, Arc::clone(&clock) as Arc<dyn Clock>, stop.clone()).await,
            runner: Runner::new(
                backend.clone(),
                handlers(),
                time.clock(),
                chance.clone(),
                ConfigEpoch::default(),
            ),
            sweeper: Sweeper { backend: backend.clone(), random: chance },
            backend,
            time,
            meter,
            clock,
            poller,
            used: Used::default(),
            authorization: format!("Bearer {}", key.as_str()),
            _stop: stop.drop_guard(),
        };
        // A process reads a key and its tenant once in 10 seconds, however many requests use them, so no task
        // is charged for it.
        stage.request("GET", "/v1/tasks/none", &[], "").await;
        // The same holds for the configuration of a queue and a kind.
        stage.submit("/v1/tasks", &[], &json!({"kind": "work"})).await;
        stage.work(1).await;
        stage.used();
        stage
    }

    /// Submits a body, which must be accepted, and returns the answer.
    pub async fn submit(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
        let answer = self.request("POST", path, headers, &body.to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    /// Gets a task and returns it.
    pub async fn get(&mut self, task: &Value, query: &str) -> Value {
        let path = format!("/v1/tasks/{}{query}", task["id"].as_str().expect("the task has an id"));
        let begun = self.time.now();
        let answer = self.request("GET", &path, &[], "").await;
        self.used.held += self.time.now().since(begun);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Hands `messages` messages to the worker in batches of 10, as Lambda does under load.
    pub async fn work(&mut self, messages: usize) {
        let mut received = self.receive(messages).await;
        while !received.is_empty() {
            let rest = received.split_off(received.len().min(BATCH));
            let batch = std::mem::replace(&mut received, rest);
            self.used.batches += 1;
            let settled = self.runner.run_batch(batch, self.time.now() + TIMEOUT).await;
            assert!(
                settled.iter().all(|(_, settlement)| *settlement == Settlement::Acknowledge),
                "{settled:?}"
            );
            self.poller.settle(settled).await.expect("the queue answers");
        }
    }

    /// Sweeps as the function does: until a sweep finds nothing.
    pub async fn sweep(&mut self) {
        let clock = self.time.clock();
        self.sweeper.run_until(&*clock, self.time.now() + TIMEOUT).await.expect("the table answers");
    }

    /// Returns the counts of the meter since the last call.
    pub fn reading(&self) -> Reading {
        self.meter.take()
    }

    /// Returns the usage since the last call. Panics if the cost of a call is unknown.
    pub fn used(&mut self) -> Used {
        let reading = self.reading();
        assert_eq!(reading.unknown(), 0, "the cost of some calls is unknown: {reading:#?}");
        Used { units: reading.units(), sends: reading.sqs_requests(), ..std::mem::take(&mut self.used) }
    }

    /// Sends a request. Advances the virtual time while the request only waits.
    async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.used.requests += 1;
        let headers = [headers, &[("authorization", self.authorization.as_str())]].concat();
        let answer = exchange(self.api, method, path, &headers, body);
        tokio::select! {
            answer = answer => answer.unwrap_or_else(|error| panic!("{path}: {error}")),
            () = self.pass_time() => unreachable!("`pass_time` never returns"),
        }
    }

    /// Advances the time. A request with `?wait=` sleeps twice at a time: until the next look, and until its
    /// time is up.
    async fn pass_time(&self) {
        let mut seen = self.clock.sleeps_started() + 1;
        loop {
            let sleeps_started = self.clock.sleeps_started();
            if sleeps_started > seen {
                seen = sleeps_started;
                self.time.advance_to(self.time.next_deadline().expect("a request sleeps"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn receive(&self, count: usize) -> Vec<Delivery> {
        let (mut received, begun) = (Vec::new(), Instant::now());
        while received.len() < count {
            assert!(begun.elapsed() < PATIENCE, "only {} of {count} messages arrived", received.len());
            received.extend(self.poller.receive(BATCH).await.expect("the queue answers"));
        }
        assert_eq!(received.len(), count, "more messages arrived than were sent");
        received
    }
}

impl Used {
    /// Returns the usage without the units that would have been used anyway.
    #[must_use]
    pub fn without(self, anyway: Self) -> Self {
        let units =
            Units { write: self.units.write - anyway.units.write, read: self.units.read - anyway.units.read };
        Self { units, ..self }
    }
}

async fn serve(backend: &Backend, clock: Arc<dyn Clock>, stop: CancellationToken) -> SocketAddr {
    let app = App::new(AppConfig {
        epoch: ConfigEpoch::default(),
        backend: backend.clone(),
        clock,
        kinds: Arc::new(handlers()),
        access_policy: AccessPolicy { keys: AuthMode::Required, admitted: Vec::new(), proxies: Vec::new() },
        recount: nobat_aws::RECOUNT,
        max_timeout: TIMEOUT,
        max_wait: MAX_WAIT,
        tester: Arc::new(NoEndpointTester),
        vault: Arc::new(Without),
        cursor_key: [0; 32],
        shutdown: stop.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    tokio::spawn(nobat_api::serve(listener, router(app), stop, Duration::ZERO));
    address
}

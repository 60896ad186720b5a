//! Plan of a run: the faults that may happen.
//!
//! A run has only some of them. If all faults were frequent, those that need a long quiet period first would
//! never show.

use std::time::Duration;

use super::limits::Laid;
use crate::simulation::external_server::Partner;
use crate::simulation::rng::Dice;

/// Maximum pause of a client, unless the plan sets another.
const PAUSE: Duration = Duration::from_secs(20);

/// Probabilities of the faults, per mille, and the number of actors.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// A call fails without effect.
    pub fails: u64,
    /// A call takes effect, and its answer is lost.
    pub loses_reply: u64,
    /// A call takes up to 8 seconds.
    pub is_slow: u64,
    /// A call takes longer than a lease lasts.
    pub hangs: u64,
    /// A hint is lost.
    pub loses_hint: u64,
    /// A hint is doubled.
    pub doubles_hint: u64,
    /// A hint comes up to 10 minutes late.
    pub delays_hint: u64,
    /// An actor crashes and is restarted.
    pub crashes: u64,
    /// An actor freezes for longer than a lease lasts.
    pub freezes: u64,
    /// The store or the queue is unavailable for up to 10 minutes.
    pub outages: u64,
    /// A machine's clock is set to a wrong time.
    pub clock_sets: u64,
    /// Maximum error of a clock, in seconds.
    pub skew: u64,
    /// Number of processes that run tasks.
    pub workers: usize,
    /// Number of clients.
    pub clients: usize,
    /// Number of requests of each client.
    pub requests: u32,
    /// Maximum pause of a client between two requests.
    pub pause: Duration,
    /// Maximum number of tasks in one submission.
    pub largest_request: u64,
    /// Rate and concurrency limits.
    pub limits: Vec<Laid>,
    /// Partner whose endpoint tasks go to, if any.
    pub partner: Option<Partner>,
    /// A client pauses or opens something instead of its planned request.
    pub changes: u64,
    /// Habits of the cloud, if the run uses the model of it.
    pub cloud: Cloud,
}

/// Probabilities of the cloud's habits, per mille, and its settings.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// A message is delivered twice.
    pub delivers_twice: u64,
    /// A message is delivered after its deletion.
    pub delivers_deleted: u64,
    /// An index shows an earlier state.
    pub lags: u64,
    /// The table throttles calls for a while.
    pub throttles: u64,
    /// Share of poisoned tasks, per mille. A worker that claims such a task gets an error or crashes.
    pub poison: u64,
    /// Number of retries of a failed call by the SDK.
    pub retries: u32,
    /// Timeout of a function for a batch. `None`: no function is killed.
    pub function_timeout: Option<Duration>,
    /// A client lists tasks instead of its planned request.
    pub lists: u64,
}

impl Plan {
    /// Returns a plan with about half of all faults.
    pub fn stormy(dice: &Dice) -> Self {
        let sometimes = |most: u64| if dice.per_mille(500) { dice.between(1, most) } else { 0 };
        Self {
            fails: sometimes(150),
            loses_reply: sometimes(150),
            is_slow: sometimes(100),
            hangs: sometimes(30),
            loses_hint: sometimes(400),
            doubles_hint: sometimes(400),
            delays_hint: sometimes(400),
            crashes: sometimes(30),
            freezes: sometimes(20),
            outages: sometimes(3),
            clock_sets: sometimes(3),
            skew: sometimes(300),
            workers: dice.pick(&[2, 3]).unwrap_or(2),
            clients: dice.pick(&[1, 2, 3]).unwrap_or(1),
            requests: dice.pick(&[5, 10, 20]).unwrap_or(5),
            pause: PAUSE,
            largest_request: 5,
            limits: Vec::new(),
            partner: None,
            changes: 0,
            cloud: Cloud::default(),
        }
    }

    /// Returns a plan in which only hints and the tasks themselves fail, so that the end of each task is
    /// predictable.
    pub fn calm(dice: &Dice) -> Self {
        let sometimes = |most: u64| if dice.per_mille(500) { dice.between(1, most) } else { 0 };
        let (loses_hint, doubles_hint, delays_hint) = (sometimes(300), sometimes(500), sometimes(300));
        Self {
            loses_hint,
            doubles_hint,
            delays_hint,
            workers: 2,
            clients: 2,
            requests: dice.pick(&[5, 10, 20]).unwrap_or(5),
            pause: PAUSE,
            largest_request: 5,
            ..Self::default()
        }
    }

    /// Returns the plan for the cloud. Some runs are slow enough for ten receives of one message, three times
    /// over.
    #[must_use]
    pub fn in_the_cloud(self, dice: &Dice) -> Self {
        let sometimes = |most: u64| if dice.per_mille(500) { dice.between(1, most) } else { 0 };
        let mut cloud = Cloud {
            delivers_twice: sometimes(200),
            delivers_deleted: sometimes(200),
            lags: sometimes(500),
            function_timeout: dice.pick(&[15, 15, 60, 240]).map(Duration::from_secs),
            lists: 100,
            ..Cloud::default()
        };
        if !self.is_calm() {
            cloud.throttles = sometimes(5);
            cloud.poison = sometimes(150);
            cloud.retries = dice.pick(&[0, 2]).unwrap_or(0);
        }
        let pause =
            dice.pick(&[PAUSE, PAUSE, Duration::from_mins(15), Duration::from_hours(1)]).unwrap_or(PAUSE);
        Self { pause, largest_request: 12, cloud, ..self }
    }

    /// Returns the maximum difference between two clocks.
    pub fn clocks_apart(&self) -> Duration {
        Duration::from_secs(2 * self.skew)
    }

    /// Returns true if the run has any configuration.
    pub fn has_configuration(&self) -> bool {
        !self.limits.is_empty() || self.changes > 0
    }

    /// Returns true if the end of each task is predictable.
    pub fn is_calm(&self) -> bool {
        let faults = [
            self.fails,
            self.loses_reply,
            self.is_slow,
            self.hangs,
            self.crashes,
            self.freezes,
            self.outages,
            self.skew,
        ];
        let of_the_cloud = [self.cloud.throttles, self.cloud.poison];
        faults.iter().chain(&of_the_cloud).all(|fault| *fault == 0)
    }
}

//! What may go wrong in a run.
//!
//! Not everything in every run: where all faults are frequent, those that need a long quiet stretch before them never show.

use std::time::Duration;

use super::dice::Dice;
use super::limits::Laid;
use super::partner::Partner;

/// How long a client pauses at most, where it is not said otherwise.
const PAUSE: Duration = Duration::from_secs(20);

/// How often things go wrong, in times out of a thousand, and who takes part.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// A call fails, and does nothing.
    pub fails: u64,
    /// A call does its work, and its answer is lost.
    pub loses_reply: u64,
    /// A call takes some seconds.
    pub is_slow: u64,
    /// A call takes longer than a lease lasts.
    pub hangs: u64,
    /// A hint is lost.
    pub loses_hint: u64,
    /// A hint comes twice.
    pub doubles_hint: u64,
    /// A hint comes some minutes late.
    pub delays_hint: u64,
    /// A step is an actor's last, until it is started anew.
    pub crashes: u64,
    /// An actor stands still for longer than a lease lasts.
    pub freezes: u64,
    /// The store or the queue goes away for some minutes.
    pub outages: u64,
    /// A machine's clock is set.
    pub clock_sets: u64,
    /// By how many seconds a clock is wrong at most.
    pub skew: u64,
    /// How many processes run tasks.
    pub workers: usize,
    /// How many clients there are.
    pub clients: usize,
    /// How many things each client does.
    pub requests: u32,
    /// How long a client pauses between two of them, at most.
    pub pause: Duration,
    /// How many tasks a client submits at a time, at most.
    pub largest_request: u64,
    /// How often tasks may start, and how many at once.
    pub limits: Vec<Laid>,
    /// Whose endpoint tasks go to, if there is one.
    pub partner: Option<Partner>,
    /// A client pauses something, or lets it go on, instead of what it was about to do.
    pub changes: u64,
    /// What only a cloud does, if this is one.
    pub cloud: Cloud,
}

/// How often a table and a queue in the cloud show their habits, in times out of a thousand, and how they are used.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// A message is delivered twice.
    pub delivers_twice: u64,
    /// A message is delivered after it was deleted.
    pub delivers_deleted: u64,
    /// An index shows what was so.
    pub lags: u64,
    /// The table turns calls away for a while.
    pub throttles: u64,
    /// Tasks, out of a thousand, that nobody can claim: whoever tries fails, or dies of it.
    pub poison: u64,
    /// How often the SDK makes a call again that failed.
    pub retries: u32,
    /// How long a function may take over a batch; none is killed where this is not said.
    pub function_timeout: Option<Duration>,
    /// A client looks through the list instead of what it was about to do.
    pub lists: u64,
}

impl Plan {
    /// A run in which about half of what can go wrong does.
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

    /// A run in which nothing goes wrong but hints and the tasks themselves, so that it is known how each of them must end.
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

    /// The same in the cloud. Some runs are slow enough for ten receives of one message, three times over.
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
        let pause = dice.pick(&[PAUSE, PAUSE, Duration::from_mins(15), Duration::from_hours(1)]).unwrap_or(PAUSE);
        Self { pause, largest_request: 12, cloud, ..self }
    }

    /// By how much two clocks can differ.
    pub fn clocks_apart(&self) -> Duration {
        Duration::from_secs(2 * self.skew)
    }

    /// Whether the registry is asked for anything but what is not there.
    pub fn is_anything_laid_down(&self) -> bool {
        !self.limits.is_empty() || self.changes > 0
    }

    /// Whether the end of each task is known beforehand.
    pub fn is_calm(&self) -> bool {
        let faults = [self.fails, self.loses_reply, self.is_slow, self.hangs, self.crashes, self.freezes, self.outages, self.skew];
        let of_the_cloud = [self.cloud.throttles, self.cloud.poison];
        faults.iter().chain(&of_the_cloud).all(|fault| *fault == 0)
    }
}

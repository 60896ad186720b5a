//! State that all actors of a run share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use nobat_core::task::TaskKey;
use nobat_core::types::time::Timestamp;

use super::closed::Closed;
use super::ledger::Ledger;
use super::plan::Plan;
use super::starts::Starts;
use crate::model::backend_quirks::{Habit, Habits, Shown};
use crate::model::calls::Calls;
use crate::sample;
use crate::simulation::rng::Dice;
use crate::time::Time;

/// Random numbers, time, plan, history, and violations of a run.
pub struct Stage {
    /// Random numbers.
    pub dice: Arc<Dice>,
    /// Virtual time.
    pub time: Arc<Time>,
    /// Faults that may happen in this run.
    pub plan: Plan,
    /// Numbers of the calls.
    pub calls: Arc<Calls>,
    shown: Mutex<Shown>,
    ledger: Mutex<Ledger>,
    starts: Mutex<Starts>,
    closed: Mutex<Closed>,
    trouble: Mutex<Trouble>,
    trace: Mutex<VecDeque<String>>,
    violation: Mutex<Option<String>>,
}

/// Present faults.
#[derive(Clone, Copy)]
struct Trouble {
    is_over: bool,
    /// Time since when no fault has happened, once faults are over.
    calm_since: Timestamp,
    throttled_until: Timestamp,
    store_away_until: Timestamp,
    queue_away_until: Timestamp,
}

/// Service that can be unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The store.
    Store,
    /// The queue.
    Queue,
}

/// Number of steps in the trace.
const TRACED: usize = 60;

impl Stage {
    /// Creates the shared state of a run.
    pub fn new(seed: u64, plan: impl FnOnce(&Dice) -> Plan) -> Arc<Self> {
        let dice = Arc::new(Dice::seeded(seed));
        let plan = plan(&dice);
        let never = Timestamp::EPOCH;
        let nothing = Trouble {
            is_over: false,
            calm_since: never,
            throttled_until: never,
            store_away_until: never,
            queue_away_until: never,
        };
        Arc::new(Self {
            dice,
            time: Time::at(sample::start()),
            plan,
            calls: Arc::default(),
            shown: Mutex::default(),
            ledger: Mutex::default(),
            starts: Mutex::default(),
            closed: Mutex::default(),
            trouble: Mutex::new(nothing),
            trace: Mutex::default(),
            violation: Mutex::default(),
        })
    }

    /// Returns the ledger of clients and handlers.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Returns the record of limited starts.
    pub fn starts(&self) -> MutexGuard<'_, Starts> {
        lock(&self.starts)
    }

    /// Returns the record of paused and removed configuration.
    pub fn closed(&self) -> MutexGuard<'_, Closed> {
        lock(&self.closed)
    }

    /// Returns the virtual time since the beginning.
    pub fn passed(&self) -> Duration {
        self.time.now().since(sample::start())
    }

    /// Adds a step to the trace.
    pub fn trace(&self, who: &str, what: fmt::Arguments<'_>) {
        let mut trace = lock(&self.trace);
        if trace.len() == TRACED {
            trace.pop_front();
        }
        trace.push_back(format!("{:>12.3} s  {who:<10} {what}", self.passed().as_secs_f64()));
    }

    /// Returns the last steps.
    pub fn traced(&self) -> Vec<String> {
        lock(&self.trace).iter().cloned().collect()
    }

    /// Records a broken promise. Only the first one is kept.
    pub fn violate(&self, what: String) {
        lock(&self.violation).get_or_insert(what);
    }

    /// Returns the broken promise, if any.
    pub fn violation(&self) -> Option<String> {
        lock(&self.violation).clone()
    }

    /// Ends all faults.
    pub fn end_trouble(&self) {
        let mut trouble = lock(&self.trouble);
        trouble.is_over = true;
        trouble.calm_since = self.time.now();
    }

    /// Returns the time since when processes and services have had no faults, or `None` while faults may
    /// happen.
    pub fn calm_since(&self) -> Option<Timestamp> {
        let trouble = *lock(&self.trouble);
        (trouble.is_over || self.plan.is_calm()).then_some(trouble.calm_since)
    }

    /// Returns true if faults may still happen.
    pub fn is_troubled(&self) -> bool {
        !lock(&self.trouble).is_over
    }

    /// Makes a service unavailable for a while.
    pub fn take_away(&self, service: Service, duration: Duration) {
        let until = self.time.now() + duration;
        match service {
            Service::Store => lock(&self.trouble).store_away_until = until,
            Service::Queue => lock(&self.trouble).queue_away_until = until,
        }
    }

    /// Makes the store throttle calls for a while.
    pub fn throttle(&self, duration: Duration) {
        lock(&self.trouble).throttled_until = self.time.now() + duration;
    }

    /// Returns true if the service throttles this call.
    pub fn is_throttled(&self, service: Service) -> bool {
        let is_busy = service == Service::Store && lock(&self.trouble).throttled_until > self.time.now();
        is_busy && self.happens(700)
    }

    /// Returns true if claims of this task fail, which they do only while faults may happen.
    pub fn is_poisoned(&self, name: &TaskKey) -> bool {
        let bytes = name.id.to_bytes();
        let number = u64::from(u16::from_be_bytes([bytes[13], bytes[14]]));
        self.is_troubled() && number % 1_000 < self.plan.cloud.poison
    }

    /// Returns the counts of the cloud's habits.
    pub fn shown(&self) -> Shown {
        *lock(&self.shown)
    }

    /// Returns true if a service is unavailable now.
    pub fn is_away(&self, service: Service) -> bool {
        let trouble = *lock(&self.trouble);
        let until = match service {
            Service::Store => trouble.store_away_until,
            Service::Queue => trouble.queue_away_until,
        };
        !trouble.is_over && until > self.time.now()
    }

    /// Returns true with this probability while faults may happen.
    pub fn happens(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.is_troubled() && self.dice.per_mille(per_mille)
    }
}

impl Habits for Stage {
    fn shows(&self, habit: Habit) -> bool {
        let cloud = &self.plan.cloud;
        match habit {
            Habit::DeliversTwice => self.happens(cloud.delivers_twice),
            Habit::DeliversDeleted => self.happens(cloud.delivers_deleted),
            Habit::ShowsOldSweepIndex | Habit::ShowsOldList => self.happens(cloud.lags),
            // Independent of faults: expiry comes long after the last of them.
            Habit::RemovesExpired => self.dice.per_mille(300),
            _ => false,
        }
    }

    fn some_time(&self, most: Duration) -> Duration {
        Duration::from_millis(self.dice.below(u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    }

    fn note(&self, habit: Habit) {
        lock(&self.shown).note(habit);
    }
}

/// Yields once, so that other actors can act first.
pub async fn yield_once() {
    let mut has_waited = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Returns the last 6 characters of a task's id, enough to follow it in a trace.
pub fn short(name: &TaskKey) -> String {
    let id = name.id.to_string();
    id[id.len() - 6..].to_owned()
}

/// Locks a mutex. A poisoned one is usable, because no state is left half written under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

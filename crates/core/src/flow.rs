//! Limits that tasks share: start rate, concurrency, circuit breaker and batches.
//!
//! A [`LimiterState`] is the state of one limiter. The tasks of a limiter share an endpoint, a kind, a queue, a tenant or a limit key. All
//! decisions here are pure: a function takes the state, the limits and the time, and returns what the task does next. Backends store the
//! state as text, and write it only over the version that was read.

mod breaker;
mod free_slots;
mod gathering;
mod pace;
mod slots;
mod state;
pub(crate) mod stored;
mod submission;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use breaker::{BreakerChange, BreakerPolicy, BreakerState, CallHealth};
pub use gathering::{BatchDecision, BatchLimits, BatchMember, MAX_BATCH_BYTES};
pub use pace::{MAX_RESERVATION_AHEAD, RateLimit, Reservation};
pub use slots::HolderId;
pub use state::{BreakerStatus, LimiterStatus};
pub use submission::{BreakerSubmission, BreakerView, LimitsSubmission, LimitsView};

use crate::flow::breaker::{Breaker, BreakerDecision, Changes};
use crate::flow::gathering::BatchBuffer;
use crate::flow::pace::GcraState;
use crate::flow::slots::ConcurrencySlots;
use crate::id::TaskId;
use crate::name::{Name, Tenant};
use crate::ports::{LEASE, StoreError};
use crate::retry::JitterSample;
use crate::stored::Unreadable;
use crate::task::HeldReason;
use crate::time::Timestamp;

/// Store of limiter states.
#[async_trait]
pub trait LimiterStore: Send + Sync {
    /// Returns the state of a limiter. Returns the default state if nothing is stored, as for most limiters.
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError>;

    /// Writes a state over version `over`. The store forgets a limiter that no process writes to for [`IDLE`].
    async fn write(&self, name: &LimiterKey, flow: &LimiterState, over: u64, now: Timestamp) -> Result<WriteResult, StoreError>;

    /// Applies a change to a limiter, and retries it after each conflict. Returns the task that leads the batch from now on, if the leader
    /// changed.
    ///
    /// # Errors
    /// Fails with [`StoreError::Overloaded`] after [`MAX_CONFLICTS`] conflicts with other writers.
    async fn change(&self, name: &LimiterKey, change: LimiterChange, now: Timestamp) -> Result<Option<Successor>, StoreError> {
        let mut kept = self.read(name).await?;
        for _ in 0..MAX_CONFLICTS {
            let mut flow = kept.flow.clone();
            let successor = flow.change(change, now);
            if flow == kept.flow {
                return Ok(successor);
            }
            match self.write(name, &flow, kept.version, now).await? {
                WriteResult::Done => return Ok(successor),
                WriteResult::Conflict(there) => kept = there,
            }
        }
        Err(StoreError::Overloaded)
    }
}

/// Maximum number of writes of one [`LimiterStore::change`].
pub const MAX_CONFLICTS: usize = 20;

/// Change to a limiter that needs neither an immediate result nor the configured limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterChange {
    /// Gives a reservation back, because its task ended or waits for something else.
    Return(Reservation),
    /// Removes a task from the batch that it waits in.
    Withdraw {
        /// The task.
        id: TaskId,
        /// Size of its part of the request, in bytes.
        bytes: u64,
    },
    /// Forgets all reservations. The distance between starts stays.
    Restart,
    /// Forgets all reservations, and ends the pause that the receiver asked for. An open circuit breaker lets one probe start at once.
    Lift,
}

/// Batch member that leads from now on, because the leader before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The task.
    pub id: TaskId,
    /// Time at which the batch is due.
    pub at: Timestamp,
}

/// Stored state of a limiter, with its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionedState {
    /// Number of writes to the state. 0 if nothing is stored.
    pub version: u64,
    /// The state.
    pub flow: LimiterState,
}

/// Result of a [`LimiterStore::write`].
#[expect(clippy::large_enum_variant, reason = "one value exists at a time, and it is never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The state was written.
    Done,
    /// Another process wrote in between, so nothing was written. Holds the stored state.
    Conflict(VersionedState),
}

/// Time after the last write for which a limiter is kept: 48 hours. Everything in its state loses its meaning sooner.
pub const IDLE: Duration = Duration::from_hours(48);

/// Key of a limiter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimiterKey {
    /// Tenant that owns the limiter.
    pub tenant: Tenant,
    /// Property that the limiter's tasks share.
    pub of: LimitScope,
}

/// Property that the tasks of a limiter share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitScope {
    /// The endpoint that they call.
    Endpoint(Name),
    /// The endpoint that they call, and a hash of everything else that must be equal for tasks to go in one request.
    Batch(Name, u64),
    /// The limit key that they name.
    Key(Name),
    /// Their kind.
    Kind(Name),
    /// Their queue.
    Queue(Name),
    /// Their tenant alone.
    Tenant,
}

/// The text is not the key of a limiter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a limiter")]
pub struct InvalidLimitScope;

impl FromStr for LimitScope {
    type Err = InvalidLimitScope;

    fn from_str(text: &str) -> Result<Self, InvalidLimitScope> {
        if text == "tenant" {
            return Ok(Self::Tenant);
        }
        let (sort, name) = text.split_once('/').ok_or(InvalidLimitScope)?;
        let (name, likeness) = match (sort, name.split_once('/')) {
            ("batch", Some((name, likeness))) => (name, u64::from_str_radix(likeness, 16).map_err(|_| InvalidLimitScope)?),
            _ => (name, 0),
        };
        let name = Name::new(name).map_err(|_| InvalidLimitScope)?;
        match sort {
            "endpoint" => Ok(Self::Endpoint(name)),
            "batch" => Ok(Self::Batch(name, likeness)),
            "key" => Ok(Self::Key(name)),
            "kind" => Ok(Self::Kind(name)),
            "queue" => Ok(Self::Queue(name)),
            _ => Err(InvalidLimitScope),
        }
    }
}

impl fmt::Display for LimitScope {
    /// Writes the form that stores keep. The parts are separated by `/`, which no name contains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "endpoint/{name}"),
            Self::Batch(name, likeness) => write!(f, "batch/{name}/{likeness:016x}"),
            Self::Key(name) => write!(f, "key/{name}"),
            Self::Kind(name) => write!(f, "kind/{name}"),
            Self::Queue(name) => write!(f, "queue/{name}"),
            Self::Tenant => f.write_str("tenant"),
        }
    }
}

impl LimitScope {
    /// Returns the word for the property, such as `endpoint` or `limit_key`.
    pub fn sort(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "endpoint",
            Self::Batch(..) => "batch",
            Self::Key(_) => "limit_key",
            Self::Kind(_) => "kind",
            Self::Queue(_) => "queue",
            Self::Tenant => "tenant",
        }
    }

    /// Returns the name of the endpoint, limit key, kind or queue. Returns `None` for the limiter of a whole tenant.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Endpoint(name) | Self::Batch(name, _) | Self::Key(name) | Self::Kind(name) | Self::Queue(name) => Some(name),
            Self::Tenant => None,
        }
    }
}

/// Limits of a limiter. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Start rate.
    pub pace: Option<RateLimit>,
    /// Maximum number of tasks that run at the same time.
    pub concurrency: Option<NonZeroU32>,
    /// Circuit breaker.
    pub breaker: Option<BreakerPolicy>,
}

/// State of a limiter. The default state delays no task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimiterState {
    times: GcraState,
    slots: ConcurrencySlots,
    breaker: Breaker,
    /// Latest changes of the circuit breaker.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    changes: Changes,
    /// End of the pause that the receiver asked for.
    paused_until: Option<Timestamp>,
    /// Tasks that wait to go in one request.
    #[serde(skip_serializing_if = "BatchBuffer::is_empty")]
    gathering: BatchBuffer,
}

/// Request of a task to start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AcquireRequest {
    /// Process that takes the concurrency slot.
    pub holder: HolderId,
    /// Reservation that the task holds at this limiter.
    pub booking: Option<Reservation>,
    /// True if the task holds a due reservation at another limiter. It then takes the next free moment here instead of queueing for a
    /// reservation.
    pub is_called: bool,
    /// Number of times in a row that the task was held.
    pub times: u32,
    /// Random share for the jitter of the next request.
    pub spread: JitterSample,
}

/// Decision about an [`AcquireRequest`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AcquireResult {
    /// The task may start.
    Go(Permit),
    /// The task must wait.
    Wait(Denied),
}

/// Permit for one start. The worker gives it back unused ([`LimiterState::give_back`]) or reports the outcome of the start ([`LimiterState::leave`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Reservation that the start used.
    booking: Option<Reservation>,
    /// True if the attempt is the circuit breaker's probe.
    is_probe: bool,
    /// True if the permit holds a concurrency slot.
    has_slot: bool,
    /// True if the task keeps its reservation when the worker gives the permit back.
    keeps_booking: bool,
}

/// Hold of a task that may not start yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Reason of the hold.
    pub reason: HeldReason,
    /// Time at which the task asks again.
    pub until: Timestamp,
    /// Reservation that the task holds until then.
    pub booking: Option<Reservation>,
}

/// The reservation and the batch place that a waiting task holds. Both are given back when the task ends or waits for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    /// Reservation at a rate limit.
    pub promise: Option<ScopedReservation>,
    /// Batch of its endpoint in which it waits with other tasks: the number in [`LimitScope::Batch`].
    pub batch: Option<u64>,
}

/// Reservation of a task, with its limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedReservation {
    /// The limiter.
    pub of: LimitScope,
    /// The reservation.
    pub booking: Reservation,
}

/// Outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// Health of the receiver, as the attempt saw it.
    pub verdict: CallHealth,
    /// Duration of the attempt.
    pub took: Duration,
    /// End of the pause that the receiver asked for, if it asked for one.
    pub pause_until: Option<Timestamp>,
}

/// First of the waits that double.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Upper limit of the minimum wait of a task that found no concurrency slot.
const MAX_INSISTENCE: Duration = Duration::from_secs(10);

/// Returns the wait of a task that was held `times` times in a row and has no better estimate.
///
/// The wait doubles from 1 second up to [`MAX_RESERVATION_AHEAD`]. Its second half is random.
pub fn patience(times: u32, spread: JitterSample) -> Duration {
    let half = doubled(times) / 2;
    half + spread.of(half)
}

fn doubled(times: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(times.min(20))).min(MAX_RESERVATION_AHEAD)
}

impl Reservations {
    /// Returns true if the task holds nothing.
    pub fn is_none(&self) -> bool {
        self.promise.is_none() && self.batch.is_none()
    }
}

impl From<Option<ScopedReservation>> for Reservations {
    fn from(promise: Option<ScopedReservation>) -> Self {
        Self { promise, batch: None }
    }
}

impl Limits {
    /// Returns true if nothing is limited, so that no limiter needs to be asked.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Permit {
    /// Returns true if the permit holds a concurrency slot. The slot is lost if its process reports nothing for longer than a lease.
    pub fn has_slot(&self) -> bool {
        self.has_slot
    }

    /// Returns the permit of a task that keeps its reservation when the worker gives the permit back.
    #[must_use]
    pub fn keeping_booking(self) -> Self {
        Self { keeps_booking: true, ..self }
    }

    /// Returns the permit for a second report, needed when the result of the first write is unknown.
    ///
    /// It has no reservation and no slot: after the first write, another task may have taken them.
    #[must_use]
    pub fn once_more(self) -> Self {
        Self { is_probe: self.is_probe, ..Self::default() }
    }
}

impl LimiterState {
    /// Decides whether a task may start.
    pub fn enter(&mut self, limits: &Limits, ask: &AcquireRequest, now: Timestamp) -> AcquireResult {
        self.noting(now, |flow| flow.answer(limits, ask, now))
    }

    /// Runs `does`, and records a change of the circuit breaker's state.
    fn noting<T>(&mut self, now: Timestamp, does: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.breaker.state();
        let done = does(self);
        self.changes.note(before, self.breaker.state(), now);
        done
    }

    fn answer(&mut self, limits: &Limits, ask: &AcquireRequest, now: Timestamp) -> AcquireResult {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return self.after_pause(limits, ask, until, now);
        }
        let passage = limits.breaker.map_or(BreakerDecision::Free, |_| self.breaker.pass(LEASE, now));
        if let BreakerDecision::Closed(until) = passage {
            if let Some(booking) = ask.booking.filter(|booking| now < booking.at()) {
                self.times.take_back(booking);
            }
            let until = until.max(now) + ask.spread.of(ask.patience());
            return AcquireResult::Wait(Denied {
                reason: HeldReason::CircuitOpen,
                until: until.min(now + MAX_RESERVATION_AHEAD),
                booking: None,
            });
        }
        let is_probe = passage == BreakerDecision::Probe;
        match self.start(limits, ask, now) {
            Ok((booking, has_slot)) => AcquireResult::Go(Permit { booking, is_probe, has_slot, keeps_booking: false }),
            Err(wait) => {
                if is_probe {
                    self.breaker.withdraw(now);
                }
                AcquireResult::Wait(wait)
            }
        }
    }

    /// Takes a reservation at the rate limit and a concurrency slot.
    fn start(&mut self, limits: &Limits, ask: &AcquireRequest, now: Timestamp) -> Result<(Option<Reservation>, bool), Denied> {
        let booking = limits.pace.map(|pace| self.booking(pace, ask, now)).transpose()?;
        if let Some(most) = limits.concurrency
            && !self.slots.take(most, ask.holder, now)
        {
            // The task keeps its reservation while it waits for a slot.
            let until = self.slots.turn(most, now).unwrap_or_else(|| ask.far_ahead(now));
            return Err(Denied { reason: HeldReason::ConcurrencyLimited, until: until.max(now + ask.insistence()), booking });
        }
        if let Some(pace) = limits.pace {
            self.times.start(pace, now);
        }
        Ok((booking, limits.concurrency.is_some()))
    }

    /// Returns a reservation that can be used now.
    fn booking(&mut self, pace: RateLimit, ask: &AcquireRequest, now: Timestamp) -> Result<Reservation, Denied> {
        let own = ask.booking.filter(|booking| pace.knows(*booking)).map(|booking| self.times.advance(pace, booking, now));
        let promised = own.and_then(|booking| Some((booking, self.times.kept(pace, booking, now)?)));
        // The reservation is too far behind: the task gets a new one, or none.
        if let Some(booking) = own.filter(|_| promised.is_none()) {
            self.times.take_back(booking);
        }
        let called = || ask.is_called.then(|| self.times.soon(pace, now)).flatten();
        if let Some((booking, free)) = promised.is_none().then(called).flatten() {
            // The due reservation at the other limiter is worth more than the last place in the queue here.
            let wait = Denied { reason: HeldReason::RateLimited, until: free, booking: None };
            return if free <= now { Ok(booking) } else { Err(wait) };
        }
        let found = promised.or_else(|| {
            let booking = self.times.book(pace, now)?;
            Some((booking, self.times.free_at(pace, booking)))
        });
        match found {
            Some((booking, free)) if free <= now => Ok(booking),
            Some((booking, free)) => Err(Denied { reason: HeldReason::RateLimited, until: free, booking: Some(booking) }),
            None => Err(Denied { reason: HeldReason::RateLimited, until: ask.far_ahead(now), booking: None }),
        }
    }

    /// Holds a task until the receiver's pause ends. With a rate limit, it gets a reservation after the pause. Without one, jitter spreads
    /// the tasks.
    fn after_pause(&mut self, limits: &Limits, ask: &AcquireRequest, until: Timestamp, now: Timestamp) -> AcquireResult {
        let booking = limits.pace.and_then(|pace| match ask.booking.filter(|booking| pace.knows(*booking)) {
            Some(booking) if booking.at() >= until => Some(booking),
            before => {
                if let Some(booking) = before {
                    self.times.take_back(booking);
                }
                self.times.book(pace, now)
            }
        });
        let until = match booking {
            Some(booking) => booking.at().max(until),
            None => until + ask.spread.of(ask.patience()),
        };
        AcquireResult::Wait(Denied { reason: HeldReason::RetryAfter, until: until.min(now + MAX_RESERVATION_AHEAD), booking })
    }

    /// Takes back an unused permit.
    pub fn give_back(&mut self, pass: Permit, holder: HolderId, now: Timestamp) {
        if let Some(booking) = pass.booking {
            self.times.forget_start(booking);
            if !pass.keeps_booking {
                self.times.take_back(booking);
            }
        }
        if pass.has_slot {
            self.slots.give_back(holder);
        }
        if pass.is_probe {
            self.breaker.withdraw(now);
            self.changes.take_back_probe();
        }
    }

    /// Records the outcome of a start, and frees its concurrency slot.
    pub fn leave(&mut self, limits: &Limits, pass: Permit, holder: HolderId, report: &CallReport, now: Timestamp) {
        if pass.has_slot {
            self.slots.release(holder, report.took);
        }
        if let Some(policy) = limits.breaker {
            // An attempt that began before the circuit breaker closed belongs to the outage that is over.
            let is_old = self.changes.closed_at().is_some_and(|closed_at| now - report.took < closed_at);
            let verdict = if is_old { CallHealth::Unknown } else { report.verdict };
            self.noting(now, |flow| flow.breaker.note(policy, pass.is_probe, verdict, now));
        }
        if let Some(until) = report.pause_until.filter(|until| now < *until) {
            self.paused_until = self.paused_until.max(Some(until));
            self.times.pause(until);
        }
    }

    /// Ends the pause that the receiver asked for, because a client allows calls again, and forgets all reservations. An open circuit
    /// breaker lets one probe start at once.
    pub fn lift(&mut self, now: Timestamp) {
        self.paused_until = None;
        self.times.restart(now);
        self.breaker.hurry(now);
    }

    /// Applies a change. Returns the task that leads the batch from now on, if the leader changed.
    pub fn change(&mut self, change: LimiterChange, now: Timestamp) -> Option<Successor> {
        match change {
            LimiterChange::Return(booking) => self.times.take_back(booking),
            LimiterChange::Withdraw { id, bytes } => return self.gathering.withdraw(id, bytes, now),
            LimiterChange::Restart => self.times.restart(now),
            LimiterChange::Lift => self.lift(now),
        }
        None
    }

    /// Adds a task to the batch. Returns what the task does next.
    pub fn gather(&mut self, gathered: BatchLimits, member: &BatchMember, now: Timestamp) -> BatchDecision {
        self.gathering.join(gathered, member, now)
    }

    /// Postpones the batch: it is not due before `until`.
    pub fn put_off(&mut self, until: Timestamp) {
        self.gathering.put_off(until);
    }

    /// Removes and returns all members of the batch if `id` is among them. Otherwise another leader took that task along, and the list is
    /// empty.
    pub fn take(&mut self, id: TaskId) -> Vec<TaskId> {
        self.gathering.take(id)
    }

    /// Records that a process is alive, and how many slots it holds. The count makes up for a lost response. A process that reports nothing
    /// for longer than a lease loses its slots.
    pub fn recount(&mut self, holder: HolderId, count: u32, now: Timestamp) {
        self.slots.recount(holder, count, now);
    }

    /// Returns the number of concurrency slots in use.
    pub fn in_use(&self, now: Timestamp) -> u32 {
        self.slots.in_use(now)
    }

    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| unreachable!("numbers and moments"))
    }

    /// Reads what [`LimiterState::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|_| Unreadable("the state of a limiter"))
    }
}

impl AcquireRequest {
    /// Returns a wait that doubles with each hold, from 1 second up to [`MAX_RESERVATION_AHEAD`].
    fn patience(&self) -> Duration {
        doubled(self.times)
    }

    /// Returns the minimum wait of a task that found no concurrency slot. It doubles with each hold, from 1 millisecond up to 10 seconds.
    ///
    /// Short runs in the past do not shorten it: the tasks that run now may take much longer, and each request costs three writes.
    fn insistence(&self) -> Duration {
        Duration::from_millis(1).saturating_mul(2_u32.saturating_pow(self.times.min(20))).min(MAX_INSISTENCE)
    }

    /// Returns when a task asks again that found no slot within [`MAX_RESERVATION_AHEAD`]: a random moment in the second half of the horizon.
    fn far_ahead(&self, now: Timestamp) -> Timestamp {
        now + MAX_RESERVATION_AHEAD / 2 + self.spread.of(MAX_RESERVATION_AHEAD / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: HolderId = HolderId(1);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Duration::from_millis(millis)
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    fn pace(rate: u32) -> RateLimit {
        RateLimit { rate: count(rate), period: Duration::from_secs(1), burst: count(1) }
    }

    fn ask() -> AcquireRequest {
        AcquireRequest { holder: ME, booking: None, is_called: false, times: 0, spread: JitterSample::from_bits(0) }
    }

    fn report(verdict: CallHealth) -> CallReport {
        CallReport { verdict, took: Duration::from_millis(50), pause_until: None }
    }

    fn go(answer: AcquireResult) -> Permit {
        match answer {
            AcquireResult::Go(pass) => pass,
            AcquireResult::Wait(wait) => panic!("{wait:?}"),
        }
    }

    fn wait(answer: AcquireResult) -> Denied {
        match answer {
            AcquireResult::Wait(wait) => wait,
            AcquireResult::Go(pass) => panic!("{pass:?}"),
        }
    }

    #[test]
    fn names_are_read_back() {
        let name = || Name::new("billing").unwrap();
        for of in [
            LimitScope::Endpoint(name()),
            LimitScope::Batch(name(), 0xfee1_dead_0000_0001),
            LimitScope::Key(name()),
            LimitScope::Kind(name()),
            LimitScope::Queue(name()),
            LimitScope::Tenant,
        ] {
            assert_eq!(of.to_string().parse(), Ok(of));
        }
        for text in ["", "billing", "endpoint/", "endpoint/a/b", "tenant/billing", "batch/billing/x", "batch//0"] {
            assert_eq!(text.parse::<LimitScope>(), Err(InvalidLimitScope), "{text}");
        }
    }

    #[test]
    fn patience_doubles_up_to_a_limit() {
        let wait = |times, bits| patience(times, JitterSample::from_bits(bits)).as_millis();
        assert_eq!([0, 1, 2, 9, 10, 1_000].map(|times| wait(times, 0)), [500, 1_000, 2_000, 256_000, 450_000, 450_000]);
        assert_eq!((wait(0, u64::MAX), wait(30, u64::MAX)), (1_000, 900_000));
    }

    #[test]
    fn unlimited_task_starts_at_once() {
        let mut flow = LimiterState::default();
        assert_eq!(flow.enter(&Limits::default(), &ask(), at(0)), AcquireResult::Go(Permit::default()));
        assert_eq!(flow, LimiterState::default());
    }

    #[test]
    fn reservation_is_kept_and_not_made_twice() {
        let (mut flow, limits) = (LimiterState::default(), Limits { pace: Some(pace(10)), ..Limits::default() });
        go(flow.enter(&limits, &ask(), at(0)));
        let promised = wait(flow.enter(&limits, &ask(), at(0)));
        let next = wait(flow.enter(&limits, &ask(), at(0)));
        assert_eq!((promised.reason, promised.until, next.until), (HeldReason::RateLimited, at(102), at(204)));
        let ask = AcquireRequest { booking: promised.booking, ..ask() };
        assert_eq!(go(flow.enter(&limits, &ask, promised.until)).booking, promised.booking);
        let late = wait(flow.enter(&limits, &ask, at(122)));
        assert_eq!(late.until, at(184), "a late task starts one interval after the last start");
    }

    #[test]
    fn task_without_a_slot_keeps_its_reservation() {
        let twice = RateLimit { burst: count(2), ..pace(1) };
        let (mut flow, limits) = (LimiterState::default(), Limits { pace: Some(twice), concurrency: Some(count(1)), breaker: None });
        let running = go(flow.enter(&limits, &ask(), at(0)));
        let held = wait(flow.enter(&limits, &ask(), at(0)));
        assert_eq!(held.reason, HeldReason::ConcurrencyLimited);
        let ask = AcquireRequest { booking: held.booking, ..ask() };
        flow.leave(&limits, running, ME, &report(CallHealth::Good), held.until);
        assert_eq!(go(flow.enter(&limits, &ask, held.until)).booking, held.booking);
        assert!(held.booking.is_some());
    }

    #[test]
    fn task_without_a_slot_waits_longer_each_time() {
        let (mut flow, limits) = (LimiterState::default(), Limits { concurrency: Some(count(1)), ..Limits::default() });
        let quick = go(flow.enter(&limits, &ask(), at(0)));
        flow.leave(&limits, quick, ME, &CallReport { took: Duration::from_millis(1), ..report(CallHealth::Good) }, at(1));
        go(flow.enter(&limits, &ask(), at(1)));
        let waits = [0, 1, 5, 10, 15, 1_000].map(|times| {
            let now = at(100_000_000 + u64::from(times));
            flow.recount(ME, 1, now);
            wait(flow.enter(&limits, &AcquireRequest { times, ..ask() }, now)).until.since(now).as_millis()
        });
        assert_eq!(waits, [1, 2, 32, 1_024, 10_000, 10_000], "the delay doubles from the average of one millisecond");
    }

    #[test]
    fn returned_pass_is_free_for_the_next_task() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
        let (mut flow, limits) = (LimiterState::default(), Limits { pace: Some(pace(1)), concurrency: Some(count(1)), breaker });
        let pass = go(flow.enter(&limits, &ask(), at(0)));
        flow.give_back(pass, ME, at(0));
        let pass = go(flow.enter(&limits, &ask(), at(0)));
        flow.leave(&limits, pass, ME, &report(CallHealth::Bad), at(0));
        let probe = go(flow.enter(&limits, &ask(), at(30_000)));
        assert!(probe.is_probe);
        flow.give_back(probe, ME, at(30_000));
        assert!(go(flow.enter(&limits, &ask(), at(30_000))).is_probe);
    }

    #[test]
    fn open_breaker_allows_a_probe_after_its_duration() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
        let (mut flow, limits) = (LimiterState::default(), Limits { breaker, ..Limits::default() });
        let pass = go(flow.enter(&limits, &ask(), at(0)));
        flow.leave(&limits, pass, ME, &report(CallHealth::Bad), at(0));
        let half = AcquireRequest { times: 3, spread: JitterSample::from_bits(1 << 63), ..ask() };
        let held = wait(flow.enter(&limits, &half, at(0)));
        assert_eq!((held.reason, held.until), (HeldReason::CircuitOpen, at(34_000)));
        let patient = AcquireRequest { times: 99, spread: JitterSample::from_bits(u64::MAX), ..ask() };
        assert_eq!(wait(flow.enter(&limits, &patient, at(0))).until, at(0) + MAX_RESERVATION_AHEAD);
        let probe = go(flow.enter(&limits, &half, at(34_000)));
        wait(flow.enter(&limits, &ask(), at(34_000)));
        flow.leave(&limits, probe, ME, &report(CallHealth::Good), at(34_050));
        assert!(!go(flow.enter(&limits, &ask(), at(34_050))).is_probe);
    }

    #[test]
    fn probe_without_a_slot_is_left_to_the_next_task() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
        let (mut flow, limits) = (LimiterState::default(), Limits { breaker, concurrency: Some(count(2)), ..Limits::default() });
        let [failing, hanging] = [(); 2].map(|()| go(flow.enter(&limits, &ask(), at(0))));
        flow.leave(&limits, failing, ME, &report(CallHealth::Bad), at(0));
        let narrow = Limits { concurrency: Some(count(1)), ..limits };
        assert_eq!(wait(flow.enter(&narrow, &ask(), at(30_000))).reason, HeldReason::ConcurrencyLimited);
        flow.leave(&narrow, hanging, ME, &report(CallHealth::Good), at(30_001));
        assert!(go(flow.enter(&narrow, &ask(), at(30_001))).is_probe, "the outcome of an attempt from before is ignored");
    }

    #[test]
    fn no_task_starts_during_a_pause_of_the_receiver() {
        for (pace, expected) in [(Some(pace(10)), [at(60_000), at(60_102)]), (None, [at(60_000), at(60_000)])] {
            let (mut flow, limits) = (LimiterState::default(), Limits { pace, ..Limits::default() });
            let pass = go(flow.enter(&limits, &ask(), at(0)));
            let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Bad) };
            flow.leave(&limits, pass, ME, &asked, at(0));
            let waits = [(); 2].map(|()| wait(flow.enter(&limits, &ask(), at(1_000))));
            assert_eq!(waits.map(|wait| wait.until), expected);
            assert_eq!(waits[0].reason, HeldReason::RetryAfter);
            let first = AcquireRequest { booking: waits[0].booking, ..ask() };
            go(flow.enter(&limits, &first, at(60_000)));
        }
    }

    #[test]
    fn calls_begun_before_recovery_do_not_reopen_the_breaker() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(2), ..BreakerPolicy::default() });
        let limits = Limits { breaker, ..Limits::default() };
        let mut flow = LimiterState::default();
        let passes: Vec<Permit> = (0..6).map(|_| go(flow.enter(&limits, &ask(), at(0)))).collect();
        let (bad, state) = (report(CallHealth::Bad), |flow: &LimiterState| flow.breaker.state());
        passes[..2].iter().for_each(|pass| flow.leave(&limits, *pass, ME, &bad, at(100)));
        let probe = go(flow.enter(&limits, &ask(), at(40_000)));
        flow.leave(&limits, probe, ME, &report(CallHealth::Good), at(40_050));
        assert_eq!(state(&flow), BreakerState::Closed);
        let hung = CallReport { took: Duration::from_mins(1), ..bad };
        passes[2..4].iter().for_each(|pass| flow.leave(&limits, *pass, ME, &hung, at(60_000)));
        assert_eq!(state(&flow), BreakerState::Closed);
        passes[4..].iter().for_each(|pass| flow.leave(&limits, *pass, ME, &bad, at(60_000)));
        assert_eq!(state(&flow), BreakerState::Open);
    }

    #[test]
    fn lifted_pause_keeps_the_rate() {
        let limits = Limits { pace: Some(pace(10)), ..Limits::default() };
        let mut flow = LimiterState::default();
        let pass = go(flow.enter(&limits, &ask(), at(0)));
        let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Bad) };
        flow.leave(&limits, pass, ME, &asked, at(0));
        assert_eq!(wait(flow.enter(&limits, &ask(), at(1_000))).until, at(60_000));
        flow.lift(at(2_000));
        go(flow.enter(&limits, &ask(), at(2_000)));
        assert_eq!(wait(flow.enter(&limits, &ask(), at(2_000))).reason, HeldReason::RateLimited);
        let waiting = (0..20).map(|_| wait(flow.enter(&limits, &ask(), at(2_000))).until).max().unwrap();
        flow.lift(at(3_000));
        assert!(at(4_000) < waiting, "{waiting}");
        go(flow.enter(&limits, &ask(), at(3_000)));
        assert_eq!(flow.state(&limits, at(3_000)).reserved_starts, Some(0), "reservations start again");
    }

    #[test]
    fn task_held_for_another_reason_returns_its_reservation() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
        let limits = Limits { pace: Some(pace(1)), breaker, ..Limits::default() };
        let mut flow = LimiterState::default();
        let pass = go(flow.enter(&limits, &ask(), at(0)));
        let held = wait(flow.enter(&limits, &ask(), at(0)));
        flow.leave(&limits, pass, ME, &report(CallHealth::Bad), at(10));
        let promised = |flow: &LimiterState, millis| flow.state(&limits, at(millis)).reserved_starts;
        assert_eq!(promised(&flow, 10), Some(1));
        let open = wait(flow.enter(&limits, &AcquireRequest { booking: held.booking, ..ask() }, at(20)));
        assert_eq!((open.reason, promised(&flow, 20)), (HeldReason::CircuitOpen, Some(0)));
        let asked = CallReport { pause_until: Some(at(60_000)), ..report(CallHealth::Unknown) };
        flow.leave(&limits, Permit::default(), ME, &asked, at(30));
        let resting = wait(flow.enter(&limits, &ask(), at(40)));
        let again = wait(flow.enter(&limits, &AcquireRequest { booking: resting.booking, ..ask() }, at(50)));
        assert_eq!(
            (resting.until, again.booking, promised(&flow, 50)),
            (at(60_000), resting.booking, Some(1)),
            "the task keeps its one reservation"
        );
        flow.change(LimiterChange::Return(resting.booking.unwrap()), at(60));
        assert_eq!(promised(&flow, 60), Some(0));
    }

    #[test]
    fn task_with_a_reservation_elsewhere_does_not_queue() {
        let limits = Limits { pace: Some(pace(10)), ..Limits::default() };
        let mut flow = LimiterState::default();
        go(flow.enter(&limits, &ask(), at(0)));
        let line: Vec<Denied> = (0..50).map(|_| wait(flow.enter(&limits, &ask(), at(0)))).collect();
        assert!(line.last().unwrap().until > at(4_000));
        let called = AcquireRequest { is_called: true, ..ask() };
        let told = wait(flow.enter(&limits, &called, at(10)));
        assert_eq!((told.booking, told.reason), (None, HeldReason::RateLimited));
        assert!(at(10) < told.until && told.until < at(102), "{told:?}");
        go(flow.enter(&limits, &called, told.until));
        let next = wait(flow.enter(&limits, &AcquireRequest { booking: line[0].booking, ..ask() }, at(102)));
        assert!(next.booking == line[0].booking && next.until < at(250), "{next:?}");
    }

    #[test]
    fn limiter_state_is_read_back_as_stored() {
        let breaker = Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() });
        let limits = Limits { pace: Some(pace(3)), concurrency: Some(count(2)), breaker };
        let mut flow = LimiterState::default();
        for verdict in [CallHealth::Good, CallHealth::Bad] {
            assert_eq!(LimiterState::from_text(&flow.to_text()).unwrap(), flow);
            let pass = go(flow.enter(&limits, &ask(), at(0)));
            flow.leave(&limits, pass, ME, &report(verdict), at(1));
            flow.give_back(Permit { is_probe: false, ..pass }, ME, at(1));
        }
        assert_eq!(LimiterState::from_text(&flow.to_text()).unwrap(), flow);
        assert!(LimiterState::from_text("[]").is_err() || LimiterState::from_text("7").is_err());
    }
}

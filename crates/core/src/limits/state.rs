//! State of one limiter, and its decisions about permits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::limits::backoff::doubled;
use crate::limits::batch::{BatchBuffer, BatchDecision, BatchLimits, BatchMember, Successor};
use crate::limits::breaker::{Breaker, BreakerDecision, BreakerState, CallHealth, Changes};
use crate::limits::concurrency::{ConcurrencySlots, HolderId};
use crate::limits::rate::{GcraState, MAX_RESERVATION_AHEAD, RateLimit, Reservation};
use crate::types::held_reason::HeldReason;
use crate::types::id::TaskId;
use crate::types::intervals::LEASE;
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Change to a limiter that needs neither an immediate result nor the configured limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterChange {
    /// Gives a reservation back, because the task ended or waits for something else.
    ReleaseReservation(Reservation),
    /// Removes a task from the batch in which the task waits.
    LeaveBatch {
        /// The task.
        id: TaskId,
        /// Size of the task's part of the request, in bytes.
        bytes: u64,
    },
    /// Forgets all reservations. The rate still limits the starts.
    ResetReservations,
    /// Forgets all reservations, and ends the pause that the receiver asked for. An open circuit breaker lets
    /// one probe start at once.
    ClearPause,
}

/// State of a limiter. The default state delays no task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimiterState {
    pub(super) gcra: GcraState,
    pub(super) slots: ConcurrencySlots,
    pub(super) breaker: Breaker,
    /// Latest changes of the circuit breaker.
    #[serde(skip_serializing_if = "Changes::is_empty")]
    pub(super) changes: Changes,
    /// End of the pause that the receiver asked for.
    pub(super) paused_until: Option<Timestamp>,
    /// Tasks that wait to go in one request.
    #[serde(skip_serializing_if = "BatchBuffer::is_empty")]
    pub(super) batch: BatchBuffer,
}

/// Request of a task to start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AcquireRequest {
    /// Process that takes the concurrency slot.
    pub holder: HolderId,
    /// Reservation that the task holds at this limiter.
    pub reservation: Option<Reservation>,
    /// True if the task holds a due reservation at another limiter. The task then waits for the next free
    /// start at this limiter, without a reservation.
    pub has_due_reservation_elsewhere: bool,
    /// Number of times in a row that the task was held.
    pub holds: u32,
    /// Random share for the jitter of the task's next try.
    pub jitter: JitterSample,
}

/// Decision about an [`AcquireRequest`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AcquireResult {
    /// The task may start.
    Granted(Permit),
    /// The task must wait.
    Denied(Denied),
}

/// Permit for one start. The worker gives the permit back unused ([`LimiterState::cancel`]), or reports the
/// outcome of the start ([`LimiterState::complete`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Reservation that the start used.
    pub(super) reservation: Option<Reservation>,
    /// True if the attempt is the circuit breaker's probe.
    pub(super) is_probe: bool,
    /// True if the permit holds a concurrency slot.
    pub(super) has_slot: bool,
    /// True if the task keeps its reservation when the worker gives the permit back.
    pub(super) keeps_reservation: bool,
}

/// Hold of a task that may not start yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Reason of the hold.
    pub reason: HeldReason,
    /// Time at which the task tries again.
    pub until: Timestamp,
    /// Reservation that the task holds until it tries again.
    pub reservation: Option<Reservation>,
}

/// Outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// Health of the receiver, judged by the attempt.
    pub health: CallHealth,
    /// Duration of the attempt.
    pub took: Duration,
    /// End of the pause that the receiver asked for. `None` if it asked for no pause.
    pub pause_until: Option<Timestamp>,
}

/// Maximum of [`AcquireRequest::min_slot_backoff`].
const MAX_INSISTENCE: Duration = Duration::from_secs(10);

impl Permit {
    /// Returns true if the permit holds a concurrency slot. The slot is lost if the process that holds it
    /// reports nothing for longer than a lease.
    pub fn has_slot(&self) -> bool {
        self.has_slot
    }

    /// Returns the permit, changed so that the task keeps its reservation when the worker gives the permit
    /// back.
    #[must_use]
    pub fn keeping_reservation(self) -> Self {
        Self { keeps_reservation: true, ..self }
    }

    /// Returns the permit for a second report, if it is unknown whether the first report was written.
    ///
    /// The returned permit has no reservation and no slot, because another task may have taken them after the
    /// first report.
    #[must_use]
    pub fn without_capacity(self) -> Self {
        Self { is_probe: self.is_probe, ..Self::default() }
    }
}

impl LimiterState {
    /// Decides whether a task may start.
    pub fn acquire(&mut self, limits: &Limits, request: &AcquireRequest, now: Timestamp) -> AcquireResult {
        self.tracking_breaker(now, |limiter| limiter.decide(limits, request, now))
    }

    /// Runs `does`, and records a change of the circuit breaker's state.
    fn tracking_breaker<T>(&mut self, now: Timestamp, does: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.breaker.state();
        let done = does(self);
        self.changes.note(before, self.breaker.state(), now);
        done
    }

    fn decide(&mut self, limits: &Limits, request: &AcquireRequest, now: Timestamp) -> AcquireResult {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return self.after_pause(limits, request, until, now);
        }
        let decision = limits.breaker.map_or(BreakerDecision::Free, |_| self.breaker.permit(LEASE, now));
        if let BreakerDecision::Closed(until) = decision {
            if let Some(reservation) = request.reservation.filter(|reservation| now < reservation.at()) {
                self.gcra.release(reservation);
            }
            // The outcome of a probe is known long before its lease expires.
            let until = match limits.breaker {
                Some(policy) if self.breaker.state() == BreakerState::HalfOpen => {
                    until.min(now + policy.open_duration)
                }
                _ => until,
            };
            let until = until.max(now) + request.jitter.of(request.hold_backoff());
            return AcquireResult::Denied(Denied {
                reason: HeldReason::CircuitOpen,
                until: until.min(now + MAX_RESERVATION_AHEAD),
                reservation: None,
            });
        }
        let is_probe = decision == BreakerDecision::Probe;
        match self.start(limits, request, now) {
            Ok((reservation, has_slot)) => {
                AcquireResult::Granted(Permit { reservation, is_probe, has_slot, keeps_reservation: false })
            }
            Err(wait) => {
                if is_probe {
                    self.breaker.cancel_probe(now);
                }
                AcquireResult::Denied(wait)
            }
        }
    }

    /// Takes a reservation at the rate limit and a concurrency slot.
    fn start(
        &mut self,
        limits: &Limits,
        request: &AcquireRequest,
        now: Timestamp,
    ) -> Result<(Option<Reservation>, bool), Denied> {
        let reservation = limits.rate.map(|rate_limit| self.reserve(rate_limit, request, now)).transpose()?;
        if let Some(most) = limits.concurrency
            && !self.slots.take(most, request.holder, now)
        {
            // The task keeps its reservation while it waits for a slot.
            let until =
                self.slots.next_retry_time(most, now).unwrap_or_else(|| request.beyond_horizon_retry(now));
            return Err(Denied {
                reason: HeldReason::ConcurrencyLimited,
                until: until.max(now + request.min_slot_backoff()),
                reservation,
            });
        }
        if let Some(rate_limit) = limits.rate {
            self.gcra.start(rate_limit, now);
        }
        Ok((reservation, limits.concurrency.is_some()))
    }

    /// Returns a reservation with which the task can start now.
    fn reserve(
        &mut self,
        rate_limit: RateLimit,
        request: &AcquireRequest,
        now: Timestamp,
    ) -> Result<Reservation, Denied> {
        let own = request
            .reservation
            .filter(|reservation| rate_limit.is_valid(*reservation))
            .map(|reservation| self.gcra.advance(rate_limit, reservation, now));
        let reserved = own
            .and_then(|reservation| Some((reservation, self.gcra.due_time(rate_limit, reservation, now)?)));
        // So many other tasks started that a new reservation is better than the task's own.
        if let Some(reservation) = own.filter(|_| reserved.is_none()) {
            self.gcra.release(reservation);
        }
        let called =
            || request.has_due_reservation_elsewhere.then(|| self.gcra.next_free(rate_limit, now)).flatten();
        if let Some((reservation, free)) = reserved.is_none().then(called).flatten() {
            // The task gets no reservation here. Otherwise a task with several limits would queue at one
            // limiter after the other, and starve.
            let wait = Denied { reason: HeldReason::RateLimited, until: free, reservation: None };
            return if free <= now { Ok(reservation) } else { Err(wait) };
        }
        let found = reserved.or_else(|| {
            let reservation = self.gcra.reserve(rate_limit, now)?;
            Some((reservation, self.gcra.free_at(rate_limit, reservation)))
        });
        match found {
            Some((reservation, free)) if free <= now => Ok(reservation),
            Some((reservation, free)) => {
                Err(Denied { reason: HeldReason::RateLimited, until: free, reservation: Some(reservation) })
            }
            None => Err(Denied {
                reason: HeldReason::RateLimited,
                until: request.beyond_horizon_retry(now),
                reservation: None,
            }),
        }
    }

    /// Holds a task until the receiver's pause ends. With a rate limit, the task gets a reservation after the
    /// pause. Without a rate limit, jitter spreads the tasks.
    fn after_pause(
        &mut self,
        limits: &Limits,
        request: &AcquireRequest,
        until: Timestamp,
        now: Timestamp,
    ) -> AcquireResult {
        let reservation = limits.rate.and_then(|rate_limit| {
            match request.reservation.filter(|reservation| rate_limit.is_valid(*reservation)) {
                Some(reservation) if reservation.at() >= until => Some(reservation),
                before => {
                    if let Some(reservation) = before {
                        self.gcra.release(reservation);
                    }
                    self.gcra.reserve(rate_limit, now)
                }
            }
        });
        let until = match reservation {
            Some(reservation) => reservation.at().max(until),
            None => until + request.jitter.of(request.hold_backoff()),
        };
        AcquireResult::Denied(Denied {
            reason: HeldReason::RetryAfter,
            until: until.min(now + MAX_RESERVATION_AHEAD),
            reservation,
        })
    }

    /// Takes back an unused permit.
    pub fn cancel(&mut self, permit: Permit, holder: HolderId, now: Timestamp) {
        if let Some(reservation) = permit.reservation {
            self.gcra.forget_start(reservation);
            if !permit.keeps_reservation {
                self.gcra.release(reservation);
            }
        }
        if permit.has_slot {
            self.slots.cancel(holder);
        }
        if permit.is_probe {
            self.breaker.cancel_probe(now);
            self.changes.take_back_probe();
        }
    }

    /// Records the outcome of a start, and frees its concurrency slot.
    pub fn complete(
        &mut self,
        limits: &Limits,
        permit: Permit,
        holder: HolderId,
        report: &CallReport,
        now: Timestamp,
    ) {
        if permit.has_slot {
            self.slots.release(holder, report.took);
        }
        if let Some(policy) = limits.breaker {
            // An attempt that began before the circuit breaker closed belongs to the previous outage, and
            // does not count.
            let is_old = self.changes.closed_at().is_some_and(|closed_at| now - report.took < closed_at);
            let health = if is_old { CallHealth::Unknown } else { report.health };
            self.tracking_breaker(now, |limiter| limiter.breaker.note(policy, permit.is_probe, health, now));
        }
        if let Some(until) = report.pause_until.filter(|until| now < *until) {
            self.paused_until = self.paused_until.max(Some(until));
            self.gcra.pause(until);
        }
    }

    /// Ends the pause that the receiver asked for, because a client allows calls again. Forgets all
    /// reservations. An open circuit breaker lets one probe start at once.
    pub fn clear_pause(&mut self, now: Timestamp) {
        self.paused_until = None;
        self.gcra.restart(now);
        self.breaker.probe_now(now);
    }

    /// Applies a change. Returns the new leader of the batch, if the leader changed.
    pub fn change(&mut self, change: LimiterChange, now: Timestamp) -> Option<Successor> {
        match change {
            LimiterChange::ReleaseReservation(reservation) => self.gcra.release(reservation),
            LimiterChange::LeaveBatch { id, bytes } => return self.batch.leave(id, bytes, now),
            LimiterChange::ResetReservations => self.gcra.restart(now),
            LimiterChange::ClearPause => self.clear_pause(now),
        }
        None
    }

    /// Adds a task to the batch. Returns the next step of the task.
    pub fn join_batch(
        &mut self,
        batch_limits: BatchLimits,
        member: &BatchMember,
        now: Timestamp,
    ) -> BatchDecision {
        self.batch.join(batch_limits, member, now)
    }

    /// Postpones the batch: it is not due before `until`.
    pub fn defer_batch(&mut self, until: Timestamp) {
        self.batch.defer(until);
    }

    /// Removes and returns all members of the batch if `id` is among them. Otherwise another leader took that
    /// task, and the list is empty.
    pub fn take_batch(&mut self, id: TaskId) -> Vec<TaskId> {
        self.batch.take(id)
    }

    /// Records that a process is alive, and its number of slots. If a response was lost, this number corrects
    /// the stored number. A process that reports nothing for longer than a lease loses its slots.
    pub fn recount(&mut self, holder: HolderId, count: u32, now: Timestamp) {
        self.slots.recount(holder, count, now);
    }

    /// Returns the number of concurrency slots in use.
    pub fn running(&self, now: Timestamp) -> u32 {
        self.slots.running(now)
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
    fn hold_backoff(&self) -> Duration {
        doubled(self.holds)
    }

    /// Returns the minimum wait of a task that found no concurrency slot. The wait doubles with each hold,
    /// from 1 millisecond up to 10 seconds.
    ///
    /// The wait does not depend on the average duration of tasks: the running tasks may take much longer, and
    /// each try costs three writes.
    fn min_slot_backoff(&self) -> Duration {
        Duration::from_millis(1).saturating_mul(2_u32.saturating_pow(self.holds.min(20))).min(MAX_INSISTENCE)
    }

    /// Returns when a task tries again if no slot is free within [`MAX_RESERVATION_AHEAD`]: at a random time
    /// in the second half of that period.
    fn beyond_horizon_retry(&self, now: Timestamp) -> Timestamp {
        now + MAX_RESERVATION_AHEAD / 2 + self.jitter.of(MAX_RESERVATION_AHEAD / 2)
    }
}

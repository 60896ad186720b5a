//! State machine of a task: the only code that decides how a task changes.
//!
//! ```text
//!                  due                    claim               ok
//!  submit ─► scheduled ───────► queued ──────────► running ─────────► succeeded
//! ```
//! The README has the complete diagram. A test compares it with the `match` in this file.

mod unfinished;
mod waits;

use std::time::Duration;

use crate::auth::audit::Entry;
use crate::json::Json;
use crate::limits::{Reservations, ScopedReservation};
use crate::task::Task;
use crate::task::attempt::{Attempt, AttemptOutcome, TaskError};
use crate::task::callback_task::callback;
use crate::task::completion::TokenDigest;
use crate::task::error_code::ErrorCode;
use crate::task::event::EVENT_KIND;
use crate::task::retry::RetryPolicy;
use crate::task::state::{CancelRequest, Completion, Held, HoldState, Lease, Outcome, State, Waiting};
use crate::types::held_reason::HeldReason;
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

/// Event that can happen to a task.
///
/// An event from a worker carries the fencing token of its claim. The event is refused if another claim was
/// granted since.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker claims the task until the given time. The task must be due, unless it waits in a batch.
    Claim {
        /// Expiry of the lease.
        until: Timestamp,
    },
    /// The worker gives up its claim before the handler began. No attempt is counted.
    Release {
        /// The fencing token of the lease.
        token: u64,
    },
    /// The worker finds that the task may not start yet. No attempt is counted.
    Hold {
        /// The fencing token of the lease.
        token: u64,
        /// Reason of the hold.
        reason: HeldReason,
        /// Time of the next try.
        until: Timestamp,
        /// Reservations that the task keeps until the next try.
        reserved: Reservations,
    },
    /// The worker has done a part of a recurring task, and the task continues later. No attempt is counted.
    Reschedule {
        /// The fencing token of the lease.
        token: u64,
        /// Time of the next part.
        until: Timestamp,
        /// Progress to store.
        progress: Json,
    },
    /// The handler returned a result.
    Succeed {
        /// The fencing token of the lease.
        token: u64,
        /// Result of the handler.
        result: Json,
    },
    /// The handler failed or panicked, or the attempt took longer than its timeout.
    Fail {
        /// The fencing token of the lease.
        token: u64,
        /// Reason of the failure.
        error: TaskError,
        /// Advice on another attempt.
        retry: Retry,
        /// Current retry policy of the endpoint, if the submission left the policy to the endpoint. Replaces
        /// the policy that the task stores.
        policy: Option<RetryPolicy>,
        /// Random share of the delay before the next attempt.
        spread: JitterSample,
    },
    /// The worker is about to make a call whose receiver may report the outcome later.
    IssueToken {
        /// The fencing token of the lease.
        token: u64,
        /// Digest of the completion token that the receiver gets.
        digest: TokenDigest,
    },
    /// The receiver accepted the call and reports the outcome later.
    Wait {
        /// The fencing token of the lease.
        token: u64,
        /// Result of the call, for the circuit breaker. The task does not store it.
        result: Json,
        /// Time-out of the wait.
        until: Timestamp,
    },
    /// The receiver reports that it did the work.
    CompleteByToken {
        /// Digest of the completion token.
        digest: TokenDigest,
        /// Result of the task.
        result: Json,
    },
    /// The receiver reports that the work failed.
    FailByToken {
        /// Digest of the completion token.
        digest: TokenDigest,
        /// Reason of the failure.
        error: TaskError,
        /// Advice on another attempt.
        retry: Retry,
        /// Current retry policy of the endpoint: see [`Event::Fail`].
        policy: Option<RetryPolicy>,
        /// Random share of the delay before the next attempt.
        spread: JitterSample,
    },
    /// The receiver reported nothing before the time-out of the wait. The worker claimed the task before.
    TimeOut {
        /// The fencing token of the lease.
        token: u64,
        /// Reason of the failure.
        error: TaskError,
        /// Advice on another attempt.
        retry: Retry,
        /// Current retry policy of the endpoint: see [`Event::Fail`].
        policy: Option<RetryPolicy>,
        /// Random share of the delay before the next attempt.
        spread: JitterSample,
    },
    /// The handler stopped because a client canceled the task.
    Stop {
        /// The fencing token of the lease.
        token: u64,
    },
    /// The worker shuts down and gives the task back unfinished.
    Interrupt {
        /// The fencing token of the lease.
        token: u64,
    },
    /// The lease expired.
    LeaseExpired {
        /// Random share of the delay before the next attempt.
        spread: JitterSample,
    },
    /// A client removed the reason of the hold ([`HeldReason::is_operator_clearable`]). The task tries again
    /// at [`HeldReason::resume_at`].
    Wake,
    /// The leader of the task's batch left, so this task leads the batch now. The task tries again when the
    /// batch is due.
    Lead {
        /// Time at which the batch is due.
        at: Timestamp,
    },
    /// A client cancels the task.
    Cancel,
    /// The deadline passed before the task could start.
    Expire,
    /// Hints for the task were delivered repeatedly, but every worker that received a hint died before it
    /// claimed the task.
    DispatchFailed,
    /// A client replays the task.
    Replay {
        /// Idempotency key that the receiver gets.
        key: ReplayKey,
        /// Generation to replay. The replay is refused if the task is at another generation. `None`: any
        /// generation.
        generation: Option<u32>,
    },
}

/// Advice on another attempt after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try again after the delay of the retry policy.
    Backoff,
    /// Try again after the pause that the receiver asked for, or after the delay of the retry policy if that
    /// is longer.
    After(Duration),
    /// Hold the task until that time, because nobat must not call the receiver before. The attempt does not
    /// count, unless the task was deferred [`Task::MAX_PUT_OFF`] times already, or `max_age` ends before that
    /// time.
    Defer(HeldReason, Timestamp),
    /// Do not try again: no attempt would end differently.
    Never,
}

/// Idempotency key that the receiver gets after a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayKey {
    /// The same key as before. The receiver does not repeat work that it has done.
    Same,
    /// A new key. The receiver does the work again.
    New,
}

/// Write that a transition requires. The store writes all parts or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Task after the change.
    pub task: Task,
    /// Version that the stored task must have.
    pub read_version: u64,
    /// Callback, if the task reached an end that its callback reports.
    pub callback: Option<Task>,
    /// Audit entry, if a client asked for the change.
    pub entry: Option<Entry>,
    /// Reservations that the task no longer holds. nobat gives these reservations back after the write
    /// ([`crate::service::backend::Backend::give_back`]).
    pub released: Reservations,
}

/// Reason why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The task has ended. An end is final; only a replay starts the task again.
    #[error("the task has ended")]
    Ended,
    /// The task has not ended, so it cannot be replayed.
    #[error("the task has not ended")]
    NotEnded,
    /// The task is at this generation, but the replay names another generation.
    #[error("the task is at generation {0}")]
    OtherGeneration(u32),
    /// The idempotency key was used with another body before.
    #[error("the idempotency key was used with another body before")]
    KeyReused,
    /// A worker runs the task.
    #[error("the task is running")]
    Running,
    /// The task is not running, so it has no lease.
    #[error("the task is not running")]
    NotRunning,
    /// The worker lost the lease. Another worker may have the task now.
    #[error("the lease was lost")]
    StaleToken,
    /// The lease has not expired.
    #[error("the lease has not expired")]
    LeaseHolds,
    /// The task is not due yet.
    #[error("the task is not due yet")]
    NotDue,
    /// The deadline has passed. The task can only expire.
    #[error("the task's deadline has passed")]
    PastDeadline,
    /// The deadline has not passed.
    #[error("the task's deadline has not passed")]
    BeforeDeadline,
    /// The task does not wait for a completion with this completion token.
    #[error("the task does not wait for a completion with this token")]
    NotWaiting,
    /// The task is not held, or tries again soon, or no client can remove the reason of the hold.
    #[error("the task has no hold that a client can end")]
    NotHeld,
}

/// Returns the change that `event` makes to `task` at `now`.
///
/// This function is pure: it reads no clock and uses no randomness. The caller writes the whole [`Change`] or
/// nothing.
pub fn transition(mut task: Task, event: Event, now: Timestamp) -> Result<Change, TransitionError> {
    let read_version = task.version;
    let mut released = task.apply(event, now)?;
    if let State::Ended(_) = task.state {
        let Reservations { rate: scoped, batch } = task.hold.release();
        released = Reservations { rate: scoped.or(released.rate), batch: batch.or(released.batch) };
    }
    task.version += 1;
    let follow_up = callback(&task, now);
    Ok(Change { task, read_version, callback: follow_up, entry: None, released })
}

/// Returns the event that is overdue, if any: the lease expired, or the deadline passed.
pub fn overdue(task: &Task, spread: JitterSample, now: Timestamp) -> Option<Event> {
    match &task.state {
        State::Running(lease) if lease.until <= now => Some(Event::LeaseExpired { spread }),
        State::Waiting(_) if task.is_past_deadline(now) => Some(Event::Expire),
        _ => None,
    }
}

impl Task {
    /// Same as [`Event::Claim`], for a task that is not stored yet. The first write of the task then includes
    /// the claim.
    pub fn claim_unstored(&mut self, until: Timestamp, now: Timestamp) -> Result<(), TransitionError> {
        self.claim(until, now)
    }

    /// Applies the event. Returns the reservations that the task no longer holds while it waits.
    fn apply(&mut self, event: Event, now: Timestamp) -> Result<Reservations, TransitionError> {
        let mut released = Reservations::default();
        match event {
            Event::Claim { until } => self.claim(until, now)?,
            Event::Release { token } => self.release(token, now)?,
            Event::Hold { token, reason, until, reserved } => {
                let lease = self.lease(token)?;
                self.retire_own_token();
                self.attempt = self.attempt.saturating_sub(1);
                self.hold.holds = self.hold.holds.saturating_add(1);
                self.hold.reservations = reserved;
                self.wait(Waiting::Held(Held { reason }), until);
                self.end_if_canceled(lease, now);
            }
            Event::Reschedule { token, until, progress } => {
                let lease = self.lease(token)?;
                self.progress = Some(progress);
                (self.attempt, self.error, self.hold) = (0, None, HoldState::default());
                self.wait(Waiting::Scheduled, until);
                self.end_if_canceled(lease, now);
            }
            Event::Succeed { token, result } => {
                let lease = self.lease(token)?;
                self.record(lease, AttemptOutcome::Succeeded, None, now);
                self.result = Some(result);
                self.error = None;
                self.end(Outcome::Succeeded, now);
            }
            Event::Fail { token, error, retry, policy, spread } => {
                let lease = self.lease(token)?;
                self.record(lease, AttemptOutcome::Failed, Some(error), now);
                self.try_again(lease.cancel, retry, policy.as_ref(), spread, now);
            }
            event @ (Event::IssueToken { .. }
            | Event::Wait { .. }
            | Event::CompleteByToken { .. }
            | Event::FailByToken { .. }
            | Event::TimeOut { .. }) => return self.apply_to_wait(event, now),
            Event::Stop { token } => {
                let lease = self.lease(token)?;
                self.record(lease, AttemptOutcome::Canceled, Some(canceled()), now);
                self.end(Outcome::Canceled, now);
            }
            Event::Interrupt { token } => self.interrupt(token, now)?,
            Event::LeaseExpired { spread } => released.batch = self.crash(spread, now)?,
            Event::Wake => released.rate = self.wake(now)?,
            Event::Lead { at } => match self.waiting()? {
                Waiting::Held(Held { reason: HeldReason::Batching }) if self.due_at > at => self.due_at = at,
                _ => return Err(TransitionError::NotHeld),
            },
            Event::Cancel => match &mut self.state {
                State::Running(lease) => lease.cancel = CancelRequest::Requested,
                State::Waiting(_) => {
                    self.error = Some(canceled());
                    self.end(Outcome::Canceled, now);
                }
                State::Ended(_) => return Err(TransitionError::Ended),
            },
            Event::Expire => self.expire(now)?,
            Event::DispatchFailed => {
                self.waiting()?;
                if self.due_at > now {
                    return Err(TransitionError::NotDue);
                }
                let message =
                    "hints for the task were received repeatedly, but no worker could claim the task";
                self.error = Some(TaskError::new(ErrorCode::DISPATCH_FAILED, message));
                self.end(Outcome::Failed, now);
            }
            Event::Replay { generation: Some(generation), .. } if generation != self.generation => {
                return Err(TransitionError::OtherGeneration(self.generation));
            }
            Event::Replay { key, .. } => match &self.state {
                State::Ended(_) => self.start_generation(key, now),
                State::Waiting(_) | State::Running(_) => return Err(TransitionError::NotEnded),
            },
        }
        Ok(released)
    }

    /// Returns the reason why the task waits, or an error if the task is running or has ended.
    fn waiting(&self) -> Result<&Waiting, TransitionError> {
        match &self.state {
            State::Waiting(waiting) => Ok(waiting),
            State::Running(_) => Err(TransitionError::Running),
            State::Ended(_) => Err(TransitionError::Ended),
        }
    }

    /// Ends a hold that a client or an operator can end. Returns the reservation that the task gives back.
    fn wake(&mut self, now: Timestamp) -> Result<Option<ScopedReservation>, TransitionError> {
        let Waiting::Held(Held { reason }) = *self.waiting()? else { return Err(TransitionError::NotHeld) };
        if !reason.is_operator_clearable() || self.due_at <= reason.resume_at(now) {
            return Err(TransitionError::NotHeld);
        }
        self.hold.holds = 0;
        self.due_at = reason.resume_at(now);
        // The reservation is for a time after the receiver's pause, which a client ended. Keeping it would
        // delay the task.
        Ok(if reason == HeldReason::RetryAfter { self.hold.reservations.rate.take() } else { None })
    }

    fn claim(&mut self, until: Timestamp, now: Timestamp) -> Result<(), TransitionError> {
        match &self.state {
            State::Ended(_) => return Err(TransitionError::Ended),
            State::Running(_) => return Err(TransitionError::Running),
            State::Waiting(_) if self.is_past_deadline(now) => return Err(TransitionError::PastDeadline),
            // The leader of a batch claims the other members before they are due.
            State::Waiting(Waiting::Held(Held { reason: HeldReason::Batching })) => {}
            State::Waiting(_) if self.due_at > now => return Err(TransitionError::NotDue),
            State::Waiting(_) => {}
        }
        self.token += 1;
        self.attempt += 1;
        self.state = State::Running(Lease { until, started_at: now, cancel: CancelRequest::None });
        Ok(())
    }

    /// Returns the lease if the task is running and `token` is its newest fencing token.
    fn lease(&self, token: u64) -> Result<Lease, TransitionError> {
        match &self.state {
            _ if token != self.token => Err(TransitionError::StaleToken),
            State::Running(lease) => Ok(*lease),
            State::Waiting(_) | State::Ended(_) => Err(TransitionError::StaleToken),
        }
    }

    fn record(&mut self, lease: Lease, outcome: AttemptOutcome, error: Option<TaskError>, now: Timestamp) {
        if self.attempts.len() == Self::KEPT_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.error.clone_from(&error);
        self.retire_token();
        self.hold = HoldState { deferrals: self.hold.deferrals, ..HoldState::default() };
        let finished_at = now.max(lease.started_at);
        self.attempts.push(Attempt {
            number: self.token,
            started_at: lease.started_at,
            finished_at,
            outcome,
            error,
        });
    }

    fn try_again(
        &mut self,
        cancel: CancelRequest,
        retry: Retry,
        policy: Option<&RetryPolicy>,
        spread: JitterSample,
        now: Timestamp,
    ) {
        let policy = policy.unwrap_or(&self.options.retry).clone();
        if let Retry::Defer(reason, until) = retry
            && cancel == CancelRequest::None
            && self.put_off(&policy, reason, until)
        {
            return;
        }
        let asked = match retry {
            Retry::Never => None,
            Retry::Backoff => Some(None),
            Retry::After(pause) => Some(Some(pause)),
            Retry::Defer(_, until) => Some(Some(until.since(now))),
        };
        let due = asked.and_then(|asked| policy.next(self.attempt, self.generation_at, asked, spread, now));
        match due {
            _ if cancel == CancelRequest::Requested => self.end(Outcome::Canceled, now),
            Some(due) => self.wait(Waiting::Retrying, due),
            None => self.end(Outcome::Failed, now),
        }
    }

    /// Holds the task without counting the attempt, and returns true. Changes nothing and returns false after
    /// [`Task::MAX_PUT_OFF`] deferrals, or if `max_age` ends before `until`.
    fn put_off(&mut self, policy: &RetryPolicy, reason: HeldReason, until: Timestamp) -> bool {
        let is_in_time = policy.max_age.is_none_or(|max_age| until <= self.generation_at + max_age);
        let may_be = is_in_time && self.hold.deferrals < Self::MAX_PUT_OFF;
        if may_be {
            self.attempt = self.attempt.saturating_sub(1);
            self.hold.deferrals += 1;
            self.wait(Waiting::Held(Held { reason }), until);
        }
        may_be
    }

    fn wait(&mut self, why: Waiting, due: Timestamp) {
        self.due_at = due;
        self.state = State::Waiting(why);
    }

    /// Ends a task that a client canceled while it ran, because it must not wait for another attempt.
    fn end_if_canceled(&mut self, lease: Lease, now: Timestamp) {
        if lease.cancel == CancelRequest::Requested {
            self.error = Some(canceled());
            self.end(Outcome::Canceled, now);
        }
    }

    fn expire(&mut self, now: Timestamp) -> Result<(), TransitionError> {
        self.waiting()?;
        if !self.is_past_deadline(now) {
            return Err(TransitionError::BeforeDeadline);
        }
        let is_waiting = matches!(self.waiting()?, Waiting::Held(Held { reason: HeldReason::Waiting }));
        let message = if is_waiting {
            "the deadline passed before the receiver reported the outcome"
        } else {
            "the deadline passed before the task could start"
        };
        self.error = Some(TaskError::new(ErrorCode::EXPIRED, message));
        self.end(Outcome::Expired, now);
        Ok(())
    }

    fn end(&mut self, end: Outcome, now: Timestamp) {
        let outcome = match end {
            Outcome::Succeeded => AttemptOutcome::Succeeded,
            Outcome::Canceled => AttemptOutcome::Canceled,
            Outcome::Failed | Outcome::Expired => AttemptOutcome::Failed,
        };
        self.close_waiting_attempt(outcome, now);
        self.state = State::Ended(Completion { end, at: now.max(self.created_at) });
    }

    fn start_generation(&mut self, key: ReplayKey, now: Timestamp) {
        self.generation += 1;
        self.generation_at = now;
        self.attempt = 0;
        self.due_at = now;
        // The fan-out of an event must know which subscriptions have their tasks, also after those tasks are
        // removed.
        let result = self.result.take();
        self.progress = if self.kind == *EVENT_KIND { result.or(self.progress.take()) } else { None };
        self.error = None;
        self.retire_token();
        self.hold = HoldState::default();
        // A deadline in the past would end the new generation at once.
        self.options.expires_at = self.options.expires_at.filter(|deadline| *deadline > now);
        if key == ReplayKey::New {
            self.options.key_generation = Some(self.generation);
        }
        self.state = State::Waiting(Waiting::Scheduled);
    }
}

fn canceled() -> TaskError {
    TaskError::new(ErrorCode::CANCELED, "a client canceled the task")
}

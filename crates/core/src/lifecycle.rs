//! The one place that decides what becomes of a task.
//!
//! ```text
//!                  due                    claim               ok
//!  submit ─► scheduled ───────► queued ──────────► running ─────────► succeeded
//! ```
//! The whole picture is in the README; a test reads it there and compares it with this `match`.

use std::time::Duration;

use crate::audit::Entry;
use crate::callback::callback;
use crate::flow::Reserved;
use crate::json::Json;
use crate::retry::{RetryPolicy, Spread};
use crate::task::{Attempt, CancelRequest, End, Ended, ErrorCode, Held, HeldReason, Lease, Outcome, State, Task, TaskError, Turn, Waiting};
use crate::time::Timestamp;

/// What can happen to a task.
///
/// What a worker brings carries the token of its lease, and is refused when another claim has been granted since.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker takes it, until then: when it is due, or, of what was gathered, at any time.
    Claim {
        /// When the lease runs out.
        until: Timestamp,
    },
    /// The worker goes back on its claim before the handler began: nothing was tried.
    Release {
        /// The fencing token of the lease.
        token: u64,
    },
    /// It may not start before then.
    Hold {
        /// The fencing token of the lease.
        token: u64,
        /// Why not.
        reason: HeldReason,
        /// When to look again.
        until: Timestamp,
        /// What it holds of its flows until then.
        reserved: Reserved,
    },
    /// The handler returned a result.
    Succeed {
        /// The fencing token of the lease.
        token: u64,
        /// What it returned.
        result: Json,
    },
    /// The handler failed, panicked, or took too long.
    Fail {
        /// The fencing token of the lease.
        token: u64,
        /// Why.
        error: TaskError,
        /// Whether another attempt may help.
        retry: Retry,
        /// When to try again and when to stop, where the task left that to its endpoint.
        policy: Option<RetryPolicy>,
        /// Chance's part in the delay before it.
        spread: Spread,
    },
    /// The handler stopped because it was asked to.
    Stop {
        /// The fencing token of the lease.
        token: u64,
    },
    /// The worker is being stopped and gives the task back unfinished.
    Interrupt {
        /// The fencing token of the lease.
        token: u64,
    },
    /// The lease ran out.
    LeaseExpired {
        /// Chance's part in the delay before the next attempt.
        spread: Spread,
    },
    /// Somebody ended what it is held for ([`HeldReason::is_ended_by_hand`]): it asks again now, or soon ([`HeldReason::woken_at`]).
    Wake,
    /// The task before it in its batch left, and it leads the batch: it asks again when the batch is due.
    Lead {
        /// When the batch is due.
        at: Timestamp,
    },
    /// Somebody calls it off.
    Cancel,
    /// The deadline passed before it could start.
    Expire,
    /// Hint after hint came to nothing, since nobody who took one lived to claim it.
    PipelineFailed,
    /// Somebody wants it done again.
    Replay {
        /// Which key downstream gets for deduplication.
        key: ReplayKey,
        /// Generation that the client saw end. The replay is refused if the task is at another one. `None` replays any.
        generation: Option<u32>,
    },
}

/// Whether another attempt may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After the policy's delay.
    Backoff,
    /// After the pause that the destination asked for, if that is longer.
    After(Duration),
    /// After that moment, and the attempt is not counted: for that reason, the other side is to be left alone until then. Of a task that
    /// was put off [`Task::MAX_PUT_OFF`] times already, it is counted all the same.
    PutOff(HeldReason, Timestamp),
    /// No attempt would end otherwise.
    Never,
}

/// Which key downstream gets after a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayKey {
    /// The one it had: what was done already is not done again.
    Same,
    /// Another one: it is to be done again.
    New,
}

/// What a transition asks the store to write, all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The task as it is to be.
    pub task: Task,
    /// The version that must be found for the change to be made.
    pub read_version: u64,
    /// The callback, if the task has come to an end that is to be reported.
    pub follow_up: Option<Task>,
    /// What goes on record with it, if somebody asked for it.
    pub entry: Option<Entry>,
    /// What the task held of its flows, and holds no longer. It is given back after the write ([`crate::backend::Backend::give_back`]).
    pub released: Reserved,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has ended, and an end is the end.
    #[error("the task has ended")]
    Ended,
    /// Only an ended task can be replayed.
    #[error("the task has not ended")]
    NotEnded,
    /// The task is at this generation, and a replay of another one was asked for.
    #[error("the task is at generation {0}")]
    OtherGeneration(u32),
    /// The idempotency key came with another body before.
    #[error("the idempotency key came with another body before")]
    KeyReused,
    /// Another worker has it.
    #[error("the task is running")]
    Running,
    /// It does not run, so there is no lease to act on.
    #[error("the task is not running")]
    NotRunning,
    /// The lease was lost, and the task may have been given to somebody else.
    #[error("the lease was lost")]
    StaleToken,
    /// The lease has not run out.
    #[error("the lease still holds")]
    LeaseHolds,
    /// It is not due yet.
    #[error("the task is not due yet")]
    NotDue,
    /// Its deadline has passed: it can only expire.
    #[error("the task's deadline has passed")]
    PastDeadline,
    /// Its deadline has not passed.
    #[error("the task's deadline has not passed")]
    BeforeDeadline,
    /// It is not held by what somebody can end, or asks again anyway.
    #[error("the task is not held by what somebody can end")]
    NotHeld,
}

/// What becomes of `task` when `event` happens at `now`.
///
/// Pure: it reads no clock and draws no lots. The caller writes the [`Change`], or nothing.
pub fn transition(mut task: Task, event: Event, now: Timestamp) -> Result<Change, Refused> {
    let read_version = task.version;
    let mut released = task.apply(event, now)?;
    if let State::Ended(_) = task.state {
        let Reserved { promise, batch } = task.turn.release();
        released = Reserved { promise: promise.or(released.promise), batch: batch.or(released.batch) };
    }
    task.version += 1;
    let follow_up = callback(&task, now);
    Ok(Change { task, read_version, follow_up, entry: None, released })
}

/// The event that time itself has brought about, if any: a lease that ran out, a deadline that passed.
pub fn overdue(task: &Task, spread: Spread, now: Timestamp) -> Option<Event> {
    match &task.state {
        State::Running(lease) if lease.until <= now => Some(Event::LeaseExpired { spread }),
        State::Waiting(_) if task.is_past_deadline(now) => Some(Event::Expire),
        _ => None,
    }
}

impl Task {
    /// Puts the task into a worker's hands while it is being stored for the first time, which saves a second write.
    ///
    /// It is [`Event::Claim`], for a task that no store has seen.
    pub fn claim_unstored(&mut self, until: Timestamp, now: Timestamp) -> Result<(), Refused> {
        self.claim(until, now)
    }

    /// Returns what a task that goes on waiting holds no longer of its flows.
    fn apply(&mut self, event: Event, now: Timestamp) -> Result<Reserved, Refused> {
        let mut released = Reserved::default();
        match event {
            Event::Claim { until } => self.claim(until, now)?,
            Event::Release { token } => {
                let lease = self.lease(token)?;
                self.attempt = self.attempt.saturating_sub(1);
                self.wait(Waiting::Scheduled, now);
                self.end_if_canceled(lease, now);
            }
            Event::Hold { token, reason, until, reserved } => {
                let lease = self.lease(token)?;
                self.attempt = self.attempt.saturating_sub(1);
                self.turn.times = self.turn.times.saturating_add(1);
                self.turn.reserved = reserved;
                self.wait(Waiting::Held(Held { reason }), until);
                self.end_if_canceled(lease, now);
            }
            Event::Succeed { token, result } => {
                let lease = self.lease(token)?;
                self.record(lease, Outcome::Succeeded, None, now);
                self.result = Some(result);
                self.error = None;
                self.end(End::Succeeded, now);
            }
            Event::Fail { token, error, retry, policy, spread } => {
                let lease = self.lease(token)?;
                self.record(lease, Outcome::Failed, Some(error), now);
                self.try_again(lease, retry, policy.as_ref(), spread, now);
            }
            Event::Stop { token } => {
                let lease = self.lease(token)?;
                self.record(lease, Outcome::Canceled, Some(canceled()), now);
                self.end(End::Canceled, now);
            }
            Event::Interrupt { token } => {
                let lease = self.lease(token)?;
                self.attempt = self.attempt.saturating_sub(1);
                let error = TaskError::new(ErrorCode::INTERRUPTED, "its worker was told to stop");
                self.record(lease, Outcome::Interrupted, Some(error), now);
                self.wait(Waiting::Retrying, now);
                self.end_if_canceled(lease, now);
            }
            Event::LeaseExpired { spread } => released.batch = self.crash(spread, now)?,
            Event::Wake => match &self.state {
                State::Waiting(Waiting::Held(held)) if held.reason.is_ended_by_hand() && self.due_at > held.reason.woken_at(now) => {
                    let reason = held.reason;
                    self.turn.times = 0;
                    if reason == HeldReason::RetryAfter {
                        // It is a place behind the rest that has ended.
                        released.promise = self.turn.reserved.promise.take();
                    }
                    self.due_at = reason.woken_at(now);
                }
                State::Waiting(_) => return Err(Refused::NotHeld),
                State::Running(_) => return Err(Refused::Running),
                State::Ended(_) => return Err(Refused::Ended),
            },
            Event::Lead { at } => match &self.state {
                State::Waiting(Waiting::Held(Held { reason: HeldReason::Gathering })) if self.due_at > at => self.due_at = at,
                State::Waiting(_) => return Err(Refused::NotHeld),
                State::Running(_) => return Err(Refused::Running),
                State::Ended(_) => return Err(Refused::Ended),
            },
            Event::Cancel => match &mut self.state {
                State::Running(lease) => lease.cancel = CancelRequest::Requested,
                State::Waiting(_) => {
                    self.error = Some(canceled());
                    self.end(End::Canceled, now);
                }
                State::Ended(_) => return Err(Refused::Ended),
            },
            Event::Expire => match &self.state {
                State::Waiting(_) if self.is_past_deadline(now) => {
                    self.error = Some(TaskError::new(ErrorCode::EXPIRED, "its deadline passed before it could start"));
                    self.end(End::Expired, now);
                }
                State::Waiting(_) => return Err(Refused::BeforeDeadline),
                State::Running(_) => return Err(Refused::Running),
                State::Ended(_) => return Err(Refused::Ended),
            },
            Event::PipelineFailed => match &self.state {
                State::Waiting(_) if self.due_at <= now => {
                    self.error =
                        Some(TaskError::new(ErrorCode::PIPELINE, "its hints came to nothing again and again; no worker could claim it"));
                    self.end(End::Failed, now);
                }
                State::Waiting(_) => return Err(Refused::NotDue),
                State::Running(_) => return Err(Refused::Running),
                State::Ended(_) => return Err(Refused::Ended),
            },
            Event::Replay { generation: Some(generation), .. } if generation != self.generation => {
                return Err(Refused::OtherGeneration(self.generation));
            }
            Event::Replay { key, .. } => match &self.state {
                State::Ended(_) => self.start_generation(key, now),
                State::Waiting(_) | State::Running(_) => return Err(Refused::NotEnded),
            },
        }
        Ok(released)
    }

    /// Ends an attempt whose lease ran out. Returns the batch in which the task was gathered: if it had started with it, it is no member any more.
    /// Its reservation is in the past.
    fn crash(&mut self, spread: Spread, now: Timestamp) -> Result<Option<u64>, Refused> {
        match self.state {
            State::Running(lease) if lease.until <= now => {
                let batch = self.turn.reserved.batch.take();
                let error = TaskError::new(ErrorCode::CRASHED, "nothing more was heard of its worker");
                self.record(lease, Outcome::Crashed, Some(error), now);
                self.try_again(lease, Retry::Backoff, None, spread, now);
                Ok(batch)
            }
            State::Running(_) => Err(Refused::LeaseHolds),
            State::Waiting(_) => Err(Refused::NotRunning),
            State::Ended(_) => Err(Refused::Ended),
        }
    }

    fn claim(&mut self, until: Timestamp, now: Timestamp) -> Result<(), Refused> {
        match &self.state {
            State::Ended(_) => return Err(Refused::Ended),
            State::Running(_) => return Err(Refused::Running),
            State::Waiting(_) if self.is_past_deadline(now) => return Err(Refused::PastDeadline),
            // Whoever takes along what was gathered comes for it when it suits all of them.
            State::Waiting(Waiting::Held(Held { reason: HeldReason::Gathering })) => {}
            State::Waiting(_) if self.due_at > now => return Err(Refused::NotDue),
            State::Waiting(_) => {}
        }
        self.token += 1;
        self.attempt += 1;
        self.progress = None;
        self.state = State::Running(Lease { until, started_at: now, cancel: CancelRequest::None });
        Ok(())
    }

    /// The lease, if `token` is the newest and the task still runs under it.
    fn lease(&self, token: u64) -> Result<Lease, Refused> {
        match &self.state {
            _ if token != self.token => Err(Refused::StaleToken),
            State::Running(lease) => Ok(*lease),
            State::Waiting(_) | State::Ended(_) => Err(Refused::StaleToken),
        }
    }

    fn record(&mut self, lease: Lease, outcome: Outcome, error: Option<TaskError>, now: Timestamp) {
        if self.attempts.len() == Self::KEPT_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.error.clone_from(&error);
        self.turn = Turn { put_off: self.turn.put_off, ..Turn::default() };
        let finished_at = now.max(lease.started_at);
        self.attempts.push(Attempt { number: self.token, started_at: lease.started_at, finished_at, outcome, error });
    }

    fn try_again(&mut self, lease: Lease, retry: Retry, policy: Option<&RetryPolicy>, spread: Spread, now: Timestamp) {
        let policy = policy.unwrap_or(&self.settings.retry).clone();
        if let Retry::PutOff(reason, until) = retry
            && lease.cancel == CancelRequest::None
            && self.put_off(&policy, reason, until)
        {
            return;
        }
        let asked = match retry {
            Retry::Never => None,
            Retry::Backoff => Some(None),
            Retry::After(pause) => Some(Some(pause)),
            Retry::PutOff(_, until) => Some(Some(until.since(now))),
        };
        let due = asked.and_then(|asked| policy.next(self.attempt, self.generation_at, asked, spread, now));
        match due {
            _ if lease.cancel == CancelRequest::Requested => self.end(End::Canceled, now),
            Some(due) => self.wait(Waiting::Retrying, due),
            None => self.end(End::Failed, now),
        }
    }

    /// Waits without having spent an attempt, if that has not gone on for too often or too long.
    fn put_off(&mut self, policy: &RetryPolicy, reason: HeldReason, until: Timestamp) -> bool {
        let is_in_time = policy.max_age.is_none_or(|max_age| until <= self.generation_at + max_age);
        let may_be = is_in_time && self.turn.put_off < Self::MAX_PUT_OFF;
        if may_be {
            self.attempt = self.attempt.saturating_sub(1);
            self.turn.put_off += 1;
            self.wait(Waiting::Held(Held { reason }), until);
        }
        may_be
    }

    fn wait(&mut self, why: Waiting, due: Timestamp) {
        self.due_at = due;
        self.state = State::Waiting(why);
    }

    /// Somebody asked it to stop while it ran, so it does not wait for another attempt.
    fn end_if_canceled(&mut self, lease: Lease, now: Timestamp) {
        if lease.cancel == CancelRequest::Requested {
            self.error = Some(canceled());
            self.end(End::Canceled, now);
        }
    }

    fn end(&mut self, end: End, now: Timestamp) {
        self.state = State::Ended(Ended { end, at: now.max(self.created_at) });
    }

    fn start_generation(&mut self, key: ReplayKey, now: Timestamp) {
        self.generation += 1;
        self.generation_at = now;
        self.attempt = 0;
        self.due_at = now;
        self.result = None;
        self.error = None;
        self.progress = None;
        self.turn = Turn::default();
        // A deadline that has passed would end the new generation before it began.
        self.settings.expires_at = self.settings.expires_at.filter(|deadline| *deadline > now);
        if key == ReplayKey::New {
            self.settings.key_generation = Some(self.generation);
        }
        self.state = State::Waiting(Waiting::Scheduled);
    }
}

fn canceled() -> TaskError {
    TaskError::new(ErrorCode::CANCELED, "it was called off")
}

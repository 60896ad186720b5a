//! Reason why a task is not running: a code for programs and a sentence for people. Code and sentence follow
//! from the task's last hold and from the current state.

mod input;
mod view;
mod waiting;

pub use input::{ExplainInput, LimiterSnapshot};
pub use view::{BlockedByView, ExplanationView};

use serde::{Serialize, Serializer};

use crate::limits::{BreakerState, LimitScope, LimiterStatus};
use crate::policy::{Block, decide, inherited_retry, pause_scope};
use crate::task::{CancelRequest, Completion, Held, Lease, Outcome, State, Task, Waiting};
use crate::types::held_reason::HeldReason;
use crate::types::intervals::LEASE;
use crate::types::time::Timestamp;

/// Reason why a task is not running, or [`ExplainCode::Running`]. The list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainCode {
    /// The task is not due.
    Scheduled,
    /// An attempt failed, and the next attempt is not due.
    Backoff,
    /// The task is held, and the reason still applies.
    Held(HeldReason),
    /// The task is held, but the reason no longer applies. The task tries again soon.
    Unblocked,
    /// The task is due, and waits for a worker.
    Queued,
    /// The task has been due for more than a minute, and no worker has taken it.
    NoWorker,
    /// The deadline of the task passed before it could start. The task is about to expire.
    DeadlinePassed,
    /// The task is running.
    Running,
    /// The lease of the task expired, because the worker did not renew the lease.
    LeaseExpired,
    /// The task has ended.
    Ended(Outcome),
}

impl ExplainCode {
    /// Returns the code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Backoff => "backoff",
            Self::Held(reason) => reason.as_str(),
            Self::Unblocked => "unblocked",
            Self::Queued => "queued",
            Self::NoWorker => "no_worker",
            Self::DeadlinePassed => "deadline_passed",
            Self::Running => "running",
            Self::LeaseExpired => "lease_expired",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// Returns all reasons, in the order of a task's life.
    pub fn all() -> impl Iterator<Item = Self> {
        let held = HeldReason::ALL.into_iter().chain([HeldReason::Other]).map(Self::Held);
        let waiting = [
            Self::Unblocked,
            Self::Queued,
            Self::NoWorker,
            Self::DeadlinePassed,
            Self::Running,
            Self::LeaseExpired,
        ];
        [Self::Scheduled, Self::Backoff]
            .into_iter()
            .chain(held)
            .chain(waiting)
            .chain(Outcome::ALL.map(Self::Ended))
    }
}

/// Reason why a task is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Code for programs.
    pub code: ExplainCode,
    /// Sentence for people.
    pub reason: String,
    /// Time at which the reason ends by itself, or at which nobat checks the task again.
    pub until: Option<Timestamp>,
    /// Object that holds the task, if known: endpoint, limit key, kind, queue, subscription or tenant.
    pub by: Option<LimitScope>,
    /// Number of attempts that the task's current retry policy allows.
    pub max_attempts: u32,
}

/// Returns the reason why a task is not running.
pub fn explain(task: &Task, around: &ExplainInput, now: Timestamp) -> Explanation {
    Explainer { task, around, now }.explanation()
}

impl Serialize for ExplainCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for ExplainCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::all().map(Self::as_str)))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for ExplainCode {}

/// Task, with its configuration and limiters.
struct Explainer<'a> {
    task: &'a Task,
    around: &'a ExplainInput,
    now: Timestamp,
}

/// Reason why a task cannot start now.
struct Blocker {
    reason: HeldReason,
    /// Start of the sentence. `then` and the due time follow.
    says: String,
    by: Option<LimitScope>,
    /// Time at which the reason ends, if it is known.
    until: Option<Timestamp>,
    /// Phrase before the due time ([`Task::due_at`]).
    then: &'static str,
}

/// Value of [`Blocker::then`] for most held tasks.
const ASKS_AGAIN: &str = "the task tries again at";

impl Blocker {
    fn new(reason: HeldReason, by: Option<LimitScope>, says: String) -> Self {
        Self { reason, says, by, until: None, then: ASKS_AGAIN }
    }
}

impl Explainer<'_> {
    fn explanation(&self) -> Explanation {
        let (task, due) = (self.task, self.task.due_at);
        match &task.state {
            State::Ended(ended) => self.ended(*ended),
            State::Running(lease) => self.running(*lease),
            State::Waiting(_) if task.is_past_deadline(self.now) => self.says(
                ExplainCode::DeadlinePassed,
                None,
                "the deadline passed before the task could start, and the task expires soon".to_owned(),
            ),
            State::Waiting(_) if due <= self.now => self.due(),
            State::Waiting(Waiting::Scheduled) => {
                self.later(ExplainCode::Scheduled, format!("the task is due at {due}"))
            }
            State::Waiting(Waiting::Retrying) => {
                let (attempt, most) = (task.attempt, self.max_attempts());
                let error = task.error.as_ref().map_or("an error", |error| error.code.as_str());
                let failed = format!(
                    "attempt {attempt} of {most} failed with {error}, and attempt {} is made at {due}",
                    attempt + 1
                );
                self.later(ExplainCode::Backoff, failed)
            }
            State::Waiting(Waiting::Held(Held { reason: HeldReason::Waiting })) => self.waiting(),
            State::Waiting(Waiting::Held(held)) => self.held(held.reason),
        }
    }

    fn says(&self, code: ExplainCode, until: Option<Timestamp>, reason: String) -> Explanation {
        Explanation { code, reason, until, by: None, max_attempts: self.max_attempts() }
    }

    fn ended(&self, Completion { end, at }: Completion) -> Explanation {
        let error = self.task.error.as_ref();
        let reason = match (end, error) {
            (Outcome::Succeeded, _) => format!("the task succeeded at {at}"),
            (Outcome::Failed, Some(error)) => {
                let (attempt, most) = (self.task.attempt, self.max_attempts());
                format!(
                    "the task failed at {at}, after {attempt} of {most} attempts, with {}: {}",
                    error.code.as_str(),
                    error.message
                )
            }
            (Outcome::Failed, None) => format!("the task failed at {at}"),
            (Outcome::Canceled, _) => format!("the task was canceled at {at}"),
            (Outcome::Expired, _) => {
                format!("the task expired at {at}, because its deadline passed before it could start")
            }
        };
        self.says(ExplainCode::Ended(end), None, reason)
    }

    fn running(&self, lease: Lease) -> Explanation {
        let (attempt, most) = (self.task.attempt, self.max_attempts());
        let (started, until) = (lease.started_at, lease.until);
        if until <= self.now {
            let reason = format!(
                "attempt {attempt} of {most} began at {started}, but its worker did not renew the lease, which expired at {until}"
            );
            return self.says(ExplainCode::LeaseExpired, None, reason);
        }
        let asked = if lease.cancel == CancelRequest::Requested {
            ", and a client requested its cancellation"
        } else {
            ""
        };
        let reason = format!(
            "attempt {attempt} of {most} has been running since {started}, under a lease until {until}{asked}"
        );
        self.says(ExplainCode::Running, Some(until), reason)
    }

    /// Explains a due task. A worker decides only after its claim whether the task may start, but some
    /// obstacles are known before the claim.
    fn due(&self) -> Explanation {
        let due = self.task.due_at;
        let is_wait =
            matches!(self.task.state, State::Waiting(Waiting::Held(Held { reason: HeldReason::Waiting })));
        let (code, reason) = if self.now.since(due) > LEASE {
            (
                ExplainCode::NoWorker,
                format!(
                    "the task has been due since {due}, and no worker has claimed it: all are busy, or none runs"
                ),
            )
        } else {
            (ExplainCode::Queued, format!("the task has been due since {due}, and waits for a worker"))
        };
        if is_wait {
            return self.says(code, None, self.timed_out());
        }
        let prospect = self
            .prospect(self.now)
            .map(|says| format!("; the task will be held then, unless this changes: {says}"));
        self.says(code, None, reason + &prospect.unwrap_or_default())
    }

    /// Explains a task that is not due.
    fn later(&self, code: ExplainCode, reason: String) -> Explanation {
        let prospect = self
            .prospect(self.task.due_at)
            .map(|says| format!("; the task will be held then, unless this changes: {says}"));
        self.says(code, self.task.wake_at(), reason + &prospect.unwrap_or_default() + &self.deadline())
    }

    /// Returns a phrase for the obstacle that will hold the task at `at`, as far as is known now.
    fn prospect(&self, at: Timestamp) -> Option<String> {
        let found = self.block().or_else(|| self.passing(at));
        found.map(|obstacle| obstacle.says)
    }

    /// Returns a phrase if the task expires before it is due, or else an empty text.
    fn deadline(&self) -> String {
        let first = self.task.options.expires_at.filter(|deadline| *deadline <= self.task.due_at);
        first.map(|deadline| format!("; but its deadline is earlier, at {deadline}")).unwrap_or_default()
    }

    fn held(&self, stored: HeldReason) -> Explanation {
        let due = self.task.due_at;
        let found = self.block().or_else(|| self.still(stored)).or_else(|| self.passing(due));
        let deadline = self.deadline();
        match found {
            Some(Blocker { reason, says, by, then, .. }) => Explanation {
                by,
                ..self.says(
                    ExplainCode::Held(reason),
                    self.task.wake_at(),
                    format!("{says}; {then} {due}{deadline}"),
                )
            },
            None => self.says(
                ExplainCode::Unblocked,
                self.task.wake_at(),
                format!("{}; {ASKS_AGAIN} {due}{deadline}", self.over(stored)),
            ),
        }
    }

    /// Returns the obstacle in the configuration, as [`decide`] finds it.
    fn block(&self) -> Option<Blocker> {
        let Block { reason, by } = decide(self.task, self.around.configuration()).block?;
        let names: Vec<String> = by.iter().map(|scope| self.called(scope)).collect();
        let (name, is) = (names.join(" and "), if names.len() == 1 { "is" } else { "are" });
        let says = match reason {
            HeldReason::EndpointMissing => format!("{name} no longer exists"),
            HeldReason::EndpointGone => format!("{name} responded with 410 Gone"),
            HeldReason::NoHandler => format!("this installation has no handler for {name}"),
            _ => format!("{name} {is} paused"),
        };
        Some(Blocker::new(reason, by.into_iter().next(), says))
    }

    /// Returns the obstacle that holds all tasks of a limiter until a time after `at`: a pause that the
    /// receiver asked for, or an open circuit breaker.
    fn passing(&self, at: Timestamp) -> Option<Blocker> {
        let obstacles =
            self.limiters().flat_map(|(known, state)| [self.paused(known, &state), self.open(known, &state)]);
        obstacles.flatten().find(|obstacle| obstacle.until.is_some_and(|until| at < until))
    }

    /// Returns the obstacle for which the task was held, if it still exists.
    fn still(&self, stored: HeldReason) -> Option<Blocker> {
        let of_endpoint = || self.task.options.endpoint.clone().map(LimitScope::Endpoint);
        match stored {
            HeldReason::RateLimited => self.rate(),
            HeldReason::ConcurrencyLimited => self.concurrency(),
            HeldReason::CircuitOpen => self.limiters().find_map(|(known, state)| self.open(known, &state)),
            HeldReason::RetryAfter => self
                .limiters()
                .find_map(|(known, state)| self.paused(known, &state))
                .or_else(|| self.put_off()),
            HeldReason::SecretUnavailable => {
                let says = of_endpoint().map_or_else(
                    || "the signing secret could not be read".to_owned(),
                    |of| format!("the signing secret or a header of {} could not be read", self.called(&of)),
                );
                Some(Blocker::new(HeldReason::SecretUnavailable, of_endpoint(), says))
            }
            HeldReason::LimiterUnavailable => {
                let says = "the task's configuration or the state of a limiter could not be read".to_owned();
                Some(Blocker::new(HeldReason::LimiterUnavailable, None, says))
            }
            HeldReason::ResourceExhausted => {
                let says =
                    "the worker's process lacked file handles, ports, memory or DNS look-ups for the call"
                        .to_owned();
                Some(Blocker::new(HeldReason::ResourceExhausted, None, says))
            }
            HeldReason::Other => {
                let says =
                    "a later version of nobat holds the task for a reason that this version does not know"
                        .to_owned();
                Some(Blocker::new(HeldReason::Other, None, says))
            }
            HeldReason::Batching => self.passing(self.task.due_at).or_else(|| self.batching()),
            // [`Explainer::block`] has checked the first reasons before. [`Explainer::waiting`] explains the last.
            HeldReason::Paused
            | HeldReason::EndpointGone
            | HeldReason::EndpointMissing
            | HeldReason::NoHandler
            | HeldReason::Waiting => None,
        }
    }

    fn rate(&self) -> Option<Blocker> {
        let scoped = self.task.hold.reservations.rate.as_ref();
        let is_it = |known: &LimiterSnapshot, state: &LimiterStatus| match scoped {
            Some(scoped) => scoped.scope == known.of,
            None => state.tokens == Some(0),
        };
        let (known, state) =
            self.limiters().find(|(known, state)| known.limits.rate.is_some() && is_it(known, state))?;
        let (rate_limit, ahead) = (known.limits.rate?, state.reserved_starts.unwrap_or_default());
        let (name, period) = (self.called(&known.of), rate_limit.period.as_secs_f64());
        let says =
            format!("{name} has a rate of {} every {period} s (reserved starts: {ahead})", rate_limit.rate);
        let is_reserved = scoped.is_some_and(|scoped| rate_limit.is_valid(scoped.reservation));
        let then = if is_reserved { "the task's start is reserved for" } else { ASKS_AGAIN };
        Some(Blocker { then, ..Blocker::new(HeldReason::RateLimited, Some(known.of.clone()), says) })
    }

    fn concurrency(&self) -> Option<Blocker> {
        let is_full = |(known, state): &(&LimiterSnapshot, LimiterStatus)| {
            known.limits.concurrency.is_some_and(|most| state.running >= Some(most.get()))
        };
        let (known, _) = self.limiters().find(is_full)?;
        let says = format!(
            "{} has a concurrency of {}, and all slots are in use",
            self.called(&known.of),
            known.limits.concurrency?
        );
        Some(Blocker::new(HeldReason::ConcurrencyLimited, Some(known.of.clone()), says))
    }

    fn open(&self, known: &LimiterSnapshot, state: &LimiterStatus) -> Option<Blocker> {
        let breaker = state.circuit_breaker.as_ref()?;
        let (since, probe) = (breaker.since?, breaker.next_probe?);
        let finds = match breaker.state {
            BreakerState::HalfOpen if self.now < probe => "a probe is running".to_owned(),
            _ if self.now < probe => format!("the next probe may start at {probe}"),
            _ => "the next probe may start now".to_owned(),
        };
        let says = format!(
            "the circuit breaker of {} has been open since {since}, and {finds}",
            self.called(&known.of)
        );
        Some(Blocker {
            until: Some(probe),
            ..Blocker::new(HeldReason::CircuitOpen, Some(known.of.clone()), says)
        })
    }

    fn paused(&self, known: &LimiterSnapshot, state: &LimiterStatus) -> Option<Blocker> {
        let until = state.paused_until?;
        let says = format!("the receiver asked for a pause of {} until {until}", self.called(&known.of));
        Some(Blocker {
            until: Some(until),
            ..Blocker::new(HeldReason::RetryAfter, Some(known.of.clone()), says)
        })
    }

    fn batching(&self) -> Option<Blocker> {
        let batch = self.around.endpoint.as_ref()?.batch?;
        let of = self.task.options.endpoint.clone().map(LimitScope::Endpoint)?;
        let (name, seconds) = (self.called(&of), batch.max_wait.as_secs_f64());
        let says = format!(
            "the task waits up to {seconds} s for a batch of at most {} tasks to {name}",
            batch.max_items
        );
        Some(Blocker {
            then: "unless the batch starts before, the task tries again at",
            ..Blocker::new(HeldReason::Batching, Some(of), says)
        })
    }

    /// Returns the pause that the receiver asked for in its last response. The pause holds this task even if
    /// the limiter is not paused.
    fn put_off(&self) -> Option<Blocker> {
        let of = pause_scope(self.task);
        let says = "the receiver asked for a pause in its last response".to_owned();
        (self.task.hold.holds == 0).then(|| Blocker::new(HeldReason::RetryAfter, of, says))
    }

    /// Returns a phrase for a reason that no longer applies.
    fn over(&self, stored: HeldReason) -> String {
        let endpoint = self
            .task
            .options
            .endpoint
            .clone()
            .map_or_else(|| "the endpoint".to_owned(), |name| self.called(&LimitScope::Endpoint(name)));
        let kind = self.called(&LimitScope::Kind(self.task.kind.clone()));
        match stored {
            HeldReason::Paused => {
                "the task's queue, kind or endpoint was paused, and none of them is paused now".to_owned()
            }
            HeldReason::EndpointGone => {
                format!("{endpoint} had responded with 410 Gone, and is in use again")
            }
            HeldReason::EndpointMissing => format!("{endpoint} did not exist, and exists now"),
            HeldReason::RateLimited => "the rate limit was reached, and a start is free now".to_owned(),
            HeldReason::ConcurrencyLimited => {
                "the concurrency limit was reached, and a slot is free now".to_owned()
            }
            HeldReason::CircuitOpen => {
                format!("the circuit breaker of {endpoint} was open, and is closed now")
            }
            HeldReason::RetryAfter => "the pause that the receiver asked for is over".to_owned(),
            HeldReason::Batching => format!("the task waited for a batch, and {endpoint} has no batches now"),
            HeldReason::NoHandler => format!(
                "the worker that claimed the task had no handler for {kind}, and this installation has one now"
            ),
            HeldReason::SecretUnavailable
            | HeldReason::LimiterUnavailable
            | HeldReason::ResourceExhausted
            | HeldReason::Waiting
            | HeldReason::Other => "the task was held".to_owned(),
        }
    }

    /// Returns the task's limiters and their current states.
    fn limiters(&self) -> impl Iterator<Item = (&LimiterSnapshot, LimiterStatus)> {
        self.around.limiters.iter().map(|known| (known, known.limiter.state(&known.limits, self.now)))
    }

    fn called(&self, of: &LimitScope) -> String {
        let name = of.name().unwrap_or(self.task.tenant.name());
        format!("{} {name}", of.type_name().replace('_', " "))
    }

    /// Returns the number of attempts that the retry policy in effect allows.
    fn max_attempts(&self) -> u32 {
        let inherited =
            inherited_retry(self.task, self.around.endpoint.as_ref(), &self.around.task_config.queue);
        inherited.as_ref().unwrap_or(&self.task.options.retry).max_attempts()
    }
}

//! Transitions of a task that waits for the completion by its receiver.

use crate::limits::Reservations;
use crate::task::Task;
use crate::task::attempt::{AttemptOutcome, TaskError};
use crate::task::completion::{IssuedToken, TokenDigest};
use crate::task::lifecycle::{Retry, TransitionError};
use crate::task::options::KeyedRequest;
use crate::task::retry::RetryPolicy;
use crate::task::state::{CancelRequest, Held, Lease, Outcome, State, Waiting};
use crate::types::held_reason::HeldReason;
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

use super::Event;

impl Task {
    /// Applies an event of a wait.
    pub(super) fn apply_to_wait(
        &mut self,
        event: Event,
        now: Timestamp,
    ) -> Result<Reservations, TransitionError> {
        match event {
            Event::IssueToken { token, digest } => {
                self.lease(token)?;
                self.retire_token();
                self.hold.completion = Some(IssuedToken { attempt: token, digest });
            }
            Event::Wait { token, until, .. } => self.wait_for_completion(token, until, now)?,
            Event::CompleteByToken { digest, result } => {
                if let Some(lease) = self.take_token(&digest)? {
                    self.record(lease, AttemptOutcome::Succeeded, None, now);
                }
                self.result = Some(result);
                self.error = None;
                self.end(Outcome::Succeeded, now);
            }
            Event::FailByToken { digest, error, retry, policy, spread } => {
                let cancel = if let Some(lease) = self.take_token(&digest)? {
                    self.record(lease, AttemptOutcome::Failed, Some(error), now);
                    lease.cancel
                } else {
                    self.fail_waiting_attempt(error, now);
                    CancelRequest::None
                };
                self.try_again(cancel, retry, policy.as_ref(), spread, now);
            }
            Event::TimeOut { token, error, retry, policy, spread } => {
                self.time_out(token, error, retry, policy.as_ref(), spread, now)?;
            }
            _ => unreachable!("`Task::apply` passes only events of waits"),
        }
        Ok(Reservations::default())
    }

    fn wait_for_completion(
        &mut self,
        token: u64,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), TransitionError> {
        let lease = self.lease(token)?;
        let issued = self.hold.completion.take_if(|issued| issued.attempt == token);
        let issued = issued.ok_or(TransitionError::NotWaiting)?;
        self.record(lease, AttemptOutcome::Waiting, None, now);
        self.hold.completion = Some(issued);
        self.wait(Waiting::Held(Held { reason: HeldReason::Waiting }), until);
        self.end_if_canceled(lease, now);
        Ok(())
    }

    /// Ends a wait that timed out. The claim that noticed the time-out counts no attempt.
    fn time_out(
        &mut self,
        token: u64,
        error: TaskError,
        retry: Retry,
        policy: Option<&RetryPolicy>,
        spread: JitterSample,
        now: Timestamp,
    ) -> Result<(), TransitionError> {
        let lease = self.lease(token)?;
        if !self.is_wait_over() {
            return Err(TransitionError::NotWaiting);
        }
        self.retire_token();
        self.attempt = self.attempt.saturating_sub(1);
        self.fail_waiting_attempt(error, now);
        self.try_again(lease.cancel, retry, policy, spread, now);
        Ok(())
    }

    /// Takes the token of a completion. Returns the lease if the attempt is still running.
    fn take_token(&mut self, digest: &TokenDigest) -> Result<Option<Lease>, TransitionError> {
        let lease = match &self.state {
            State::Ended(_) => return Err(TransitionError::Ended),
            State::Running(lease) => Some(*lease),
            State::Waiting(_) => None,
        };
        let is_live =
            self.takes_completion() && self.hold.completion.is_some_and(|own| own.digest == *digest);
        if !is_live {
            return Err(TransitionError::NotWaiting);
        }
        self.hold.completion = None;
        Ok(lease)
    }

    /// Ends the token without a completion. The task remembers it, so that a late completion is told apart from one
    /// with a wrong token.
    pub(super) fn retire_token(&mut self) {
        if let Some(issued) = self.hold.completion.take() {
            self.remember(KeyedRequest::of_token(&issued.digest, [0; 8]));
        }
    }

    /// Ends the token of the running attempt, because the attempt made no call.
    pub(super) fn retire_own_token(&mut self) {
        if !self.is_wait_over() {
            self.retire_token();
        }
    }

    /// Gives back a claim that noticed a time-out, so that the next claim ends the wait. Returns false if the
    /// claim is of another kind.
    pub(super) fn return_to_wait(&mut self, lease: Lease, now: Timestamp) -> bool {
        let is_wait_over = self.is_wait_over();
        if is_wait_over {
            self.attempt = self.attempt.saturating_sub(1);
            self.wait(Waiting::Held(Held { reason: HeldReason::Waiting }), now);
            self.end_if_canceled(lease, now);
        }
        is_wait_over
    }

    fn fail_waiting_attempt(&mut self, error: TaskError, now: Timestamp) {
        self.error = Some(error);
        self.close_waiting_attempt(AttemptOutcome::Failed, now);
    }

    /// Sets the outcome of the attempt whose completion the task waited for, if there is one. Its error becomes
    /// the task's error.
    pub(super) fn close_waiting_attempt(&mut self, outcome: AttemptOutcome, now: Timestamp) {
        if let Some(attempt) =
            self.attempts.last_mut().filter(|attempt| attempt.outcome == AttemptOutcome::Waiting)
        {
            attempt.outcome = outcome;
            attempt.finished_at = now.max(attempt.finished_at);
            attempt.error.clone_from(&self.error);
        }
    }
}

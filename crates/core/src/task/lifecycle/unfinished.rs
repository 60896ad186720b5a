//! Transitions of a claim that its worker does not finish.

use crate::task::Task;
use crate::task::attempt::{AttemptOutcome, TaskError};
use crate::task::error_code::ErrorCode;
use crate::task::lifecycle::{Retry, TransitionError};
use crate::task::state::{State, Waiting};
use crate::types::jitter_sample::JitterSample;
use crate::types::time::Timestamp;

impl Task {
    /// Gives back a claim before the handler began. The attempt does not count.
    pub(super) fn release(&mut self, token: u64, now: Timestamp) -> Result<(), TransitionError> {
        let lease = self.lease(token)?;
        if self.return_to_wait(lease, now) {
            return Ok(());
        }
        self.retire_token();
        self.attempt = self.attempt.saturating_sub(1);
        self.wait(Waiting::Scheduled, now);
        self.end_if_canceled(lease, now);
        Ok(())
    }

    /// Gives back an attempt whose worker stops. The attempt does not count.
    pub(super) fn interrupt(&mut self, token: u64, now: Timestamp) -> Result<(), TransitionError> {
        let lease = self.lease(token)?;
        if self.return_to_wait(lease, now) {
            return Ok(());
        }
        self.attempt = self.attempt.saturating_sub(1);
        let error = TaskError::new(ErrorCode::INTERRUPTED, "the worker was told to stop");
        self.record(lease, AttemptOutcome::Interrupted, Some(error), now);
        self.wait(Waiting::Retrying, now);
        self.end_if_canceled(lease, now);
        Ok(())
    }

    /// Ends an attempt whose lease expired. Returns the batch of the task, so that the caller removes the
    /// task from that batch. The removal changes nothing if the batch had started. A reservation is not
    /// returned, because its time has passed.
    pub(super) fn crash(
        &mut self,
        spread: JitterSample,
        now: Timestamp,
    ) -> Result<Option<u64>, TransitionError> {
        match self.state {
            State::Running(lease) if lease.until <= now => {
                if self.return_to_wait(lease, now) {
                    return Ok(None);
                }
                let batch = self.hold.reservations.batch.take();
                let error = TaskError::new(ErrorCode::CRASHED, "the worker did not renew the lease in time");
                self.record(lease, AttemptOutcome::Crashed, Some(error), now);
                self.try_again(lease.cancel, Retry::Backoff, None, spread, now);
                Ok(batch)
            }
            State::Running(_) => Err(TransitionError::LeaseHolds),
            State::Waiting(_) => Err(TransitionError::NotRunning),
            State::Ended(_) => Err(TransitionError::Ended),
        }
    }
}

//! Attempt of the task that runs a schedule: creates the tasks of planned times.

use nobat_core::service::schedules::{Schedules, Tick};
use nobat_core::task::lifecycle::Event;
use nobat_core::task::{ErrorCode, Task};
use nobat_core::types::intervals::MAX_SCHEDULE_AHEAD;

use crate::execution::runner::Runner;
use crate::handler::failure::Failure;

impl Runner {
    /// Creates the tasks of the planned times until now. Returns the event that ends the attempt.
    pub(crate) async fn tick(&self, task: &Task) -> Result<Event, Failure> {
        let schedules = Schedules {
            backend: &self.backend,
            config_cache: &self.config_cache,
            kinds: &self.handlers,
            // The server checked the timeout when the client wrote the template.
            max_timeout: MAX_SCHEDULE_AHEAD,
            clock: &*self.clock,
            now: self.clock.now(),
        };
        let token = task.token;
        match schedules.tick(task).await {
            Ok(Tick::Continue(until, progress)) => Ok(Event::Reschedule { token, until, progress }),
            Ok(Tick::End(result)) => Ok(Event::Succeed { token, result }),
            // Also an unreadable record: a later version of nobat may have written it.
            Err(error) => Err(Failure::retry(ErrorCode::STORE_UNAVAILABLE, error.to_string())),
        }
    }
}

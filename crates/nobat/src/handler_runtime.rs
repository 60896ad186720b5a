//! Tokio runtime for handlers, on its own threads, so that a blocking handler stops neither the API nor the
//! sweeper nor signals.
//!
//! A handler that never reaches an `await` keeps its thread for ever. As many such handlers as there are
//! processors block every thread of a runtime. In a runtime shared with the rest, the program would then
//! answer no request, and not even SIGTERM.
//!
//! The worker loop runs here too, not beside the API. The writer or the queue wakes it across threads in any
//! case. It then starts handlers on its own threads, so handing over a task takes one wake-up, as in one
//! shared runtime. Measured against one shared runtime on two processors, throughput is the same. The slowest
//! hundredth of the hand-overs takes some 0.04 ms longer, of the 2 ms that are allowed.

use std::time::Duration;

use anyhow::{Context, bail};
use nobat_core::types::intervals::LEASE;
use nobat_worker::worker::Worker;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Runtime for handlers only.
pub(crate) struct HandlerRuntime(Option<Runtime>);

/// Time between two checks for a free thread, and maximum time that a check waits for one.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Number of failed checks in a row after which every lease of this process has expired. Other workers may
/// take its tasks then, so the process can end. Checks are counted instead of time: an hour for which the
/// process was suspended is one failed check.
const MAX_MISSED_CHECKS: u64 = LEASE.as_secs() / CHECK_INTERVAL.as_secs();
/// Maximum time that a stopping worker may take beyond its drain time. It uses it to give unfinished tasks
/// back.
const GIVE_BACK: Duration = Duration::from_secs(6);

impl HandlerRuntime {
    /// Starts the threads, one for each processor.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("nobat-handlers").enable_all().build();
        Ok(Self(Some(runtime.context("cannot start the threads for handlers")?)))
    }

    /// Runs the worker until `stop` fires and it has finished.
    ///
    /// Fails when handlers have blocked all threads for longer than a lease. A thread cannot be taken from a
    /// handler, so the process must end. When it starts again, the tasks that blocked it have a crashed
    /// attempt on record.
    pub(crate) async fn run(self, worker: Worker, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(runtime) = &self.0 else { return Ok(()) };
        let limit = worker.drain + GIVE_BACK;
        let working = runtime.spawn(worker.run(stop.clone()));
        let too_long = async {
            stop.cancelled().await;
            sleep(limit).await;
        };
        tokio::select! {
            ended = working => ended.context("the worker panicked"),
            () = blocked(runtime.handle()) => {
                tracing::error!(seconds = LEASE.as_secs(), "handlers block all threads; the process exits, so that it can be restarted");
                bail!("handlers without an await have blocked all threads for {} seconds", LEASE.as_secs())
            }
            () = too_long => {
                tracing::error!("handlers block all threads; their tasks cannot be given back, and their leases will expire");
                Ok(())
            }
        }
    }
}

impl Drop for HandlerRuntime {
    /// Does not wait for the threads, since a blocking handler would never end.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Resolves when no thread of a runtime was free for as long as a lease.
async fn blocked(runtime: &Handle) {
    loop {
        let mut look = runtime.spawn(async {});
        let mut missed = 0;
        while timeout(CHECK_INTERVAL, &mut look).await.is_err() {
            missed += 1;
            if missed == MAX_MISSED_CHECKS {
                return;
            }
            tracing::warn!(
                seconds = missed * CHECK_INTERVAL.as_secs(),
                "handlers block all threads; no other handler can start"
            );
        }
        sleep(CHECK_INTERVAL).await;
    }
}

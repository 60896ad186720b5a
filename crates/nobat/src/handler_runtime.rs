//! Tokio runtime for handlers, with its own threads. A blocking handler then does not stop the API, the
//! sweeper or the reaction to signals.
//!
//! A handler that never reaches an `await` keeps its thread forever. One such handler for each processor is
//! enough to block every thread of a runtime. In a shared runtime, the program would then react neither to
//! requests nor to SIGTERM.
//!
//! The worker loop runs in this runtime too. It then starts handlers on its own threads, so a task needs one
//! wake-up, as in a shared runtime. Measured on two processors, throughput is the same as in a shared
//! runtime. The 99th percentile of the time to start a handler is 0.04 ms longer. The limit is 2 ms.

use std::time::Duration;

use anyhow::{Context, bail};
use nobat_core::types::intervals::LEASE;
use nobat_worker::worker::Worker;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Runtime for handlers only.
pub(crate) struct HandlerRuntime(Option<Runtime>);

/// Time between two checks for a free thread, and maximum time that a check waits for a free thread.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Number of checks in a row without a free thread after which every lease of this process has expired. Other
/// workers may then take the tasks, so the process can exit. Checks are counted instead of time, so that a
/// suspended process does not exit when it resumes.
const MAX_MISSED_CHECKS: u64 = LEASE.as_secs() / CHECK_INTERVAL.as_secs();
/// Maximum time that a stopping worker has beyond its drain timeout, to give unfinished tasks back.
const GIVE_BACK: Duration = Duration::from_secs(6);

impl HandlerRuntime {
    /// Starts the threads, one for each processor.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("nobat-handlers").enable_all().build();
        Ok(Self(Some(runtime.context("cannot start the threads for handlers")?)))
    }

    /// Runs the worker until `stop` fires and the worker has finished.
    ///
    /// Fails if handlers block all threads for the duration of a lease. A blocking handler cannot be stopped,
    /// so the process must exit. The attempts of the blocking tasks then count as `crashed`.
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
                tracing::error!(seconds = LEASE.as_secs(), "handlers have blocked all threads for the duration of a lease; the process exits, so that a supervisor restarts it");
                bail!("handlers without an await have blocked all threads for {} seconds; run blocking code in tokio::task::spawn_blocking", LEASE.as_secs())
            }
            () = too_long => {
                tracing::error!("handlers block all threads; their tasks cannot be given back, and run again after their leases expire");
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

/// Resolves when no thread of the runtime was free for the duration of a lease (60 s).
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

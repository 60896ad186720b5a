//! Where handlers run: on threads of their own, so that one that blocks stops neither the API nor the sweep nor signals.
//!
//! A handler that never comes to an `await` keeps its thread for ever, and as many of them as there are processors keep every thread
//! of a runtime. In one runtime with everything else, such a program answers nobody any more, not even SIGTERM.
//!
//! The loop that takes work runs here as well, not beside the API. It is woken across threads either way, by the writer or by the
//! queue, and starts handlers on its own threads: a task is handed over with one wake-up, as it was in one runtime. Beside one runtime,
//! on two processors, that cost no throughput; of the hand-over, the slowest hundredth takes some 0.04 ms longer, of 2 ms that it may.

use std::time::Duration;

use anyhow::{Context, bail};
use nobat_core::ports::LEASE;
use nobat_worker::worker::Worker;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Threads for handlers, and for nothing else.
pub(crate) struct Workshop(Option<Runtime>);

/// How often it is looked whether a thread is free.
const LOOK: Duration = Duration::from_secs(5);
/// After so many looks in vain, every lease of this process has run out: nothing is left that ending it could spoil. They are counted,
/// so that a process that was stopped itself for an hour has missed one.
const LOOKS: u64 = LEASE.as_secs() / LOOK.as_secs();
/// How long a worker that was told to stop may take beyond its drain: it gives back what has not finished.
const GIVE_BACK: Duration = Duration::from_secs(6);

impl Workshop {
    /// Starts the threads, as many as there are processors.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("nobat-handlers").enable_all().build();
        Ok(Self(Some(runtime.context("there are no threads for handlers")?)))
    }

    /// Has the worker work until `stop` is fired and it is done.
    ///
    /// Fails when handlers have blocked all threads for longer than a lease. Nobody can take a thread from a handler, so that ending
    /// the process is all that is left: when it is started again, what blocked it has an attempt on record that crashed.
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
                tracing::error!(seconds = LEASE.as_secs(), "handlers block all threads; the program ends, so that it can be started again");
                bail!("handlers that never come to an await have blocked all threads for {} seconds", LEASE.as_secs())
            }
            () = too_long => {
                tracing::error!("handlers block all threads, and their tasks cannot be given back; their leases will run out");
                Ok(())
            }
        }
    }
}

impl Drop for Workshop {
    /// Waits for nobody: a handler that blocks would be waited for for ever.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Resolves when no thread of a runtime has had time for anything, for as long as a lease.
async fn blocked(runtime: &Handle) {
    loop {
        let mut look = runtime.spawn(async {});
        let mut missed = 0;
        while timeout(LOOK, &mut look).await.is_err() {
            missed += 1;
            if missed == LOOKS {
                return;
            }
            tracing::warn!(seconds = missed * LOOK.as_secs(), "no handler has come to an await, and none can be started");
        }
        sleep(LOOK).await;
    }
}

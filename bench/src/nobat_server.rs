//! nobat as `nobat serve` runs it, with an additional kind that returns the time at which it started.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use nobat::{Failure, Handler, Handlers, Serve, TaskContext};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Handler that returns the time at which it started, in nanoseconds since the epoch.
struct Stamp;

impl Handler for Stamp {
    const KIND: &'static str = "stamp";
    type Input = ();
    type Output = u64;

    async fn run(&self, (): (), _context: &TaskContext) -> Result<u64, Failure> {
        Ok(nanoseconds())
    }
}

/// Returns the current time, in nanoseconds since the epoch.
pub(crate) fn nanoseconds() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Serves until the process is killed.
pub(crate) async fn serve(data: &Path, concurrency: usize) -> anyhow::Result<()> {
    let mut settings = Serve::try_parse_from(["serve"])?;
    settings.place.data = data.to_owned();
    settings.concurrency = concurrency;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::process::announce(listener.local_addr()?);
    nobat::serve(settings, listener, Handlers::new().with(Stamp), CancellationToken::new()).await
}

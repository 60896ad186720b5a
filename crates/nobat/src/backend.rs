//! Storage of a server: SQLite or AWS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nobat_core::ports::Clock;
use nobat_core::service::backend::Backend;
use nobat_sqlite::{OpenError, Sqlite};

/// Kind of storage.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// One SQLite file
    Sqlite,
    /// A DynamoDB table and a queue of Amazon SQS
    Aws,
}

/// Settings of the storage. Each setting has a flag and an environment variable.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Storage: sqlite (one SQLite file) or aws (DynamoDB and SQS)
    #[arg(long, global = true, env = "NOBAT_BACKEND", value_enum, default_value_t = BackendKind::Sqlite, hide_possible_values = true)]
    pub backend: BackendKind,
    /// SQLite file
    #[arg(long, global = true, env = "NOBAT_DATA", default_value = "nobat.db")]
    pub data: PathBuf,
    /// DynamoDB table, for `--backend aws`
    #[arg(long, global = true, env = "NOBAT_TABLE")]
    pub table: Option<String>,
    /// URL of the Amazon SQS queue, for `--backend aws`
    #[arg(long, global = true, env = "NOBAT_QUEUE_URL")]
    pub queue_url: Option<String>,
    /// Days for which ended tasks are kept, from 1 to 3660
    #[arg(long, global = true, env = "NOBAT_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub retention_days: u32,
}

/// Opened storage, with the settings that depend on it.
pub(crate) struct Opened {
    /// Backend for the API and the sweeper.
    pub(crate) backend: Backend,
    /// The same storage, for the handlers. On AWS, the handlers have their own connections, because a
    /// connection belongs to the Tokio runtime that opened it.
    pub(crate) for_handlers: Backend,
    /// Key that authenticates the cursors of lists.
    pub(crate) cursor_key: [u8; 32],
    /// Time between two sweeps.
    pub(crate) sweep_interval: Duration,
    /// Time between two counts of the pending tasks of a tenant with a quota.
    pub(crate) recount: Duration,
    /// Path of the file or name of the table, for the log.
    pub(crate) name: String,
    /// SQLite file, if there is one. The server writes its address into the file's lock file.
    pub(crate) file: Option<Sqlite>,
}

/// Time between two sweeps of a SQLite file. Only this process sweeps the file, so an expired lease or a
/// passed deadline is noticed up to this time late.
const SWEEP_OF_A_FILE: Duration = Duration::from_secs(1);
/// Time between two counts of pending tasks in a SQLite file. A count takes one or two milliseconds.
const COUNT_IN_A_FILE: Duration = Duration::from_secs(1);
/// Time between two sweeps of a DynamoDB table, the same as for the sweeper function on Lambda. Every sweep
/// costs money, and a task's sweep time has a margin of minutes anyway.
#[cfg(feature = "aws")]
const SWEEP_OF_A_TABLE: Duration = Duration::from_mins(1);

/// Opens the storage that the settings name.
pub(crate) async fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let retention = Duration::from_hours(24 * u64::from(settings.retention_days));
    match settings.backend {
        BackendKind::Sqlite => sqlite(settings, retention, clock),
        BackendKind::Aws => aws(settings, retention).await,
    }
}

fn sqlite(settings: &Settings, retention: Duration, clock: &Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let name = settings.data.display().to_string();
    let sqlite = Sqlite::open(&settings.data, retention, Arc::clone(clock)).map_err(|error| match error {
        // This error names the file itself.
        OpenError::InUse { .. } => anyhow::Error::from(error),
        error => anyhow::Error::from(error).context(format!("cannot use {name}")),
    })?;
    Ok(Opened {
        backend: sqlite.backend(),
        for_handlers: sqlite.backend(),
        cursor_key: sqlite.secret(),
        sweep_interval: SWEEP_OF_A_FILE,
        recount: COUNT_IN_A_FILE,
        name,
        file: Some(sqlite),
    })
}

#[cfg(feature = "aws")]
async fn aws(settings: &Settings, retention: Duration) -> anyhow::Result<Opened> {
    use anyhow::Context;

    let table =
        settings.table.clone().context("NOBAT_BACKEND=aws needs NOBAT_TABLE, the name of the table")?;
    let queue_url = settings
        .queue_url
        .clone()
        .context("NOBAT_BACKEND=aws needs NOBAT_QUEUE_URL, the URL of the SQS queue")?;
    let cursor_key = nobat_aws::cursor_key(&table);
    let name = table.clone();
    let settings = nobat_aws::Settings { table, queue_url, retention };
    let (backend, for_handlers) =
        (nobat_aws::connect(&settings).await?, nobat_aws::connect(&settings).await?);
    Ok(Opened {
        backend,
        for_handlers,
        cursor_key,
        sweep_interval: SWEEP_OF_A_TABLE,
        recount: nobat_aws::RECOUNT,
        name,
        file: None,
    })
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with the feature, it awaits")]
async fn aws(_settings: &Settings, _retention: Duration) -> anyhow::Result<Opened> {
    anyhow::bail!(
        "this nobat was built without the AWS backend; use a released program or the container image, or build with `cargo build --release --features aws`"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use nobat_worker::system::SystemClock;

    use super::*;
    use crate::serve::Serve;

    async fn refusal(arguments: &[&str]) -> String {
        let settings = Serve::parse_from(["serve", "--backend", "aws"].iter().chain(arguments));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        open(&settings.place, &clock).await.err().expect("a refusal").to_string()
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn missing_setting_is_named() {
        assert!(refusal(&[]).await.contains("NOBAT_TABLE"));
        assert!(refusal(&["--table", "t"]).await.contains("NOBAT_QUEUE_URL"));
    }

    #[cfg(not(feature = "aws"))]
    #[tokio::test]
    async fn missing_backend_error_names_the_build_flag() {
        assert!(refusal(&["--table", "t", "--queue-url", "q"]).await.contains("--features aws"));
    }
}

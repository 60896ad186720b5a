//! Commands for tasks.

use std::io::Write;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use clap::builder::RangedI64ValueParser;

use crate::client::{Client, ClientArgs, encode};
use crate::response::{Answer, array};
use crate::{exit, render};

/// Maximum time in seconds for which one request of `nobat wait` asks the server to wait for the task. The
/// server may wait less.
const WAIT: f64 = 20.0;
/// Maximum time in seconds for which one request of `nobat wait` waits if standard error is a terminal. The
/// terminal shows progress, and the server answers early only if the task ends, so these requests are short.
const WAIT_FOR_PROGRESS: f64 = 1.0;
/// Minimum time between two requests of `nobat wait`.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// `nobat get`
#[derive(Args)]
pub(crate) struct Get {
    /// Id of the task
    id: String,
    #[command(flatten)]
    target: ClientArgs,
}

/// `nobat explain`
#[derive(Args)]
pub(crate) struct Explain {
    /// Id of the task
    id: String,
    #[command(flatten)]
    target: ClientArgs,
}

/// `nobat list`
#[derive(Args)]
pub(crate) struct List {
    /// Only tasks with this status, such as failed
    #[arg(long)]
    status: Option<String>,
    /// Only tasks of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only tasks of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only tasks accepted at or after this time (RFC 3339)
    #[arg(long)]
    created_after: Option<String>,
    /// Only tasks accepted before this time (RFC 3339)
    #[arg(long)]
    created_before: Option<String>,
    /// Maximum number of tasks
    #[arg(long, default_value_t = 20, value_parser = RangedI64ValueParser::<usize>::new().range(1..=1_000_000))]
    limit: usize,
    #[command(flatten)]
    target: ClientArgs,
}

/// `nobat wait`
#[derive(Args)]
pub(crate) struct Wait {
    /// Id of the task
    id: String,
    /// Seconds after which to stop waiting (exit code 5). Default: no limit
    #[arg(long, value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    target: ClientArgs,
}

/// `nobat cancel`
#[derive(Args)]
pub(crate) struct Cancel {
    /// Id of the task
    id: String,
    #[command(flatten)]
    target: ClientArgs,
}

/// `nobat replay`
#[derive(Args)]
pub(crate) struct Replay {
    /// Id of the task
    id: String,
    /// Send a new idempotency key. The receiver then repeats work that it has already done
    #[arg(long)]
    new_key: bool,
    /// Replay only if the task is at this generation
    #[arg(long, value_name = "N")]
    generation: Option<NonZeroU32>,
    #[command(flatten)]
    target: ClientArgs,
}

impl Get {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let task = Client::new(&self.target)?.get(&format!("/v1/tasks/{}", encode(&self.id))).await?;
        print_task(&task, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Explain {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let explanation =
            Client::new(&self.target)?.get(&format!("/v1/tasks/{}/explain", encode(&self.id))).await?;
        print(&if self.target.json {
            format!("{}\n", explanation.text())
        } else {
            render::explanation(&explanation.object())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let filters = [
            ("status", &self.status),
            ("queue", &self.queue),
            ("kind", &self.kind),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
        ];
        let filters: Vec<_> =
            filters.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?))).collect();
        let tasks = Client::new(&self.target)?.list("/v1/tasks", &filters, self.limit).await?;
        print(&if self.target.json { array(&tasks) } else { render::tasks(&tasks) })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Wait {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        wait(&Client::new(&self.target)?, &self.id, self.timeout, &self.target).await
    }
}

impl Cancel {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let task = Client::new(&self.target)?
            .post(&format!("/v1/tasks/{}/cancel", encode(&self.id)), String::new())
            .await?;
        print_task(&task, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Replay {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut body = serde_json::Map::new();
        body.extend(self.new_key.then(|| ("new_key".to_owned(), true.into())));
        body.extend(self.generation.map(|generation| ("generation".to_owned(), generation.get().into())));
        let path = format!("/v1/tasks/{}/replay", encode(&self.id));
        let body = serde_json::Value::Object(body).to_string();
        let task = Client::new(&self.target)?.post(&path, body).await?;
        print_task(&task, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Requests the task again and again until it has ended or the time is up. Meanwhile shows progress on a
/// terminal.
pub(crate) async fn wait(
    client: &Client,
    id: &str,
    limit: Option<Duration>,
    target: &ClientArgs,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let longest = if std::io::IsTerminal::is_terminal(&std::io::stderr()) { WAIT_FOR_PROGRESS } else { WAIT };
    loop {
        let hold =
            limit.map_or(longest, |limit| limit.saturating_sub(begun.elapsed()).as_secs_f64().min(longest));
        let asked = Instant::now();
        let answer = client.get(&format!("/v1/tasks/{}?wait={hold}", encode(id))).await?;
        let task = answer.object();
        let code = match task.text("status").context("the response is not a task")?.as_str() {
            "succeeded" => Some(0),
            "failed" | "canceled" | "expired" => Some(exit::NOT_SUCCEEDED),
            _ if limit.is_some_and(|limit| begun.elapsed() >= limit) => Some(exit::NOT_ENDED),
            _ => None,
        };
        if let Some(code) = code {
            render::progress_done();
            print_task(&answer, target)?;
            return Ok(code.into());
        }
        render::progress(&task);
        // Avoids a busy loop if the server answers at once.
        tokio::time::sleep(MIN_INTERVAL.saturating_sub(asked.elapsed())).await;
    }
}

pub(crate) fn print_task(answer: &Answer, target: &ClientArgs) -> anyhow::Result<()> {
    print(&if target.json { format!("{}\n", answer.text()) } else { render::task(&answer.object()) })
}

/// Prints to standard output. A reader that stops early (`nobat list | head -1`) is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn seconds(given: &str) -> Result<Duration, &'static str> {
    let seconds = given.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or("expected seconds from 0, such as 30 or 0.5")
}

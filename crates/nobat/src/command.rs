//! The commands of a client.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::{Client, Target};
use crate::{exit, show};

/// How long one request of `wait` is held by the server, which may grant less.
const WAIT: u64 = 20;
/// Asking more often would tell nobody more.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// `nobat submit`
#[derive(Args)]
pub(crate) struct Submit {
    /// Which handler runs it: http, noop, or one of the program's own
    kind: String,
    /// What the handler is given: JSON, `@FILE`, or `-` for standard input
    #[arg(long, short)]
    payload: Option<String>,
    /// The lane it waits in
    #[arg(long)]
    queue: Option<String>,
    /// Start no sooner than so many seconds from now
    #[arg(long)]
    delay: Option<f64>,
    /// Start no sooner than this moment (RFC 3339)
    #[arg(long)]
    run_at: Option<String>,
    /// How many seconds an attempt may take
    #[arg(long)]
    timeout: Option<f64>,
    /// The moment from which it is no longer worth starting (RFC 3339)
    #[arg(long)]
    expires_at: Option<String>,
    /// When to try again, as JSON, such as '{"delays": [5, 60]}'
    #[arg(long)]
    retry: Option<String>,
    /// Where to report its end
    #[arg(long)]
    callback: Option<String>,
    /// A note of your own, as NAME=TEXT; can be given several times
    #[arg(long = "label", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Submitted again with the same key, it stays one task
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Wait until it has ended
    #[arg(long, short)]
    wait: bool,
    #[command(flatten)]
    target: Target,
}

/// `nobat get`
#[derive(Args)]
pub(crate) struct Get {
    /// The task's id
    id: String,
    #[command(flatten)]
    target: Target,
}

/// `nobat explain`
#[derive(Args)]
pub(crate) struct Explain {
    /// The task's id
    id: String,
    #[command(flatten)]
    target: Target,
}

/// `nobat list`
#[derive(Args)]
pub(crate) struct List {
    /// Only tasks of this status, such as failed
    #[arg(long)]
    status: Option<String>,
    /// Only tasks of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only tasks of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Only tasks accepted at or after this moment (RFC 3339)
    #[arg(long)]
    created_after: Option<String>,
    /// Only tasks accepted before this moment (RFC 3339)
    #[arg(long)]
    created_before: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    target: Target,
}

/// `nobat wait`
#[derive(Args)]
pub(crate) struct Wait {
    /// The task's id
    id: String,
    /// Give up after so many seconds
    #[arg(long)]
    timeout: Option<f64>,
    #[command(flatten)]
    target: Target,
}

/// `nobat cancel`
#[derive(Args)]
pub(crate) struct Cancel {
    /// The task's id
    id: String,
    #[command(flatten)]
    target: Target,
}

/// `nobat replay`
#[derive(Args)]
pub(crate) struct Replay {
    /// The task's id
    id: String,
    /// Give downstream a new key, so that what was done already is done again
    #[arg(long)]
    new_key: bool,
    /// Replay only if the task is at this generation
    #[arg(long, value_name = "N")]
    generation: Option<NonZeroU32>,
    #[command(flatten)]
    target: Target,
}

/// What is sent: only what was said, so that the server's defaults hold.
#[derive(Serialize)]
struct Body<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<CallbackBody<'a>>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    labels: std::collections::BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct CallbackBody<'a> {
    url: &'a str,
}

impl Submit {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.target)?;
        let body = serde_json::to_string(&self.body()?)?;
        let task = client.post("/v1/tasks", body, self.idempotency_key.as_deref()).await?;
        if self.wait {
            return wait(&client, id(&task)?, None, &self.target).await;
        }
        print_task(&task, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }

    fn body(&self) -> anyhow::Result<Body<'_>> {
        Ok(Body {
            kind: &self.kind,
            payload: self.payload.as_deref().map(payload).transpose()?,
            queue: self.queue.as_deref(),
            delay: self.delay,
            run_at: self.run_at.as_deref(),
            timeout: self.timeout,
            expires_at: self.expires_at.as_deref(),
            retry: self.retry.clone().map(RawValue::from_string).transpose().context("--retry is not JSON")?,
            callback: self.callback.as_deref().map(|url| CallbackBody { url }),
            labels: self.labels.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect(),
        })
    }
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
        let explanation = Client::new(&self.target)?.get(&format!("/v1/tasks/{}/explain", encode(&self.id))).await?;
        print(&if self.target.json { format!("{explanation}\n") } else { show::explanation(&explanation) })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = Client::new(&self.target)?;
        let mut tasks: Vec<Value> = Vec::new();
        let mut cursor = None;
        // A page can be short although there is more: the server looks at a bounded number of tasks for each.
        while tasks.len() < self.limit {
            let page = client.get(&self.path(self.limit - tasks.len(), cursor.as_deref())).await?;
            tasks.extend(page["data"].as_array().into_iter().flatten().cloned());
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        if self.target.json {
            print(&format!("{}\n", Value::Array(tasks)))?;
        } else {
            print(&show::tasks(&tasks))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn path(&self, limit: usize, cursor: Option<&str>) -> String {
        let limit = limit.min(100).to_string();
        let parameters = [
            ("limit", Some(limit.as_str())),
            ("status", self.status.as_deref()),
            ("queue", self.queue.as_deref()),
            ("kind", self.kind.as_deref()),
            ("created_after", self.created_after.as_deref()),
            ("created_before", self.created_before.as_deref()),
            ("cursor", cursor),
        ];
        let given = parameters.iter().filter_map(|(name, text)| text.map(|text| format!("{name}={}", encode(text))));
        format!("/v1/tasks?{}", given.collect::<Vec<_>>().join("&"))
    }
}

impl Wait {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let limit = self.timeout.map(Duration::try_from_secs_f64).transpose().context("--timeout is not a number of seconds")?;
        wait(&Client::new(&self.target)?, &self.id, limit, &self.target).await
    }
}

impl Cancel {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let task = Client::new(&self.target)?.post(&format!("/v1/tasks/{}/cancel", encode(&self.id)), String::new(), None).await?;
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
        let task = Client::new(&self.target)?.post(&path, Value::Object(body).to_string(), None).await?;
        print_task(&task, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks again and again until the task has ended or the time is up, and shows progress meanwhile.
async fn wait(client: &Client, id: &str, limit: Option<Duration>, target: &Target) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    loop {
        let left = limit.map_or(Duration::from_secs(WAIT), |limit| limit.saturating_sub(begun.elapsed()));
        // Progress is news too, and a server tells of ends only.
        let hold = left.as_secs_f64().min(if std::io::IsTerminal::is_terminal(&std::io::stderr()) { 1.0 } else { 20.0 });
        let asked = Instant::now();
        let task = client.get(&format!("/v1/tasks/{}?wait={hold}", encode(id))).await?;
        let status = task["status"].as_str().context("the answer is not a task")?;
        let code = match status {
            "succeeded" => Some(0),
            "failed" | "canceled" | "expired" => Some(exit::NOT_SUCCEEDED),
            _ if limit.is_some_and(|limit| begun.elapsed() >= limit) => Some(exit::NOT_ENDED),
            _ => None,
        };
        if let Some(code) = code {
            show::progress_done();
            print_task(&task, target)?;
            return Ok(code.into());
        }
        show::progress(&task);
        // A server may grant no wait at all.
        tokio::time::sleep(MIN_INTERVAL.saturating_sub(asked.elapsed())).await;
    }
}

fn print_task(task: &Value, target: &Target) -> anyhow::Result<()> {
    print(&if target.json { format!("{task}\n") } else { show::task(task) })
}

/// Prints; that nobody reads to the end (`nobat list | head -1`) is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn id(task: &Value) -> anyhow::Result<&str> {
    task["id"].as_str().context("the answer is not a task")
}

fn payload(said: &str) -> anyhow::Result<Box<RawValue>> {
    let mut text = String::new();
    match said.strip_prefix('@') {
        Some(file) => text = std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?,
        None if said == "-" => drop(std::io::stdin().read_to_string(&mut text)?),
        None => said.clone_into(&mut text),
    }
    RawValue::from_string(text).context("the payload is not JSON")
}

fn label(said: &str) -> anyhow::Result<(String, String)> {
    match said.split_once('=') {
        Some((name, text)) => Ok((name.to_owned(), text.to_owned())),
        None => bail!("expected NAME=TEXT"),
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

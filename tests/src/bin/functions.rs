//! `cargo run --release -p nobat-tests --bin functions -- FOLDER`: measures start time, CPU time and memory
//! of each function.
//!
//! Lambda hands events to a function through an HTTP API, from which the function takes one event after
//! another: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. This program serves that API,
//! in front of the emulator's table and queue.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nobat_aws::Settings;
use nobat_core::auth::scope::Scopes;
use nobat_core::ports::Clock;
use nobat_core::task::Task;
use nobat_core::types::name::Tenant;
use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::{keys, sample};
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Measures the four functions of a `sam build` through Lambda's Runtime API
#[derive(Parser)]
struct Cli {
    /// Output folder of `sam build`, with one folder for each function
    #[arg(default_value = "infra/.aws-sam/build")]
    folder: PathBuf,
}

/// Events that a function gets before it counts as warm.
const COLD: usize = 50;
/// Events that are measured.
const WARM: usize = 500;
/// Hints in one event for the worker.
const BATCH: usize = 10;
/// Starts of each function, to measure the start time.
const STARTS: usize = 10;

/// Measurements of one function. Sizes and memory are in bytes.
struct Taken {
    binary: u64,
    zip: u64,
    init: Duration,
    cpu: Duration,
    memory: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = Cli::parse().folder;
    let emulator = Emulator::shared();
    let (table, queues) = (
        Table::create(emulator.client()).await,
        Queues::create(emulator.client(), Duration::from_mins(6)).await,
    );
    let mut variables = emulator.variables().to_vec();
    variables
        .extend([("NOBAT_TABLE", table.name().to_owned()), ("NOBAT_QUEUE_URL", queues.hints().to_owned())]);
    let settings = Settings {
        table: table.name().to_owned(),
        queue_url: queues.hints().to_owned(),
        retention: Duration::from_hours(24),
    };
    let backend = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await;
    let key = keys::make(&backend, &Tenant::default(), Scopes::all(), SystemClock.now()).await;
    let store = backend.store;
    println!("| function | event | init, median of {STARTS} | own CPU, warm | memory, most | binary | zip |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    for (name, what) in [
        ("ApiFunction", "one POST /v1/tasks"),
        ("WorkerFunction", "a batch of ten `noop`"),
        ("SweeperFunction", "a sweep that finds nothing"),
        ("DeadLetterFunction", "a dead letter of a missing task"),
    ] {
        let mut events = Vec::new();
        for number in 0..COLD + WARM {
            events.push(match name {
                "ApiFunction" => request(key.as_str()),
                "WorkerFunction" => {
                    let tasks = tasks(number);
                    store.insert(tasks.clone(), SystemClock.now()).await?;
                    hints(&tasks)
                }
                "DeadLetterFunction" => hints(&tasks(usize::MAX / 2 + number)[..1]),
                _ => json!({}),
            });
        }
        let taken = measure(&folder.join(name).join("bootstrap"), &variables, events)
            .await
            .with_context(|| name.to_owned())?;
        println!(
            "| {name} | {what} | {:.1} ms | {:.2} ms | {:.1} MiB | {:.1} MiB | {:.1} MiB |",
            taken.init.as_secs_f64() * 1e3,
            taken.cpu.as_secs_f64() * 1e3,
            mebibytes(taken.memory),
            mebibytes(taken.binary),
            mebibytes(taken.zip),
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the value is only displayed")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Returns 10 due tasks.
fn tasks(number: usize) -> Vec<Task> {
    let first = number as u128 * BATCH as u128;
    let kind = sample::name("noop");
    (0..BATCH as u128)
        .map(|place| Task { kind: kind.clone(), ..sample::task(first + place, SystemClock.now()) })
        .collect()
}

/// Returns the event that API Gateway sends for a request with this key.
fn request(key: &str) -> Value {
    let http = json!({"method": "POST", "path": "/v1/tasks", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "-"});
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/v1/tasks", "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "example.com", "authorization": format!("Bearer {key}")},
        "requestContext": {
            "accountId": "000000000000", "apiId": "api", "domainName": "example.com", "domainPrefix": "example", "http": http,
            "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "01/Jan/2027:00:00:00 +0000", "timeEpoch": 1_800_000_000_000_i64,
        },
        "body": r#"{"kind": "noop", "labels": {"order": "4711"}}"#, "isBase64Encoded": false,
    })
}

/// Returns the event that the SQS event source sends for hints at these tasks.
fn hints(tasks: &[Task]) -> Value {
    let record = |task: &Task| {
        let body = json!({"tenant": task.tenant.as_str(), "id": task.id}).to_string();
        json!({"messageId": task.id, "receiptHandle": "h", "body": body, "attributes": {}, "messageAttributes": {}, "eventSource": "aws:sqs"})
    };
    json!({"Records": tasks.iter().map(record).collect::<Vec<_>>()})
}

async fn measure(program: &Path, variables: &[(&str, String)], events: Vec<Value>) -> anyhow::Result<Taken> {
    let mut inits = Vec::new();
    for _ in 0..STARTS {
        let mut runtime = Runtime::start(program, variables, Vec::new()).await?;
        inits.push(runtime.asked().await?);
    }
    inits.sort_unstable();
    let mut runtime = Runtime::start(program, variables, events).await?;
    runtime.asked().await?;
    for _ in 0..COLD {
        runtime.asked().await?;
    }
    let before = runtime.cpu()?;
    for _ in 0..WARM {
        runtime.asked().await?;
    }
    let cpu = runtime.cpu()?.saturating_sub(before) / u32::try_from(WARM)?;
    ensure!(runtime.failures() == 0, "the function failed some events");
    Ok(Taken {
        binary: program.metadata()?.len(),
        zip: zipped(program).await?,
        init: inits[STARTS / 2],
        cpu,
        memory: runtime.most_memory()?,
    })
}

/// Process of a function, and the API from which it takes its events.
struct Runtime {
    child: Child,
    begun: Instant,
    asked: mpsc::UnboundedReceiver<Instant>,
    failures: Arc<AtomicUsize>,
    /// The API's listener ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

struct Api {
    events: Mutex<Vec<Value>>,
    asked: mpsc::UnboundedSender<Instant>,
    failures: Arc<AtomicUsize>,
}

impl Runtime {
    async fn start(
        program: &Path,
        variables: &[(&str, String)],
        mut events: Vec<Value>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        events.reverse();
        let (asked, receiver) = mpsc::unbounded_channel();
        let failures = Arc::new(AtomicUsize::new(0));
        let api = Arc::new(Api { events: Mutex::new(events), asked, failures: Arc::clone(&failures) });
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                () = serve(listener, api) => {}
                _ = stopped => {}
            }
        });
        let begun = Instant::now();
        let child =
            command(program, variables, address).spawn().with_context(|| program.display().to_string())?;
        Ok(Self { child, begun, asked: receiver, failures, _stop: stop })
    }

    /// Returns the time between the start of the function and its next request for an event. Waits for at
    /// most 1 minute.
    async fn asked(&mut self) -> anyhow::Result<Duration> {
        let asked = tokio::time::timeout(Duration::from_mins(1), self.asked.recv())
            .await
            .context("the function does not request an event")?;
        Ok(asked.context("the API has ended")?.duration_since(self.begun))
    }

    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns the CPU time of all threads.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id()?))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += stat.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Returns the peak resident memory, in bytes.
    fn most_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("the process status has no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the function has ended")
    }
}

fn command(program: &Path, variables: &[(&str, String)], api: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command
        .env("AWS_LAMBDA_RUNTIME_API", api.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").env("NOBAT_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

async fn serve(listener: TcpListener, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let api = Arc::clone(&api);
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            });
            // The connection breaks when the function is ended.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let is_asking = request.method() == Method::GET;
        if !is_asking {
            return self.take(request).await;
        }
        let _ = self.asked.send(Instant::now());
        match self.events.lock().await.pop() {
            Some(event) => next(&event),
            None => std::future::pending().await,
        }
    }

    /// Takes the function's response or error, and counts failures.
    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let is_error = request.uri().path().ends_with("/error");
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_refusal = body["statusCode"].as_u64().is_some_and(|status| status != 202);
        let is_partial = body["batchItemFailures"].as_array().is_some_and(|failures| !failures.is_empty());
        if is_error || is_refusal || is_partial {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut response = Response::default();
        *response.status_mut() = hyper::StatusCode::ACCEPTED;
        response
    }
}

fn next(event: &Value) -> Response<Full<Bytes>> {
    let deadline = SystemClock.now() + Duration::from_mins(1);
    Response::builder()
        .header("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
        .header("lambda-runtime-deadline-ms", deadline.millis())
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
        .body(Full::from(event.to_string()))
        .expect("the response is valid")
}

/// Returns the size of the program in a zip file, as it is deployed, in bytes.
async fn zipped(program: &Path) -> anyhow::Result<u64> {
    let zip = std::env::temp_dir().join(format!("nobat-function-{}.zip", std::process::id()));
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-c"])
        .arg(&zip)
        .arg(program)
        .status()
        .await
        .context("python3")?;
    ensure!(status.success(), "the program cannot be zipped");
    let length = zip.metadata()?.len();
    std::fs::remove_file(zip)?;
    Ok(length)
}

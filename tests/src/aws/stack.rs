//! nobat as deployed on AWS: its API, its table and queues, and its functions, which tests can stop and
//! start.

use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use nobat_core::auth::api_key::KeyText;
use nobat_core::auth::scope::Scopes;
use nobat_core::ports::Clock;
use nobat_core::types::name::Tenant;
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};

use crate::aws::client::Client;
use crate::aws::deployment::{STACK, Source};
use crate::aws::emulator::{Emulator, Iam};
use crate::aws::fault_proxy::{Flow, Tap};
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::harness::exchange::{Answer, exchange};
use crate::harness::{has_ended, path};
use crate::keys;

/// Stack on its own emulator that enforces IAM. Its functions reach the table through a tap.
pub struct Stack {
    /// The table.
    pub table: Table,
    /// Queue of hints and the dead-letter queue.
    pub queues: Queues,
    /// Tap between the functions and the table. [`Stack::table`] does not go through it.
    pub tap: Tap,
    client: Client,
    /// Host of the API. Its first label is the API's id, by which API Gateway routes requests.
    host: String,
    sweeper: String,
    workers: Workers,
    /// API key with all scopes.
    key: KeyText,
    emulator: Emulator,
}

/// Event source mapping through which the workers receive hints.
struct Workers {
    id: String,
    /// `FunctionResponseTypes`, as deployed.
    response_types: Value,
}

/// Maximum wait of a story: 3 minutes, because the schedule fires every minute.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Interval between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Visibility timeout of messages: 2 seconds. With the template's 6 minutes, 10 receives would take an hour.
pub const VISIBILITY: Duration = Duration::from_secs(2);

/// Runtime of the taps, which outlive the test that created them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("the runtime can be created"));

impl Stack {
    /// Returns the stack that the stories of a test binary share, one story at a time, restored to its
    /// initial state.
    pub async fn of(source: Source) -> MutexGuard<'static, Self> {
        static STACKS: [OnceLock<Mutex<Stack>>; 3] = [const { OnceLock::new() }; 3];
        let cell = &STACKS[source as usize];
        let deployed = tokio::task::spawn_blocking(move || {
            cell.get_or_init(|| Mutex::new(RUNTIME.block_on(Self::deploy(source))))
        });
        let stack = deployed.await.expect("the stack can be deployed").lock().await;
        stack.restore().await;
        stack
    }

    async fn deploy(source: Source) -> Self {
        let tap = Tap::new().await.expect("the tap can be created");
        let emulator = Emulator::with_table_behind(&tap, Iam::Enforced);
        let emulator = tokio::task::spawn_blocking(move || {
            source.deploy(&emulator);
            emulator
        });
        Self::find(emulator.await.expect("the deployment succeeds"), tap).await
    }

    /// Reads names and URLs from `CloudFormation`.
    async fn find(emulator: Emulator, tap: Tap) -> Self {
        let client = emulator.client();
        let (said, resources) = (
            client.stack("DescribeStacks", STACK).await,
            client.stack("DescribeStackResources", STACK).await,
        );
        let output = |name: &str| find_member(&said, ["OutputKey", "OutputValue"], |key| key == name);
        let host =
            output("ApiUrl").split_once("//").map(|(_, host)| host.to_owned()).expect("ApiUrl is a URL");
        let id = host.split('.').next().unwrap_or_default();
        let settings = nobat_aws::Settings {
            table: output("TableName"),
            queue_url: output("QueueUrl"),
            retention: Duration::from_hours(24),
        };
        // The owner creates the first key through the table, because no key exists that could ask the API for
        // it.
        let backend = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await;
        let key = keys::make(&backend, &Tenant::default(), Scopes::all(), SystemClock.now()).await;
        let queues = Queues::at(client, output("QueueUrl"), output("DeadLetterQueueUrl"));
        Self {
            table: Table::named(client, output("TableName")),
            workers: Workers::find(client, &queues).await,
            queues,
            tap,
            client,
            host: format!("{id}.execute-api.localhost:{}", emulator.address().port()),
            // CDK adds a path before the name and a digest after it.
            sweeper: find_member(&resources, ["LogicalResourceId", "PhysicalResourceId"], |id| {
                id.contains("SweeperFunction")
            }),
            key,
            emulator,
        }
    }

    /// Returns an API key of the stack with all scopes.
    pub fn key(&self) -> &str {
        self.key.as_str()
    }

    /// Returns the URL of the API. Every name below `localhost` is this machine (RFC 6761, section 6.3).
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Returns the environment variables that let a program access the stack as its owner.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        self.emulator.variables()
    }

    /// Undoes the changes that an earlier story may have left.
    async fn restore(&self) {
        self.tap.set(Flow::Open);
        self.queues.set_visibility(VISIBILITY).await;
        self.queues.purge().await;
        self.change_workers(
            &json!({ "Enabled": true, "FunctionResponseTypes": self.workers.response_types }),
        )
        .await;
    }

    /// Stops the workers from receiving hints until [`Stack::resume_workers`].
    pub async fn pause_workers(&self) {
        self.change_workers(&json!({ "Enabled": false })).await;
    }

    /// Lets the workers receive hints again.
    pub async fn resume_workers(&self) {
        self.change_workers(&json!({ "Enabled": true })).await;
    }

    /// Makes the queue ignore which hints the workers report as failed, as if the template did not contain
    /// `ReportBatchItemFailures`. It applies until the next story.
    pub async fn ignore_batch_failures(&self) {
        let before = &self.workers.response_types;
        assert_eq!(*before, json!(["ReportBatchItemFailures"]), "the report is not deployed");
        let changed = self.change_workers(&json!({ "FunctionResponseTypes": [] })).await;
        assert_eq!(changed["FunctionResponseTypes"], json!([]), "{changed:#}");
    }

    async fn change_workers(&self, change: &Value) -> Value {
        let path = format!("event-source-mappings/{}", self.workers.id);
        let answer = self.client.lambda("PUT", &path, &change.to_string()).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer.json()
    }

    /// Invokes the sweeper, as its schedule does.
    pub async fn sweep(&self) {
        let path = format!("functions/{}/invocations", self.sweeper);
        // At most one sweeper runs at a time, and the schedule's own run may be the one.
        let swept = reached(
            "a sweep",
            async || self.client.lambda("POST", &path, "{}").await,
            |answer| answer.status != 429,
        )
        .await;
        assert!(
            swept.status == 200 && swept.header("x-amz-function-error").is_empty(),
            "{} {}",
            swept.status,
            swept.text()
        );
    }

    /// Sends a `GET` request.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Sends a `POST` request with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    /// Sends a `POST` request with a JSON body and more headers.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.ask("POST", path, headers, &body.to_string()).await
    }

    /// Sends a `PUT` request with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &[], &body.to_string()).await
    }

    /// Sends a `DELETE` request.
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], "").await
    }

    /// Submits a task, which must be accepted, and returns it.
    pub async fn submit(&self, task: &Value) -> Value {
        let answer = self.post("/v1/tasks", task).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    /// Waits for the end of a task and returns it.
    pub async fn ended(&self, task: &Value) -> Value {
        let path = format!("{}?wait=5", path(task));
        reached("the end of a task", async || self.get(&path).await.json(), has_ended).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let authorization = format!("Bearer {}", self.key());
        let own = [("host", self.host.as_str()), ("authorization", authorization.as_str())];
        // Headers of the story replace the default ones, so a story can use another key.
        let own = own.into_iter().filter(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain(own).collect();
        let answer = exchange(self.emulator.address(), method, path, &headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Workers {
    async fn find(client: Client, queues: &Queues) -> Self {
        let all = client.lambda("GET", "event-source-mappings/", "").await.json();
        let queue = format!(":{}", queues.hints().rsplit('/').next().unwrap_or_default());
        let is_of_workers =
            |source: &&Value| source["EventSourceArn"].as_str().is_some_and(|arn| arn.ends_with(&queue));
        let source = all["EventSourceMappings"].as_array().into_iter().flatten().find(is_of_workers);
        let source = source.unwrap_or_else(|| panic!("no function receives hints: {all:#}"));
        let id = source["UUID"]
            .as_str()
            .unwrap_or_else(|| panic!("the event source has no id: {source:#}"))
            .to_owned();
        Self { id, response_types: source["FunctionResponseTypes"].clone() }
    }
}

/// Calls `look` until `is_so` accepts the result, and returns it. Panics after [`PATIENCE`].
pub async fn reached<T>(what: &str, look: impl AsyncFn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "timed out waiting for: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the value of the first list member whose key `is_meant` accepts. Keys and values hold no character
/// that XML escapes.
fn find_member(xml: &str, [key, value]: [&str; 2], is_meant: impl Fn(&str) -> bool) -> String {
    let members = xml.split("</member>").filter(|member| element(member, key).is_some_and(&is_meant));
    let mut found = members.filter_map(|member| element(member, value));
    found.next().unwrap_or_else(|| panic!("no matching {key} in: {xml}")).to_owned()
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.rsplit_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

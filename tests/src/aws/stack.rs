//! nobat as it is deployed: its API to speak to, its table and its queues to look into, its functions to stop and to start.

use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use nobat_core::key::KeyText;
use nobat_core::name::Tenant;
use nobat_core::ports::Clock;
use nobat_core::scope::Scopes;
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};

use crate::aws::client::Client;
use crate::aws::deployment::{STACK, Source};
use crate::aws::emulator::{Emulator, Iam};
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::aws::tap::{Flow, Tap};
use crate::keys;
use crate::world::exchange::{Answer, exchange};
use crate::world::{has_ended, path};

/// A stack on an emulator of its own that enforces IAM, its functions' way to the table through a tap.
pub struct Stack {
    /// The table.
    pub table: Table,
    /// The queue of hints, and that of dead letters.
    pub queues: Queues,
    /// In front of the table, for the functions. Whoever looks into it from outside goes by another way.
    pub tap: Tap,
    client: Client,
    /// The first label of its host, by which API Gateway knows the API.
    host: String,
    sweeper: String,
    /// A key that may do everything.
    key: KeyText,
    emulator: Emulator,
}

/// What a story waits for at most: the schedule fires every minute.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// How often one looks whether it has come to that.
const PAUSE: Duration = Duration::from_millis(50);

/// After how long a message comes again. With the template's six minutes, ten receives would take an hour.
pub const VISIBILITY: Duration = Duration::from_secs(2);

/// What taps live in that outlive the test which made them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

impl Stack {
    /// The stack that the stories of a test binary share, one after the other, as it is when nobody has touched it.
    pub async fn of(source: Source) -> MutexGuard<'static, Self> {
        static STACKS: [OnceLock<Mutex<Stack>>; 3] = [const { OnceLock::new() }; 3];
        let cell = &STACKS[source as usize];
        let deployed = tokio::task::spawn_blocking(move || cell.get_or_init(|| Mutex::new(RUNTIME.block_on(Self::deploy(source)))));
        let stack = deployed.await.expect("a stack that can be deployed").lock().await;
        stack.restore().await;
        stack
    }

    async fn deploy(source: Source) -> Self {
        let tap = Tap::new().await.expect("a tap");
        let emulator = Emulator::with_table_behind(&tap, Iam::Enforced);
        let emulator = tokio::task::spawn_blocking(move || {
            source.deploy(&emulator);
            emulator
        });
        Self::find(emulator.await.expect("a deployment"), tap).await
    }

    /// Reads from `CloudFormation` where everything is.
    async fn find(emulator: Emulator, tap: Tap) -> Self {
        let client = emulator.client();
        let (said, resources) = (client.stack("DescribeStacks", STACK).await, client.stack("DescribeStackResources", STACK).await);
        let output = |name: &str| among(&said, ["OutputKey", "OutputValue"], |key| key == name);
        let host = output("ApiUrl").split_once("//").map(|(_, host)| host.to_owned()).expect("a URL");
        let id = host.split('.').next().unwrap_or_default();
        let settings =
            nobat_aws::Settings { table: output("TableName"), queue_url: output("QueueUrl"), retention: Duration::from_hours(24) };
        // As its owner makes the first one: by the table, for nobody can ask the API for it.
        let backend = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await;
        let key = keys::make(&backend, &Tenant::default(), Scopes::all(), SystemClock.now()).await;
        Self {
            table: Table::named(client, output("TableName")),
            queues: Queues::at(client, output("QueueUrl"), output("DeadLetterQueueUrl")),
            tap,
            client,
            host: format!("{id}.execute-api.localhost:{}", emulator.address().port()),
            // CDK adds a path before it, and a digest behind.
            sweeper: among(&resources, ["LogicalResourceId", "PhysicalResourceId"], |id| id.contains("SweeperFunction")),
            key,
            emulator,
        }
    }

    /// A key to it that may do everything.
    pub fn key(&self) -> &str {
        self.key.as_str()
    }

    /// The URL of the API. Every name below `localhost` is this machine (RFC 6761, section 6.3).
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// What a program must find in its environment to look into the stack as its owner.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        self.emulator.variables()
    }

    /// Undoes what a story before may have left.
    async fn restore(&self) {
        self.tap.set(Flow::Open);
        self.queues.set_visibility(VISIBILITY).await;
        self.queues.purge().await;
        self.set_workers(true).await;
    }

    /// Has nobody take hints from the queue until they are resumed.
    pub async fn pause_workers(&self) {
        self.set_workers(false).await;
    }

    /// Has hints be taken from the queue again.
    pub async fn resume_workers(&self) {
        self.set_workers(true).await;
    }

    async fn set_workers(&self, enabled: bool) {
        let all = self.client.lambda("GET", "event-source-mappings/", "").await.json();
        let queue = format!(":{}", self.queues.hints().rsplit('/').next().unwrap_or_default());
        let is_of_workers = |source: &&Value| source["EventSourceArn"].as_str().is_some_and(|arn| arn.ends_with(&queue));
        let source = all["EventSourceMappings"].as_array().into_iter().flatten().find(is_of_workers);
        let id = source.and_then(|source| source["UUID"].as_str()).unwrap_or_else(|| panic!("nobody takes hints: {all:#}"));
        let change = json!({ "Enabled": enabled }).to_string();
        let answer = self.client.lambda("PUT", &format!("event-source-mappings/{id}"), &change).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    }

    /// Has the sweeper run, as its schedule does.
    pub async fn sweep(&self) {
        let path = format!("functions/{}/invocations", self.sweeper);
        // There may be one at a time, and the schedule's own may be the one.
        let swept = reached("a sweep", async || self.client.lambda("POST", &path, "{}").await, |answer| answer.status != 429).await;
        assert!(swept.status == 200 && swept.header("x-amz-function-error").is_empty(), "{} {}", swept.status, swept.text());
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    /// `POST` of JSON, with headers besides.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.ask("POST", path, headers, &body.to_string()).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &[], &body.to_string()).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], "").await
    }

    /// A task that is accepted.
    pub async fn submit(&self, task: &Value) -> Value {
        let answer = self.post("/v1/tasks", task).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    /// The task once it has ended.
    pub async fn ended(&self, task: &Value) -> Value {
        let path = format!("{}?wait=5", path(task));
        reached("the end of a task", async || self.get(&path).await.json(), has_ended).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let authorization = format!("Bearer {}", self.key());
        let own = [("host", self.host.as_str()), ("authorization", authorization.as_str())];
        // A story that brings its own says whom it speaks for.
        let own = own.into_iter().filter(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain(own).collect();
        let answer = exchange(self.emulator.address(), method, path, &headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

/// What is seen once it is so.
pub async fn reached<T>(what: &str, look: impl AsyncFn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came to that: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The value beside the one key of a list in XML that is meant. Neither holds anything that XML would write otherwise.
fn among(xml: &str, [key, value]: [&str; 2], is_meant: impl Fn(&str) -> bool) -> String {
    let members = xml.split("</member>").filter(|member| element(member, key).is_some_and(&is_meant));
    let mut found = members.filter_map(|member| element(member, value));
    found.next().unwrap_or_else(|| panic!("no such {key}: {xml}")).to_owned()
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.rsplit_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

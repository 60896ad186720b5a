//! Test harness: a server on a free port, a clock that the test controls, and a client that can break every
//! rule.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nobat_api::{AccessPolicy, App, AppConfig, AuthMode, Limits, router, serve_within};
use nobat_core::auth::api_key::{Key, KeyText};
use nobat_core::auth::audit::{Action, Actor, Entry};
use nobat_core::config::endpoint::NoEndpointTester;
use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::config::record::Record;
use nobat_core::json::Json;
use nobat_core::ports::config_store::{ConfigStore, RecordResult};
use nobat_core::ports::{Clock, TaskStore};
use nobat_core::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault, VaultSource};
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::lifecycle::{Event, transition};
use nobat_core::task::{TaskKey, Wait};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use nobat_sqlite::Sqlite;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

/// Retention of ended tasks.
const RETENTION: Duration = Duration::from_hours(24);

/// Server and everything that it runs on.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<StoppedClock>,
    pub(crate) store: Arc<Memory>,
    pub(crate) backend: Backend,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<()>,
}

/// Clock that only the test advances. All sleeps last until [`StoppedClock::end_sleeps`].
pub(crate) struct StoppedClock {
    now: watch::Sender<Timestamp>,
    sleepers: watch::Sender<usize>,
    sleeps_ended: watch::Sender<bool>,
    longest: Mutex<Duration>,
}

impl StoppedClock {
    fn new() -> Self {
        let now = "2026-11-30T09:30:00Z".parse().unwrap();
        Self {
            now: watch::Sender::new(now),
            sleepers: watch::Sender::new(0),
            sleeps_ended: watch::Sender::new(false),
            longest: Mutex::default(),
        }
    }

    /// Advances the clock.
    pub(crate) fn advance(&self, time: Duration) {
        self.now.send_modify(|now| *now = *now + time);
    }

    /// Resolves once this many sleeps have begun.
    pub(crate) async fn sleepers(&self, count: usize) {
        self.sleepers.subscribe().wait_for(|sleepers| *sleepers >= count).await.unwrap();
    }

    /// Returns the number of sleeps that have ever begun.
    pub(crate) fn slept(&self) -> usize {
        *self.sleepers.borrow()
    }

    /// Returns the longest requested sleep.
    pub(crate) fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }

    /// Ends all sleeps, also future ones.
    pub(crate) fn end_sleeps(&self) {
        self.sleeps_ended.send_replace(true);
    }
}

#[async_trait]
impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        {
            let mut longest = self.longest.lock().unwrap();
            *longest = duration.max(*longest);
        }
        self.sleepers.send_modify(|sleepers| *sleepers += 1);
        self.sleeps_ended.subscribe().wait_for(|sleeps_ended| *sleeps_ended).await.unwrap();
    }
}

/// Kinds of the server: `noop` accepts any payload, `http` a URL that does not lead to this machine.
struct TwoKinds;

impl KindRegistry for TwoKinds {
    fn check(&self, kind: &Name, payload: &Json, _: Target) -> Result<Option<Wait>, KindError> {
        match kind.as_str() {
            "noop" => Ok(None),
            "http" if payload.get().contains("127.0.0.1") => Err(KindError::Payload(vec![FieldError {
                code: Some("blocked_address"),
                ..FieldError::new("/url", "leads to a private address")
            }])),
            "http" if payload.get().contains("https://") => Ok(None),
            "http" => Err(KindError::Payload(vec![FieldError::new("/url", "missing field `url`")])),
            _ => Err(KindError::UnknownKind(vec!["http".into(), "noop".into()])),
        }
    }

    fn check_authority(&self, pem: &str) -> Result<(), String> {
        if pem.contains("CERTIFICATE") { Ok(()) } else { Err("expected certificates".to_owned()) }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_within(Limits::default()).await
    }

    pub(crate) async fn start_within(limits: Limits) -> Self {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(StoppedClock::new()));
        let registry = Arc::new(Sqlite::in_memory(RETENTION, clock.clone()).unwrap());
        let backend = Backend {
            store: store.clone(),
            queue: store.clone(),
            config: registry.clone(),
            limiters: registry,
        };
        Self::of(
            backend,
            store,
            clock,
            AccessPolicy { keys: AuthMode::NotYet, admitted: Vec::new(), proxies: Vec::new() },
            vault(),
            limits,
        )
        .await
    }

    /// Starts a server with this access policy, on a store that keeps tenants apart.
    pub(crate) async fn behind(door: AccessPolicy) -> Self {
        Self::behind_with(door, vault()).await
    }

    /// Starts a server that requires a key of every request, with this source of the vault.
    pub(crate) async fn guarded_with(vault: Arc<dyn VaultSource>) -> Self {
        Self::behind_with(
            AccessPolicy { keys: AuthMode::Required, admitted: Vec::new(), proxies: Vec::new() },
            vault,
        )
        .await
    }

    async fn behind_with(door: AccessPolicy, vault: Arc<dyn VaultSource>) -> Self {
        let clock = Arc::new(StoppedClock::new());
        let backend = Sqlite::in_memory(RETENTION, clock.clone()).unwrap().backend();
        Self::of(backend, Arc::new(Memory::new()), clock, door, vault, Limits::default()).await
    }

    /// Starts a server that requires a key of every request, on a configuration store that `wrap` changes.
    pub(crate) async fn with_config(wrap: impl FnOnce(Arc<dyn ConfigStore>) -> Arc<dyn ConfigStore>) -> Self {
        let clock = Arc::new(StoppedClock::new());
        let backend = Sqlite::in_memory(RETENTION, clock.clone()).unwrap().backend();
        let backend = Backend { config: wrap(backend.config.clone()), ..backend };
        let policy = AccessPolicy { keys: AuthMode::Required, admitted: Vec::new(), proxies: Vec::new() };
        Self::of(backend, Arc::new(Memory::new()), clock, policy, vault(), Limits::default()).await
    }

    /// Starts a server that requires a key of every request.
    pub(crate) async fn guarded() -> Self {
        Self::guarded_with(vault()).await
    }

    async fn of(
        backend: Backend,
        store: Arc<Memory>,
        clock: Arc<StoppedClock>,
        door: AccessPolicy,
        vault: Arc<dyn VaultSource>,
        limits: Limits,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let app = App::new(AppConfig {
            epoch: ConfigEpoch::default(),
            backend: backend.clone(),
            clock: clock.clone(),
            kinds: Arc::new(TwoKinds),
            access_policy: door,
            recount: Duration::from_secs(1),
            max_timeout: Duration::from_hours(12),
            max_wait: Duration::from_secs(25),
            tester: Arc::new(NoEndpointTester),
            vault,
            cursor_key: [7; 32],
            shutdown: shutdown.clone(),
        });
        let server = tokio::spawn(serve_within(listener, router(app), shutdown.clone(), limits));
        Self { address, clock, store, backend, shutdown, server }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// Returns the answer to a request, on its own connection. Checks that the document declares the problem,
    /// if it is one.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(&request).await;
        let answer = client.answer().await.expect("the server sends a response");
        if answer.header("content-type") == Some("application/problem+json") {
            answer.is_declared(request.as_ref());
        }
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    /// Creates a key of this tenant with these scopes. `make` changes its other fields.
    pub(crate) async fn key_that(&self, tenant: &str, scopes: &str, make: impl FnOnce(Key) -> Key) -> String {
        let text = KeyText::new(rand::random());
        let key = make(Key {
            digest: text.digest(),
            tenant: Tenant::new(tenant).unwrap(),
            label: String::new(),
            scopes: scopes.parse().unwrap(),
            networks: Vec::new(),
            created_at: self.clock.now(),
            expires_at: None,
            revoked_at: None,
            replaced: None,
            version: 1,
        });
        let (at, object) = (self.clock.now(), key.id().to_string());
        let entry = Entry {
            tenant: key.tenant.clone(),
            at,
            actor: Actor::Operator,
            action: Action::KeyCreated,
            target: object,
            mark: 0,
        };
        assert_eq!(
            self.backend.config.write(vec![Record::from(&key)], entry).await.unwrap(),
            RecordResult::Done
        );
        text.as_str().to_owned()
    }

    /// Replaces a key's record, as another process would.
    pub(crate) async fn rewrite(&self, key: &Key) {
        let (at, object) = (self.clock.now(), key.id().to_string());
        let entry = Entry {
            tenant: key.tenant.clone(),
            at,
            actor: Actor::Operator,
            action: Action::KeyRevoked,
            target: object,
            mark: 0,
        };
        assert_eq!(
            self.backend.config.write(vec![Record::from(key)], entry).await.unwrap(),
            RecordResult::Done
        );
    }

    pub(crate) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn key(&self, tenant: &str, scopes: &str) -> String {
        self.key_that(tenant, scopes, |key| key).await
    }

    /// Returns the answer to a request with this key.
    pub(crate) async fn ask_with(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        self.ask_from("", key, method, path, body).await
    }

    /// Returns the answer to a request with this key and more headers.
    pub(crate) async fn ask_from(
        &self,
        headers: &str,
        key: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let length = body.len();
        let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n"
        );
        self.ask(format!("{head}{json}{headers}\r\n{body}")).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(path, "", body).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask(post(path, headers, body)).await
    }

    /// Submits a task and returns its id.
    pub(crate) async fn submit(&self, body: &str) -> String {
        let answer = self.post("/v1/tasks", body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Applies an event to a task, as a worker would.
    pub(crate) async fn apply(&self, id: &str, event: Event) {
        let name = TaskKey { tenant: Tenant::default(), id: id.parse().unwrap() };
        let task = self.store.get(&name, self.clock.now()).await.unwrap().unwrap();
        self.store
            .commit(transition(task, event, self.clock.now()).unwrap(), self.clock.now())
            .await
            .unwrap();
    }

    pub(crate) async fn run(&self, id: &str) {
        self.apply(id, Event::Claim { until: self.clock.now() + Duration::from_mins(1) }).await;
    }

    pub(crate) async fn succeed(&self, id: &str) {
        self.apply(id, Event::Succeed { token: 1, result: Json::from_text("{\"n\": 1.0}".into()).unwrap() })
            .await;
    }
}

fn vault() -> Arc<dyn VaultSource> {
    Arc::new(Arc::new(Vault::new(MasterKey::new([7; MASTER_KEY_BYTES]), Vec::new())))
}

/// Returns a request with a JSON body.
pub(crate) fn post(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Client with one connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// Answer of a server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    /// Sends bytes. Ignores errors, since a server that has read enough may have closed the connection.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes).await;
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Returns the next answer, or `None` if the connection ends before.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                break String::from_utf8(head).unwrap();
            }
            self.read_more().await?;
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            self.read_more().await?;
        }
        answer.body = self.unread.drain(..length).collect();
        Some(answer)
    }

    /// Resolves once the server has closed the connection. Panics if the server sends anything before.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.read_more().await, None, "{:?}", String::from_utf8_lossy(&self.unread));
    }

    async fn read_more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.unread).await.unwrap_or(0);
        (read > 0).then_some(())
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that the document declares the code of this problem for the operation of the request.
    fn is_declared(&self, request: &[u8]) {
        static DOCUMENT: LazyLock<Value> =
            LazyLock::new(|| serde_json::to_value(nobat_api::openapi()).unwrap());
        let line = String::from_utf8_lossy(request).lines().next().unwrap().to_owned();
        let (method, target) = line.split_once(' ').unwrap();
        let target = target.split([' ', '?']).next().unwrap();
        let path = target
            .split_once("://")
            .map_or(target, |(_, rest)| rest.find('/').map_or("/", |start| &rest[start..]));
        let is_match = |template: &str| {
            let (path, template): (Vec<_>, Vec<_>) =
                (path.split('/').collect(), template.split('/').collect());
            let is_same =
                |(part, name): (&&str, &&str)| part == name || name.starts_with('{') && !part.is_empty();
            path.len() == template.len() && path.iter().zip(&template).all(is_same)
        };
        // A path without parameters takes precedence.
        let mut paths: Vec<_> = DOCUMENT["paths"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(template, _)| is_match(template))
            .collect();
        paths.sort_by_key(|(template, _)| template.contains('{'));
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let code = self.json()["code"].as_str().unwrap().to_owned();
        match paths.first().map(|(_, item)| &item[method]) {
            None => assert_eq!(code, "not_found", "{line}"),
            Some(Value::Null) => assert_eq!(code, "method_not_allowed", "{line}"),
            Some(operation) => {
                let declared = operation["responses"][self.status.to_string()]["description"]
                    .as_str()
                    .unwrap_or_default();
                assert!(
                    declared.contains(&format!("`{code}`:")),
                    "{line}: the document does not declare {code}"
                );
            }
        }
    }

    /// Checks that the answer is this problem in the form of RFC 9457. Returns its body.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, Some("application/problem+json")),
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("urn:nobat:error:{code}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        assert_eq!(problem["instance"].as_str().unwrap().len(), "urn:nobat:request:".len() + 32);
        assert_eq!(self.header("cache-control"), Some("no-store"));
        problem
    }

    /// Checks that the answer is this problem and names exactly these pointers.
    #[track_caller]
    pub(crate) fn names(&self, status: u16, code: &str, pointers: &[&str]) {
        let problem = self.problem(status, code);
        let named: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(named, pointers, "{problem}");
    }
}

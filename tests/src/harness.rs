//! Environment of an end-to-end test: the real program on its own port, and a real server that it calls.
//!
//! Tests do not sleep: `?wait=` reports the end of a task, and the [`Receiver`] reports its calls.

pub mod exchange;
pub mod external_server;
pub mod names;
pub mod process;
pub mod program;
pub mod raw_receiver;
pub mod receiver;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nobat_core::ports::Clock;
use nobat_core::types::time::Timestamp;
use nobat_worker::system::SystemClock;
use rusqlite::Connection;
use serde_json::Value;

use crate::disk::{Cache, Disk};
use crate::harness::exchange::{Answer, exchange};
use crate::harness::process::{Process, Ran};
use crate::harness::program::Program;
use crate::harness::receiver::Receiver;
use crate::scratch::Scratch;

/// Running nobat with an empty file, and a server for it to call.
///
/// A story ends with [`World::end`], which fails if unfinished tasks or unexpected complaints are left.
pub struct World {
    /// Server that tasks call.
    pub receiver: Receiver,
    program: PathBuf,
    flags: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// Disk of the file, if the story makes it fail.
    disk: Option<Disk>,
    /// Complaints in the log that the story expects.
    expected: Vec<&'static str>,
    process: Option<Process>,
    /// Log of the earlier processes.
    log: Vec<String>,
    scratch: Scratch,
}

/// Maximum wait of a story: far more than anything takes, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Flags of a nobat that may call this machine.
pub const OPEN: [&str; 2] = ["--allow-private-networks", "127.0.0.0/8"];

impl World {
    /// Starts `nobat`, which may call this machine.
    pub async fn start() -> Self {
        Self::with(&OPEN).await
    }

    /// Starts `nobat` with these flags only.
    pub async fn with(flags: &[&str]) -> Self {
        Self::of(Program::Nobat, flags).await
    }

    /// Starts a program with these flags.
    pub async fn of(program: Program, flags: &[&str]) -> Self {
        let mut world = Self::new(program, flags).await;
        world.go_on().await;
        world
    }

    /// Starts `nobat` on a disk that can be made to fail, with this maximum number of files and connections.
    pub async fn on_a_bad_machine(handles: usize) -> Self {
        let mut world = Self::new(Program::Nobat, &OPEN).await;
        let disk = Disk::new(world.scratch.path(), Cache::None).expect("the disk can be created");
        world.variables = disk.variables();
        world.variables.push(("DISK_HANDLES", handles.to_string()));
        world.disk = Some(disk);
        world.go_on().await;
        world
    }

    /// Starts `nobat` with these flags, and with a soft and a hard limit of open files.
    pub async fn with_handles(soft: u32, hard: u32, flags: &[&str]) -> Self {
        let mut world = Self::new(Program::Nobat, flags).await;
        let script = world.scratch.path().join("limited");
        let text = format!(
            "#!/bin/sh\nulimit -Sn {soft} && ulimit -Hn {hard} && exec '{}' \"$@\"\n",
            world.program.display()
        );
        std::fs::write(&script, text).expect("the script can be written");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
            .expect("the script can be made executable");
        world.program = script;
        world.go_on().await;
        world
    }

    async fn new(program: Program, flags: &[&str]) -> Self {
        Self {
            receiver: Receiver::start().await.expect("the receiver can be started"),
            program: program.path(),
            flags: flags.iter().copied().map(str::to_owned).collect(),
            variables: Vec::new(),
            disk: None,
            expected: Vec::new(),
            process: None,
            log: Vec::new(),
            scratch: Scratch::new().expect("the directory can be created"),
        }
    }

    /// Starts the program again, on the same file.
    pub async fn go_on(&mut self) {
        self.try_to_go_on().await.unwrap_or_else(|error| panic!("the program did not start: {error:#}"));
    }

    /// Starts the program again, or returns the error.
    pub async fn try_to_go_on(&mut self) -> anyhow::Result<()> {
        assert!(self.process.is_none(), "the program is still running");
        let data = ["--data".to_owned(), self.data().display().to_string()];
        self.process = Some(
            Process::start(&self.program, &[&data, self.flags.as_slice()].concat(), &self.variables).await?,
        );
        Ok(())
    }

    /// Starts the program again with other flags.
    pub async fn go_on_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().copied().map(str::to_owned).collect();
        self.go_on().await;
    }

    /// Sets an environment variable for the next start. An empty value removes it.
    pub fn set_variable(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(other, _)| *other != name);
        if !value.is_empty() {
            self.variables.push((name, value.to_owned()));
        }
    }

    /// Kills the program (SIGKILL).
    pub async fn kill(&mut self) {
        let log = self
            .process
            .take()
            .expect("the program is running")
            .kill()
            .await
            .expect("the program can be killed");
        self.log.extend(log);
    }

    /// Stops the program (SIGTERM) and waits for its end, which must be with exit code 0.
    pub async fn stop(&mut self) {
        let (status, log) = self
            .process
            .take()
            .expect("the program is running")
            .terminate()
            .await
            .expect("the program can be stopped");
        self.log.extend(log);
        assert_eq!(status.code(), Some(0), "{}", self.log.join("\n"));
    }

    /// Ends the story: all tasks must have ended, the program must stop with exit code 0, and its log must
    /// hold no error and no panic.
    pub async fn end(mut self) {
        let tasks = self.tasks("").await;
        let left: Vec<_> = tasks.iter().filter(|task| !has_ended(task)).collect();
        assert!(left.is_empty(), "some tasks have not ended: {left:#?}");
        self.stop().await;
        let mut complaints = complaints(&self.log);
        complaints.retain(|line| !self.expected.iter().any(|expected| line.contains(expected)));
        assert!(complaints.is_empty(), "the log contains errors:\n{}", complaints.join("\n"));
    }

    /// Returns the process id of the program.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().and_then(Process::id).expect("the program is running")
    }

    /// Returns true if the program answers.
    pub async fn is_reachable(&self) -> bool {
        exchange(self.address(), "GET", "/healthz", &[], "").await.is_ok()
    }

    /// Returns the address on which the program listens.
    pub fn address(&self) -> SocketAddr {
        self.process.as_ref().expect("the program is running").address()
    }

    /// Returns the process id of the program.
    pub fn process(&self) -> u32 {
        self.process.as_ref().and_then(Process::id).expect("the program is running")
    }

    /// Returns the path of the database file.
    pub fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.scratch.path().join("nobat.db"), Disk::data)
    }

    /// Returns the disk of the file. Panics if it cannot be made to fail.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the world has a disk that can fail")
    }

    /// Allows complaints in the log that contain this text.
    pub fn expect(&mut self, complaint: &'static str) {
        self.expected.push(complaint);
    }

    /// Returns the folder for other files of the story.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Returns the log of all processes that were stopped or killed.
    pub fn log(&self) -> String {
        self.log.join("\n")
    }

    /// Opens the database file. Panics if the program is running.
    pub fn file(&self) -> Connection {
        assert!(self.process.is_none(), "the program is still running");
        Connection::open(self.data()).expect("the SQLite file can be opened")
    }

    /// Runs the program as a client of itself, or as a second server.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let url = self.process.as_ref().map(|process| format!("http://{}", process.address()));
        process::run(&self.program, arguments, url.as_deref()).await.expect("the program can be run")
    }

    /// Sends a `GET` request.
    pub async fn get(&self, path: &str) -> Answer {
        exchange(self.address(), "GET", path, &[], "")
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends a `GET` request with more headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        exchange(self.address(), "GET", path, headers, "")
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends a `POST` request with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], &body.to_string()).await
    }

    /// Sends a `POST` request with a text as its JSON body and more headers.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let answer = exchange(self.address(), "POST", path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Sends a request with a JSON body, or without a body if it is `null`.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        exchange(self.address(), method, path, &[], &body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Submits a task, which must be accepted, and returns it.
    pub async fn submit(&self, task: &Value) -> Value {
        let answer = self.post("/v1/tasks", task).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()
    }

    /// Returns the task in its present state.
    pub async fn task(&self, task: &Value) -> Value {
        self.get(&path(task)).await.json()
    }

    /// Waits for the end of a task and returns it.
    pub async fn ended(&self, task: &Value) -> Value {
        self.wait(task, 20.0, has_ended).await
    }

    /// Waits until `is_so` accepts the task, and returns it. The server holds each request for 0.1 seconds,
    /// so that this is no busy loop.
    pub async fn until(&self, task: &Value, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait(task, 0.1, is_so).await
    }

    /// Returns all tasks that pass a filter such as `status=failed&`, the newest first.
    pub async fn tasks(&self, filter: &str) -> Vec<Value> {
        let (mut tasks, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/tasks?{filter}limit=100{cursor}")).await.json();
            tasks.extend(page["data"].as_array().into_iter().flatten().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return tasks,
            }
        }
    }

    async fn wait(&self, task: &Value, hold: f64, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.get(&format!("{}?wait={hold}", path(task))).await.json();
            if is_so(&task) {
                return task;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the task did not reach the expected state in time: {task:#}"
            );
        }
    }
}

/// Returns true if the task has ended.
pub fn has_ended(task: &Value) -> bool {
    matches!(task["status"].as_str(), Some("succeeded" | "failed" | "canceled" | "expired"))
}

/// Returns the path of a task.
pub fn path(task: &Value) -> String {
    format!("/v1/tasks/{}", task["id"].as_str().unwrap_or_else(|| panic!("the task has no id: {task:#}")))
}

/// Returns a field of each of a task's attempts, such as `/outcome`, or `-` if it is missing.
pub fn attempts(task: &Value, pointer: &str) -> Vec<String> {
    let text = |attempt: &Value| attempt.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
    task["attempts"].as_array().into_iter().flatten().map(text).collect()
}

/// Returns the time at this distance from now, in the API's format.
pub fn from_now(duration: Duration) -> String {
    (SystemClock.now() + duration).to_string()
}

/// Returns the time in a field of a task or an attempt.
pub fn moment(task: &Value, field: &str) -> Timestamp {
    task[field]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("`{field}` is no timestamp: {task:#}"))
}

/// Returns the lines of a log that no run should leave: errors and panics, except the panics that a `noop`
/// task ordered.
pub fn complaints(log: &[String]) -> Vec<&str> {
    let is_ordered = |line: &str| {
        line.contains("a panic occurred; the attempt") && line.contains("worker/src/handlers/noop.rs")
    };
    let is_complaint = |line: &&str| {
        (line.contains(r#""level":"ERROR""#) || line.contains("panicked at")) && !is_ordered(line)
    };
    log.iter().map(String::as_str).filter(is_complaint).collect()
}

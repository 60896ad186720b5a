//! The real program with kinds that end or block it, started again whenever it is gone, and good work beside them all the while.

pub mod supervisor;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::poison::supervisor::Supervisor;
use crate::scratch::Scratch;
use crate::world::exchange::{Answer, exchange};
use crate::world::{has_ended, path};

/// What a handler does to its process. The names are those of the kinds in `examples/poison.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// It ends it.
    Abort,
    /// It fills the stack, which ends it.
    Overflow,
    /// It takes memory without end, which ends it where memory has one.
    Allocate,
    /// It keeps a thread for ever, asleep.
    Block,
    /// Nothing: a panic is caught.
    Panic,
}

/// What is submitted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the bad tasks do.
    pub poisons: &'static [Poison],
    /// How many there are of each.
    pub each: usize,
    /// How many attempts each of them has.
    pub attempts: usize,
    /// How many good tasks there are at least. There are more of them until the last bad one has ended.
    pub good: usize,
}

/// What came of it.
pub struct Outcome {
    /// The bad tasks, as they ended.
    pub bad: Vec<(Poison, Value)>,
    /// The good ones.
    pub good: Vec<Value>,
    /// How often the program ended by itself, and was started again.
    pub restarts: usize,
    /// The longest that a request had to wait for its answer from a program that was there.
    pub slowest: Duration,
}

/// How long good work takes, in seconds: long enough to be met by a crash.
const WORK: f64 = 0.02;
/// How many good tasks come at a time.
const HANDFUL: usize = 10;
/// What lies between one handful and the next, at least.
const PACE: Duration = Duration::from_millis(100);
/// What is waited before a program is asked again that is not there.
const PAUSE: Duration = Duration::from_millis(20);
/// Far more than anything takes, the minute after which a blocked program ends included.
const PATIENCE: Duration = Duration::from_mins(20);

impl Poison {
    /// Those that end the process, and the one that does not.
    pub const SUDDEN: [Self; 4] = [Self::Abort, Self::Overflow, Self::Allocate, Self::Panic];

    fn kind(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Overflow => "overflow",
            Self::Allocate => "allocate",
            Self::Block => "block",
            Self::Panic => "panic",
        }
    }

    /// Whether it ends the process, at once or after a while.
    pub fn is_deadly(self) -> bool {
        self != Self::Panic
    }
}

impl Plan {
    /// How often the program can end at most: each attempt of a bad task ends it once.
    pub fn most_restarts(&self) -> usize {
        self.poisons.iter().filter(|poison| poison.is_deadly()).count() * self.each * self.attempts
    }
}

/// Goes through with it.
pub async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new()?;
    let supervisor = Supervisor::start(scratch.path().join("nobat.db")).await?;
    let mut users = Users { supervisor: &supervisor, submitted: 0, slowest: Duration::ZERO, begun: Instant::now() };
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for number in 0..plan.each * plan.poisons.len() {
        let poison = plan.poisons[number % plan.poisons.len()];
        let retry = json!({"delays": vec![0.1; plan.attempts - 1]});
        let task = json!({"kind": poison.kind(), "retry": retry, "timeout": 3600});
        bad.push((poison, users.submit(&task, 1).await.remove(0)));
        users.good(&mut good).await;
    }
    let mut left: Vec<usize> = (0..bad.len()).collect();
    while !left.is_empty() || good.len() < plan.good {
        users.good(&mut good).await;
        sleep(PACE).await;
        let mut still = Vec::new();
        for place in left {
            bad[place].1 = users.get(&path(&bad[place].1)).await;
            if !has_ended(&bad[place].1) {
                still.push(place);
            }
        }
        left = still;
    }
    for task in &mut good {
        while !has_ended(task) {
            *task = users.get(&format!("{}?wait=5", path(task))).await;
        }
    }
    let slowest = users.slowest;
    let restarts = supervisor.stop().await?;
    Ok(Outcome { bad, good, restarts, slowest })
}

/// Those who submit tasks and ask for them, whatever becomes of the program.
struct Users<'a> {
    supervisor: &'a Supervisor,
    submitted: usize,
    slowest: Duration,
    begun: Instant,
}

impl Users<'_> {
    /// A handful of good tasks. Each has attempts enough to be met by one crash after the other.
    async fn good(&mut self, tasks: &mut Vec<Value>) {
        let task = json!({"kind": "noop", "payload": {"sleep": WORK}, "retry": {"max_attempts": 50, "base": 0.05, "max": 0.5}});
        tasks.extend(self.submit(&task, HANDFUL).await);
    }

    async fn submit(&mut self, task: &Value, count: usize) -> Vec<Value> {
        self.submitted += 1;
        let (key, batch) = (format!("batch-{}", self.submitted), json!({"tasks": vec![task; count]}).to_string());
        let mut answer = self.ask("POST", "/v1/tasks/batch", &[("idempotency-key", &key)], &batch).await;
        let tasks = answer["data"].take();
        tasks.as_array().cloned().unwrap_or_else(|| panic!("no tasks: {answer:#}"))
    }

    async fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &[], "").await
    }

    /// Asks until there is an answer, which must be a good one.
    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
        loop {
            assert!(self.begun.elapsed() < PATIENCE, "it never comes to an end: {method} {path}");
            let (address, asked) = (self.supervisor.address(), Instant::now());
            match exchange(address, method, path, headers, body).await {
                Ok(answer) => {
                    self.slowest = self.slowest.max(asked.elapsed());
                    return good(&answer);
                }
                // It is gone, or will be in a moment.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

fn good(answer: &Answer) -> Value {
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

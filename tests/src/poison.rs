//! The real program with kinds that end or block it, restarted whenever it ends, with good tasks beside them
//! all the time.

pub mod supervisor;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::exchange::{Answer, exchange};
use crate::harness::{has_ended, path};
use crate::poison::supervisor::Supervisor;
use crate::scratch::Scratch;

/// Effect of a handler on its process. The names are those of the kinds in `examples/poison.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// It aborts the process.
    Abort,
    /// It overflows the stack, which ends the process.
    Overflow,
    /// It allocates memory without end, which ends the process if its memory is limited.
    Allocate,
    /// It blocks a thread for ever by sleeping.
    Block,
    /// It panics, which the program catches.
    Panic,
}

/// Tasks to submit.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Effects of the bad tasks.
    pub poisons: &'static [Poison],
    /// Number of bad tasks for each effect.
    pub each: usize,
    /// Number of attempts of each bad task.
    pub attempts: usize,
    /// Minimum number of good tasks. More are submitted until the last bad task has ended.
    pub good: usize,
}

/// Result of a run.
pub struct Outcome {
    /// Ended bad tasks.
    pub bad: Vec<(Poison, Value)>,
    /// Ended good tasks.
    pub good: Vec<Value>,
    /// Number of times that the program ended by itself and was restarted.
    pub restarts: usize,
    /// Longest wait for an answer of a running program.
    pub slowest: Duration,
}

/// Duration of a good task in seconds, long enough to be hit by a crash.
const WORK: f64 = 0.02;
/// Number of good tasks in one batch.
const HANDFUL: usize = 10;
/// Minimum pause between two batches.
const PACE: Duration = Duration::from_millis(100);
/// Pause before the next request to a program that is gone.
const PAUSE: Duration = Duration::from_millis(20);
/// Time limit of a run, far beyond its usual duration. It includes the minute after which a blocked program
/// ends.
const PATIENCE: Duration = Duration::from_mins(20);

impl Poison {
    /// Effects that show at once: three that end the process, and a panic.
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

    /// Returns true if the effect ends the process, at once or after a while.
    pub fn is_deadly(self) -> bool {
        self != Self::Panic
    }
}

impl Plan {
    /// Returns the maximum number of restarts: each attempt of a bad task ends the program once.
    pub fn most_restarts(&self) -> usize {
        self.poisons.iter().filter(|poison| poison.is_deadly()).count() * self.each * self.attempts
    }
}

/// Carries out the plan.
pub async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new()?;
    let supervisor = Supervisor::start(scratch.path().join("nobat.db")).await?;
    let mut users =
        Users { supervisor: &supervisor, submitted: 0, slowest: Duration::ZERO, begun: Instant::now() };
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

/// Client that submits tasks and polls them, even while the program restarts.
struct Users<'a> {
    supervisor: &'a Supervisor,
    submitted: usize,
    slowest: Duration,
    begun: Instant,
}

impl Users<'_> {
    /// Submits a batch of good tasks. Each has enough attempts to meet one crash after another.
    async fn good(&mut self, tasks: &mut Vec<Value>) {
        let task = json!({"kind": "noop", "payload": {"sleep": WORK}, "retry": {"max_attempts": 50, "initial_delay": 0.05, "max_delay": 0.5}});
        tasks.extend(self.submit(&task, HANDFUL).await);
    }

    async fn submit(&mut self, task: &Value, count: usize) -> Vec<Value> {
        self.submitted += 1;
        let (key, batch) =
            (format!("batch-{}", self.submitted), json!({"tasks": vec![task; count]}).to_string());
        let mut answer = self.ask("POST", "/v1/tasks/batch", &[("idempotency-key", &key)], &batch).await;
        let tasks = answer["data"].take();
        tasks.as_array().cloned().unwrap_or_else(|| panic!("the response has no tasks: {answer:#}"))
    }

    async fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &[], "").await
    }

    /// Repeats a request until there is an answer, which must be 200 or 202.
    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
        loop {
            assert!(self.begun.elapsed() < PATIENCE, "the run takes too long, at {method} {path}");
            let (address, asked) = (self.supervisor.address(), Instant::now());
            match exchange(address, method, path, headers, body).await {
                Ok(answer) => {
                    self.slowest = self.slowest.max(asked.elapsed());
                    return good(&answer);
                }
                // The program has ended, or is about to.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

fn good(answer: &Answer) -> Value {
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

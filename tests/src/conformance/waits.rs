//! Waits for the completions by receivers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::ports::{Delivery, ListQuery, Random, Settlement};
use nobat_core::service::backend::{Applied, ApplyError, Backend};
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_core::task::lifecycle::{Event, Retry, TransitionError};
use nobat_core::task::{
    CompletionToken, ErrorCode, KeyedRequest, Outcome, Status, Task, TaskError, TaskOrigin, Then,
    TokenDigest, TokenState, Wait,
};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_worker::execution::runner::Runner;
use nobat_worker::handler::Handler;
use nobat_worker::handler::context::TaskContext;
use nobat_worker::handler::failure::Failure;
use nobat_worker::handler::registry::Handlers;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::World;
use crate::sample;

/// Input of [`Later`].
#[derive(Clone, Copy, Debug, Deserialize)]
enum Script {
    Fail,
    Retry,
    Task,
    /// The receiver reports before it responds.
    CompleteDuringCall,
}

/// Handler of a receiver that accepts every call.
#[derive(Clone)]
struct Later {
    backend: Backend,
    now: Timestamp,
    tokens: Arc<Mutex<Vec<TokenDigest>>>,
}

impl Handler for Later {
    const KIND: &'static str = "later";
    type Input = Script;
    type Output = &'static str;

    fn wait(&self, script: &Script) -> Option<Wait> {
        let then = match script {
            Script::Fail | Script::CompleteDuringCall => Then::Fail,
            Script::Retry => Then::Retry,
            Script::Task => Then::Task(sample::json(r#"{"kind": "mail", "delay": 5}"#)),
        };
        Some(Wait { timeout: TIMEOUT, then })
    }

    async fn run(&self, script: Script, context: &TaskContext) -> Result<&'static str, Failure> {
        let token: CompletionToken = context.completion_token().unwrap_or_default().parse()?;
        let digest = token.digest();
        self.tokens.lock().unwrap().push(digest);
        if matches!(script, Script::CompleteDuringCall) {
            let completion = KeyedRequest::of_token(&digest, [1; 8]);
            let event = Event::CompleteByToken { digest, result: Json::null() };
            self.backend.apply_completion(&context.name, None, event, completion, self.now).await.unwrap();
        }
        Ok("accepted")
    }
}

const TIMEOUT: Duration = Duration::from_mins(10);

/// Source of numbers that differ.
struct Count(AtomicU64);

impl Random for Count {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Worker with the handler [`Later`].
struct Waiter<'a> {
    world: &'a World,
    runner: Runner,
    tokens: Arc<Mutex<Vec<TokenDigest>>>,
}

impl<'a> Waiter<'a> {
    fn new(world: &'a World) -> Self {
        let tokens = Arc::default();
        let later = Later { backend: world.backend.clone(), now: world.now(), tokens: Arc::clone(&tokens) };
        let random = Arc::new(Count(AtomicU64::new(7)));
        let handlers = Handlers::new().with(later);
        let clock = world.time.clock();
        let runner = Runner::new(world.backend.clone(), handlers, clock, random, ConfigEpoch::default());
        Self { world, runner, tokens }
    }

    /// Claims the task and runs the attempt.
    async fn run(&self, task: &Task) -> Task {
        let claimed = self.world.claim(task).await;
        let delivery = Delivery::Claimed(Box::new(claimed));
        let settlement = self.runner.run(delivery, &CancellationToken::new()).await;
        assert_eq!(settlement, Settlement::Acknowledge);
        self.world.get(task).await
    }

    /// Stores a task and runs its first attempt.
    async fn call(&self, number: u128, script: &str) -> Task {
        let task = sample::with_attempts(number, 2, self.world.now());
        let (kind, payload) = (sample::name("later"), sample::json(&format!("\"{script}\"")));
        let task = self.world.insert(Task { kind, payload, ..task }).await;
        self.run(&task).await
    }

    fn token(&self) -> TokenDigest {
        *self.tokens.lock().unwrap().last().unwrap()
    }

    fn status(&self, task: &Task) -> Status {
        task.status(self.world.now())
    }
}

async fn report(world: &World, task: &Task, event: Event, body: u8) -> Result<Applied, ApplyError> {
    let (Event::CompleteByToken { digest, .. } | Event::FailByToken { digest, .. }) = &event else {
        panic!("{event:?}")
    };
    let completion = KeyedRequest::of_token(digest, [body; 8]);
    world.backend.apply_completion(&task.key(), None, event, completion, world.now()).await
}

fn success(digest: TokenDigest) -> Event {
    Event::CompleteByToken { digest, result: sample::json(r#"{"done": 1.0}"#) }
}

fn failure(digest: TokenDigest, retry: Retry) -> Event {
    let error = TaskError::new("card_declined", "the bank declined the card");
    Event::FailByToken { digest, error, retry, policy: None, spread: JitterSample::from_bits(0) }
}

/// A task that waits takes one completion. A repetition changes nothing, and another completion is refused.
pub async fn accepted_call_waits_for_one_completion(world: World) {
    let waiter = Waiter::new(&world);
    let task = waiter.call(1, "Fail").await;
    assert_eq!((waiter.status(&task), task.due_at, task.attempt), (Status::Held, world.now() + TIMEOUT, 1));
    assert_eq!(task.token_state(&waiter.token()), TokenState::Live);
    assert_eq!(
        world.backend.wake(ListQuery::all(Tenant::default(), 10), |_| true, world.now()).await.unwrap(),
        0
    );
    let wrong = TokenDigest([7; 32]);
    let refused = report(&world, &task, success(wrong), 1).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Refused(TransitionError::NotWaiting)), "{refused}");
    assert_eq!(world.get(&task).await, task);

    world.time.advance(Duration::from_mins(9));
    let Applied::Done(done) = report(&world, &task, success(waiter.token()), 1).await.unwrap() else {
        panic!("the first completion is no repetition")
    };
    assert_eq!(waiter.status(&done), Status::Ended(Outcome::Succeeded));
    assert_eq!(done.result.as_ref().map(Json::get), Some(r#"{"done": 1.0}"#));
    assert_eq!(world.get(&task).await, done);
    let again = report(&world, &task, success(waiter.token()), 1).await.unwrap();
    assert_eq!(again, Applied::Repeated(done.clone()));
    let other = report(&world, &task, failure(waiter.token(), Retry::Backoff), 2).await.unwrap_err();
    assert!(matches!(other, ApplyError::Refused(TransitionError::KeyReused)), "{other}");
    assert_eq!(world.get(&task).await, done);
}

/// A completion can arrive before the response to the call. The worker's outcome then changes nothing.
pub async fn completion_during_the_call_ends_the_task(world: World) {
    let waiter = Waiter::new(&world);
    let task = waiter.call(1, "CompleteDuringCall").await;
    assert_eq!(waiter.status(&task), Status::Ended(Outcome::Succeeded));
    assert_eq!((task.attempts.len(), task.attempt), (1, 1));
    assert_eq!(task.token_state(&waiter.token()), TokenState::Spent);
}

/// Each attempt has a token of its own, and only the newest one is valid.
pub async fn reported_failure_is_retried_with_another_token(world: World) {
    let waiter = Waiter::new(&world);
    let task = waiter.call(1, "Fail").await;
    let first = waiter.token();
    report(&world, &task, failure(first, Retry::Backoff), 1).await.unwrap();
    world.time.advance(Duration::from_secs(1));
    let task = waiter.run(&world.get(&task).await).await;
    let second = waiter.token();
    assert_ne!(first, second);
    assert_eq!((task.token_state(&first), task.token_state(&second)), (TokenState::Spent, TokenState::Live));
    report(&world, &task, failure(second, Retry::Backoff), 1).await.unwrap();
    let task = world.get(&task).await;
    assert_eq!(waiter.status(&task), Status::Ended(Outcome::Failed), "no attempt is left");
    assert_eq!(task.error.as_ref().map(|error| error.code.as_str()), Some("card_declined"));
}

/// The claim of a wait that timed out ends its token, and the worker fails or retries the task.
pub async fn time_out_fails_or_retries_the_task(world: World) {
    let waiter = Waiter::new(&world);
    for (number, script, status) in
        [(1, "Fail", Status::Ended(Outcome::Failed)), (2, "Retry", Status::Retrying)]
    {
        let task = waiter.call(number, script).await;
        let token = waiter.token();
        world.time.advance(TIMEOUT);
        let claimed = world.claim(&task).await;
        assert!(claimed.is_wait_over());
        let late = report(&world, &task, success(token), 1).await.unwrap_err();
        assert!(matches!(late, ApplyError::Refused(TransitionError::NotWaiting)), "{late}");
        // The worker dies. Its claim is given back, and the next claim ends the wait.
        world.time.advance(LEASE);
        let spread = JitterSample::from_bits(0);
        let task = world.bring(&claimed, Event::LeaseExpired { spread }).await;
        let task = waiter.run(&task).await;
        assert_eq!((waiter.status(&task), task.attempt), (status, 1), "{script}");
        assert_eq!(task.error.as_ref().map(|error| error.code.as_str()), Some(ErrorCode::WAIT_TIMEOUT));
        assert_eq!(task.token_state(&token), TokenState::Spent);
        world.time.advance(Duration::from_secs(1));
        if status == Status::Retrying {
            let task = waiter.run(&task).await;
            assert_eq!((waiter.status(&task), task.attempt), (Status::Held, 2));
        }
    }
}

/// A wait that timed out creates one task, however often a worker dies before the end is stored.
pub async fn time_out_creates_one_task(world: World) {
    let waiter = Waiter::new(&world);
    let task = waiter.call(1, "Task").await;
    world.time.advance(TIMEOUT);
    let mut task = task;
    for _ in 0..2 {
        let claimed = world.claim(&task).await;
        let waits = waiter.runner.waits(world.now());
        let then = Then::Task(sample::json(r#"{"kind": "mail", "delay": 5}"#));
        waits.time_out(&claimed, &then, JitterSample::from_bits(0)).await.unwrap();
        // The worker dies before it stores the end.
        world.time.advance(LEASE);
        task = world.bring(&claimed, Event::LeaseExpired { spread: JitterSample::from_bits(0) }).await;
    }
    let task = waiter.run(&task).await;
    assert_eq!(waiter.status(&task), Status::Ended(Outcome::Failed));
    let query = ListQuery { kind: Some(sample::name("mail")), ..ListQuery::all(Tenant::default(), 10) };
    let created = world.backend.store.list(&query, world.now()).await.unwrap().tasks;
    let [created] = created.as_slice() else { panic!("{created:?}") };
    assert_eq!(created.options.origin, Some(TaskOrigin::Wait { task: task.id }));
    let error = task.error.as_ref().unwrap();
    assert_eq!(error.code.as_str(), ErrorCode::WAIT_TIMEOUT);
    assert!(error.message.contains(&created.id.to_string()), "{}", error.message);
}

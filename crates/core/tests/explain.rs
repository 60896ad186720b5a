//! Explanations of tasks that do not run: every case, with its exact text.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::config::endpoint::{Endpoint, EndpointStatus};
use nobat_core::config::queue::QueueConfig;
use nobat_core::json::Json;
use nobat_core::limits::{
    AcquireRequest, AcquireResult, BatchPolicy, BreakerPolicy, CallHealth, CallReport, HolderId, LimitScope,
    LimiterState, Limits, Permit, RateLimit, ScopedReservation,
};
use nobat_core::policy::decide;
use nobat_core::policy::explain::ExplanationView;
use nobat_core::policy::explain::{ExplainCode, ExplainInput, LimiterSnapshot, explain};
use nobat_core::task::retry::{RetryPolicy, Schedule};
use nobat_core::task::{
    Attempt, AttemptOutcome, CancelRequest, Completion, Held, HoldState, InheritedDefaults, Lease, Outcome,
    State, Task, TaskError, TaskOptions, Then, Waiting,
};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

const ME: HolderId = HolderId(1);

/// Returns the time `seconds` after 08:00:00. All explanations in this file are for 08:00:00.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000) + Duration::from_secs(seconds)
}

fn ago(seconds: u64) -> Timestamp {
    at(0) - Duration::from_secs(seconds)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn billing() -> LimitScope {
    LimitScope::Endpoint(name("billing"))
}

/// A task for the endpoint `billing`, that names the limit key `customer-42`.
fn task(state: State, due_at: Timestamp) -> Task {
    let settings = TaskOptions {
        endpoint: Some(name("billing")),
        limit_key: Some(name("customer-42")),
        ..TaskOptions::default()
    };
    Task {
        tenant: Tenant::new("acme").unwrap(),
        id: TaskId::new(ago(600), 7),
        kind: name("http"),
        queue: name("default"),
        payload: Json::null(),
        options: Box::new(settings),
        created_at: ago(600),
        generation_at: ago(600),
        generation: 1,
        due_at,
        state,
        version: 1,
        token: 0,
        attempt: 0,
        attempts: Vec::new(),
        result: None,
        error: None,
        progress: None,
        hold: HoldState::default(),
        requests: Vec::new(),
    }
}

fn scheduled(due_at: Timestamp) -> Task {
    task(State::Waiting(Waiting::Scheduled), due_at)
}

/// Task that is held for another minute.
fn held(reason: HeldReason) -> Task {
    let turn = HoldState { holds: 1, ..HoldState::default() };
    Task { hold: turn, ..task(State::Waiting(Waiting::Held(Held { reason })), at(60)) }
}

fn failed(attempt: u32, error: &str, of: Task) -> Task {
    Task { attempt, error: Some(TaskError::new(error, "the answer was 503")), ..of }
}

fn running(until: Timestamp, cancel: CancelRequest) -> Task {
    Task { attempt: 2, ..task(State::Running(Lease { until, started_at: ago(20), cancel }), ago(20)) }
}

fn ended(end: Outcome) -> Task {
    task(State::Ended(Completion { end, at: ago(5) }), ago(10))
}

fn endpoint() -> Endpoint {
    Endpoint::from_text(r#"{"url":"https://billing.example","created_at":"2027-01-01T00:00:00Z"}"#, 1)
        .unwrap()
}

/// Configuration and limiters that do not hold the task.
fn unobstructed() -> ExplainInput {
    ExplainInput { endpoint: Some(endpoint()), has_handler: true, ..ExplainInput::default() }
}

fn with(of: LimitScope, limits: Limits, limiter: LimiterState) -> ExplainInput {
    ExplainInput { limiters: vec![LimiterSnapshot { of, limits, limiter }], ..unobstructed() }
}

fn paused(queue: bool, kind: bool, status: EndpointStatus) -> ExplainInput {
    let mut around = unobstructed();
    (around.task_config.queue.paused, around.task_config.kind.paused) = (queue, kind);
    around.endpoint = Some(Endpoint { status, ..endpoint() });
    around
}

fn paced() -> Limits {
    Limits {
        rate: Some(RateLimit { rate: count(1), period: Duration::from_secs(10), burst: count(1) }),
        ..Limits::default()
    }
}

fn parallel() -> Limits {
    Limits { concurrency: Some(count(2)), ..Limits::default() }
}

fn breaker_limits() -> Limits {
    Limits {
        breaker: Some(BreakerPolicy { minimum_calls: count(1), ..BreakerPolicy::default() }),
        ..Limits::default()
    }
}

fn enter(limiter: &mut LimiterState, limits: &Limits, now: Timestamp) -> AcquireResult {
    limiter.acquire(
        limits,
        &AcquireRequest {
            holder: ME,
            reservation: None,
            has_due_reservation_elsewhere: false,
            holds: 0,
            jitter: JitterSample::from_bits(0),
        },
        now,
    )
}

fn go(limiter: &mut LimiterState, limits: &Limits, now: Timestamp) -> Permit {
    match enter(limiter, limits, now) {
        AcquireResult::Granted(pass) => pass,
        AcquireResult::Denied(wait) => panic!("{wait:?}"),
    }
}

/// Returns a limiter after one task started and its call was reported.
fn after(
    limits: &Limits,
    verdict: CallHealth,
    pause_until: Option<Timestamp>,
    now: Timestamp,
) -> LimiterState {
    let mut limiter = LimiterState::default();
    let pass = go(&mut limiter, limits, now);
    limiter.complete(
        limits,
        pass,
        ME,
        &CallReport { health: verdict, took: Duration::from_millis(50), pause_until },
        now,
    );
    limiter
}

/// Task that holds a reservation at a rate, with the state of its limiter.
fn promised() -> (Task, ExplainInput) {
    let mut limiter = LimiterState::default();
    go(&mut limiter, &paced(), at(0));
    let AcquireResult::Denied(wait) = enter(&mut limiter, &paced(), at(0)) else {
        panic!("the task starts at once")
    };
    let scoped = Some(ScopedReservation { scope: billing(), reservation: wait.reservation.unwrap() });
    let task = Task {
        due_at: wait.until,
        hold: HoldState { holds: 1, reservations: scoped.into(), deferrals: 0, completion: None },
        ..held(HeldReason::RateLimited)
    };
    (task, with(billing(), paced(), limiter))
}

fn busy() -> LimiterState {
    let mut limiter = LimiterState::default();
    for _ in 0..2 {
        go(&mut limiter, &parallel(), ago(1));
    }
    limiter
}

/// Task, its configuration and limiters, expected code, and expected sentence with times but no dates.
type Row = (Task, ExplainInput, &'static str, &'static str);

/// Row for a task that is held until 08:01: reason, configuration and limiters, expected code, expected
/// sentence, and expected blocker.
type HeldRow = (HeldReason, ExplainInput, &'static str, &'static str, Option<LimitScope>);

/// Sentence of a row.
fn short(reason: &str) -> String {
    reason.replace("2027-01-15T", "").replace(".000Z", "")
}

fn waiting() -> Vec<Row> {
    let mut late = scheduled(at(60));
    late.options.expires_at = Some(at(30));
    let mut over = scheduled(at(60));
    over.options.expires_at = Some(ago(1));
    let retrying = || failed(1, "http_503", task(State::Waiting(Waiting::Retrying), at(60)));
    let down =
        |open| with(billing(), breaker_limits(), after(&breaker_limits(), CallHealth::Bad, None, open));
    vec![
        (scheduled(at(60)), unobstructed(), "scheduled", "the task is due at 08:01:00"),
        (
            scheduled(at(60)),
            paused(true, false, EndpointStatus::Open),
            "scheduled",
            "the task is due at 08:01:00; the task will be held then, unless this changes: queue default is paused",
        ),
        (
            late,
            unobstructed(),
            "scheduled",
            "the task is due at 08:01:00; but its deadline is earlier, at 08:00:30",
        ),
        (
            over,
            unobstructed(),
            "deadline_passed",
            "the deadline passed before the task could start, and the task expires soon",
        ),
        (
            retrying(),
            unobstructed(),
            "backoff",
            "attempt 1 of 5 failed with http_503, and attempt 2 is made at 08:01:00",
        ),
        (
            retrying(),
            ExplainInput { endpoint: None, ..unobstructed() },
            "backoff",
            "attempt 1 of 5 failed with http_503, and attempt 2 is made at 08:01:00; the task will be held then, unless this changes: \
             endpoint billing no longer exists",
        ),
        (
            retrying(),
            down(ago(10)),
            "backoff",
            // A probe may start by then.
            "attempt 1 of 5 failed with http_503, and attempt 2 is made at 08:01:00",
        ),
        (
            scheduled(ago(1)),
            unobstructed(),
            "queued",
            "the task has been due since 07:59:59, and waits for a worker",
        ),
        (
            scheduled(ago(1)),
            paused(false, false, EndpointStatus::Paused),
            "queued",
            "the task has been due since 07:59:59, and waits for a worker; the task will be held then, unless this changes: endpoint billing is paused",
        ),
        (
            scheduled(ago(1)),
            down(ago(10)),
            "queued",
            "the task has been due since 07:59:59, and waits for a worker; the task will be held then, unless this changes: the circuit breaker of \
             endpoint billing has been open since 07:59:50, and the next probe may start at 08:00:20",
        ),
        (
            scheduled(ago(61)),
            ExplainInput { has_handler: false, ..unobstructed() },
            "no_worker",
            "the task has been due since 07:58:59, and no worker has claimed it: all are busy, or none runs; the task will be held then, unless \
             this changes: this installation has no handler for kind http",
        ),
        (
            Task { due_at: ago(1), ..held(HeldReason::RateLimited) },
            unobstructed(),
            "queued",
            "the task has been due since 07:59:59, and waits for a worker",
        ),
    ]
}

fn begun() -> Vec<Row> {
    let mut left = running(at(40), CancelRequest::Requested);
    left.options.left = InheritedDefaults { timeout: false, retry: true };
    let mut queue_has_it = unobstructed();
    queue_has_it.task_config.queue.retry =
        Some(RetryPolicy { schedule: Schedule::Delays(vec![Duration::ZERO; 2]), max_age: None });
    let none = ExplainInput::default;
    vec![
        (
            running(at(40), CancelRequest::None),
            unobstructed(),
            "running",
            "attempt 2 of 5 has been running since 07:59:40, under a lease until 08:00:40",
        ),
        (
            left,
            queue_has_it,
            "running",
            "attempt 2 of 3 has been running since 07:59:40, under a lease until 08:00:40, and a client requested its cancellation",
        ),
        (
            running(ago(1), CancelRequest::None),
            unobstructed(),
            "lease_expired",
            "attempt 2 of 5 began at 07:59:40, but its worker did not renew the lease, which expired at 07:59:59",
        ),
        (ended(Outcome::Succeeded), none(), "succeeded", "the task succeeded at 07:59:55"),
        (
            failed(5, "http_503", ended(Outcome::Failed)),
            none(),
            "failed",
            "the task failed at 07:59:55, after 5 of 5 attempts, with http_503: the answer was 503",
        ),
        (ended(Outcome::Failed), none(), "failed", "the task failed at 07:59:55"),
        (ended(Outcome::Canceled), none(), "canceled", "the task was canceled at 07:59:55"),
        (
            ended(Outcome::Expired),
            none(),
            "expired",
            "the task expired at 07:59:55, because its deadline passed before it could start",
        ),
    ]
}

/// Holds that last until a client ends them. The stored reason of the hold does not matter.
fn held_until_a_client_acts() -> Vec<HeldRow> {
    let (queue, kind) = (LimitScope::Queue(name("default")), LimitScope::Kind(name("http")));
    let both = paused(false, true, EndpointStatus::Paused);
    let strange = ExplainInput { has_handler: false, ..unobstructed() };
    vec![
        (
            HeldReason::Paused,
            paused(true, false, EndpointStatus::Open),
            "paused",
            "queue default is paused",
            Some(queue),
        ),
        (HeldReason::Paused, both, "paused", "kind http and endpoint billing are paused", Some(kind.clone())),
        (
            HeldReason::RateLimited,
            paused(false, false, EndpointStatus::Paused),
            "paused",
            "endpoint billing is paused",
            Some(billing()),
        ),
        (
            HeldReason::EndpointGone,
            paused(false, false, EndpointStatus::Gone),
            "endpoint_gone",
            "endpoint billing responded with 410 Gone",
            Some(billing()),
        ),
        (
            HeldReason::Paused,
            ExplainInput { endpoint: None, ..unobstructed() },
            "endpoint_missing",
            "endpoint billing no longer exists",
            Some(billing()),
        ),
        (
            HeldReason::SecretUnavailable,
            unobstructed(),
            "secret_unavailable",
            "the signing secret or a header of endpoint billing could not be read",
            Some(billing()),
        ),
        (
            HeldReason::NoHandler,
            strange,
            "no_handler",
            "this installation has no handler for kind http",
            Some(kind),
        ),
        (
            HeldReason::LimiterUnavailable,
            unobstructed(),
            "limiter_unavailable",
            "the task's configuration or the state of a limiter could not be read",
            None,
        ),
        (
            HeldReason::ResourceExhausted,
            unobstructed(),
            "resource_exhausted",
            "the worker's process lacked file handles, ports, memory or DNS look-ups for the call",
            None,
        ),
        (
            HeldReason::Other,
            unobstructed(),
            "other",
            "a later version of nobat holds the task for a reason that this version does not know",
            None,
        ),
    ]
}

/// Holds by limits.
fn held_by_limits() -> Vec<HeldRow> {
    let key = LimitScope::Key(name("customer-42"));
    let down =
        |open| with(billing(), breaker_limits(), after(&breaker_limits(), CallHealth::Bad, None, open));
    let mut probing = down(ago(40));
    go(&mut probing.limiters[0].limiter, &breaker_limits(), ago(5));
    let resting = |of: &LimitScope, until| {
        let limiter = after(&Limits::default(), CallHealth::Unknown, Some(until), ago(1));
        with(of.clone(), Limits::default(), limiter)
    };
    vec![
        (
            HeldReason::RateLimited,
            with(key.clone(), paced(), after(&paced(), CallHealth::Good, None, at(0))),
            "rate_limited",
            "limit key customer-42 has a rate of 1 every 10 s (reserved starts: 0)",
            Some(key.clone()),
        ),
        (
            HeldReason::ConcurrencyLimited,
            with(LimitScope::Tenant, parallel(), busy()),
            "concurrency_limited",
            "tenant acme has a concurrency of 2, and all slots are in use",
            Some(LimitScope::Tenant),
        ),
        (
            HeldReason::CircuitOpen,
            down(ago(10)),
            "circuit_open",
            "the circuit breaker of endpoint billing has been open since 07:59:50, and the next probe may start at 08:00:20",
            Some(billing()),
        ),
        (
            HeldReason::CircuitOpen,
            down(ago(40)),
            "circuit_open",
            "the circuit breaker of endpoint billing has been open since 07:59:20, and the next probe may start now",
            Some(billing()),
        ),
        (
            HeldReason::CircuitOpen,
            probing,
            "circuit_open",
            "the circuit breaker of endpoint billing has been open since 07:59:20, and a probe is running",
            Some(billing()),
        ),
        (
            HeldReason::RetryAfter,
            resting(&key, at(60)),
            "retry_after",
            "the receiver asked for a pause of limit key customer-42 until 08:01:00",
            Some(key),
        ),
        // The stored pause was ended, and the receiver has asked for another pause.
        (
            HeldReason::Paused,
            resting(&billing(), at(90)),
            "retry_after",
            "the receiver asked for a pause of endpoint billing until 08:01:30",
            Some(billing()),
        ),
    ]
}

/// Holds whose reason no longer applies.
fn unblocked() -> Vec<HeldRow> {
    let limiter = |limits, limiter| with(billing(), limits, limiter);
    let mut well = after(&breaker_limits(), CallHealth::Bad, None, ago(40));
    let probe = go(&mut well, &breaker_limits(), ago(5));
    well.complete(
        &breaker_limits(),
        probe,
        ME,
        &CallReport { health: CallHealth::Good, took: Duration::ZERO, pause_until: None },
        ago(4),
    );
    let row = |reason, around, over| (reason, around, "unblocked", over, None);
    let (room, free) = ("the rate limit was reached, and a start is free now", LimiterState::default);
    vec![
        row(
            HeldReason::Paused,
            unobstructed(),
            "the task's queue, kind or endpoint was paused, and none of them is paused now",
        ),
        row(
            HeldReason::EndpointGone,
            unobstructed(),
            "endpoint billing had responded with 410 Gone, and is in use again",
        ),
        row(HeldReason::EndpointMissing, unobstructed(), "endpoint billing did not exist, and exists now"),
        row(HeldReason::RateLimited, limiter(Limits::default(), free()), room),
        row(HeldReason::RateLimited, limiter(paced(), free()), room),
        row(
            HeldReason::ConcurrencyLimited,
            limiter(parallel(), free()),
            "the concurrency limit was reached, and a slot is free now",
        ),
        row(
            HeldReason::CircuitOpen,
            limiter(breaker_limits(), well),
            "the circuit breaker of endpoint billing was open, and is closed now",
        ),
        row(HeldReason::RetryAfter, unobstructed(), "the pause that the receiver asked for is over"),
        row(
            HeldReason::Batching,
            unobstructed(),
            "the task waited for a batch, and endpoint billing has no batches now",
        ),
        row(
            HeldReason::NoHandler,
            unobstructed(),
            "the worker that claimed the task had no handler for kind http, and this installation has one now",
        ),
    ]
}

#[test]
fn every_case_has_its_code_and_sentence() {
    let mut said = BTreeSet::new();
    for (task, around, code, reason) in waiting().into_iter().chain(begun()) {
        let found = explain(&task, &around, at(0));
        assert_eq!((found.code.as_str(), short(&found.reason).as_str(), found.by), (code, reason, None));
        let until = match (&task.state, code) {
            (State::Waiting(_), "scheduled" | "backoff") | (State::Running(_), "running") => task.wake_at(),
            _ => None,
        };
        assert_eq!(found.until, until, "{reason}");
        said.insert(code);
    }
    for (stored, around, code, reason, by) in
        [held_until_a_client_acts(), held_by_limits(), unblocked()].concat()
    {
        let found = explain(&held(stored), &around, at(0));
        assert_eq!(
            (found.code.as_str(), short(&found.reason)),
            (code, format!("{reason}; the task tries again at 08:01:00"))
        );
        assert_eq!((found.until, found.by), (Some(at(60)), by), "{reason}");
        said.insert(code);
    }
    // Batching and waiting have tests of their own.
    said.extend([HeldReason::Batching.as_str(), HeldReason::Waiting.as_str()]);
    assert_eq!(said, ExplainCode::all().map(ExplainCode::as_str).collect(), "every code has a case");
}

#[test]
fn waiting_task_names_its_time_out_and_what_follows() {
    let attempt = Attempt {
        number: 1,
        started_at: ago(21),
        finished_at: ago(20),
        outcome: AttemptOutcome::Waiting,
        error: None,
    };
    let task = Task { attempts: vec![attempt], ..held(HeldReason::Waiting) };
    let start = "the receiver accepted the call at 07:59:40, and the task waits for its completion; without a completion by 08:01:00, ";
    let template = Then::Task(Json::null());
    for (then, end) in [
        (None, "the wait ends with wait_timeout"),
        (Some(Then::Fail), "the task fails with wait_timeout"),
        (Some(Then::Retry), "the attempt counts as failed with wait_timeout"),
        (Some(template), "nobat creates the task in `wait.then`, and this task fails with wait_timeout"),
    ] {
        // A pause of the queue does not affect a wait.
        let around = ExplainInput { then, ..paused(true, false, EndpointStatus::Open) };
        let found = explain(&task, &around, at(0));
        assert_eq!((found.code.as_str(), short(&found.reason)), ("waiting", format!("{start}{end}")));
        assert_eq!((found.until, found.by), (Some(at(60)), None));
    }
    let over = explain(&Task { due_at: ago(1), ..task }, &unobstructed(), at(0));
    let reason = "the wait for the receiver's completion timed out at 07:59:59, and a worker must end it";
    assert_eq!((over.code.as_str(), short(&over.reason).as_str()), ("queued", reason));
}

#[test]
fn reservation_is_shown_while_it_is_valid() {
    let (task, around) = promised();
    let found = explain(&task, &around, at(0));
    let reason = "endpoint billing has a rate of 1 every 10 s (reserved starts: 1); the task's start is reserved for 08:00:10.200Z";
    assert_eq!(
        (found.code, short(&found.reason).as_str()),
        (ExplainCode::Held(HeldReason::RateLimited), reason)
    );
    assert_eq!((found.until, found.by), (Some(task.due_at), Some(billing())));
    let mut changed = around.clone();
    changed.limiters[0].limits.rate =
        Some(RateLimit { rate: count(2), period: Duration::from_secs(10), burst: count(1) });
    let reason = "endpoint billing has a rate of 2 every 10 s (reserved starts: 0); the task tries again at 08:00:10.200Z";
    assert_eq!(
        short(&explain(&task, &changed, at(0)).reason),
        reason,
        "a reservation at another rate is void"
    );
    changed.limiters[0].limits.rate = None;
    assert_eq!(explain(&task, &changed, at(0)).code, ExplainCode::Unblocked);
}

#[test]
fn batching_task_names_batch_size_and_wait() {
    let batch =
        BatchPolicy { max_items: count(100), max_wait: Duration::from_secs(5), per_item_results: false };
    let mut around =
        ExplainInput { endpoint: Some(Endpoint { batch: Some(batch), ..endpoint() }), ..unobstructed() };
    let task = held(HeldReason::Batching);
    let found = explain(&task, &around, at(0));
    let reason = "the task waits up to 5 s for a batch of at most 100 tasks to endpoint billing; unless the batch starts before, the task tries \
         again at 08:01:00";
    assert_eq!(
        (found.code, short(&found.reason).as_str()),
        (ExplainCode::Held(HeldReason::Batching), reason)
    );
    assert_eq!((found.until, found.by), (Some(at(60)), Some(billing())));
    let down = after(&breaker_limits(), CallHealth::Bad, Some(at(90)), ago(1));
    around.limiters = vec![LimiterSnapshot { of: billing(), limits: breaker_limits(), limiter: down }];
    assert_eq!(
        explain(&task, &around, at(0)).code,
        ExplainCode::Held(HeldReason::RetryAfter),
        "the pause holds every batch"
    );
}

#[test]
fn pause_of_one_attempt_holds_only_its_task() {
    let task =
        Task { hold: HoldState { deferrals: 1, ..HoldState::default() }, ..held(HeldReason::RetryAfter) };
    let found = explain(&task, &unobstructed(), at(0));
    let reason = "the receiver asked for a pause in its last response; the task tries again at 08:01:00";
    assert_eq!(
        (found.code, short(&found.reason).as_str()),
        (ExplainCode::Held(HeldReason::RetryAfter), reason)
    );
    assert_eq!(found.by, Some(LimitScope::Key(name("customer-42"))));
}

#[test]
fn every_code_is_listed_once() {
    let words: Vec<&str> = ExplainCode::all().map(ExplainCode::as_str).collect();
    assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
}

#[test]
fn view_shows_the_stored_hold_and_the_current_reason() {
    let task = failed(1, "http_503", held(HeldReason::Paused));
    let around = paused(true, false, EndpointStatus::Open);
    let view = ExplanationView::new(&task, explain(&task, &around, at(0)), at(0));
    let shown = serde_json::to_value(&view).unwrap();
    let expected = serde_json::json!({
        "id": task.id.to_string(),
        "status": "held",
        "code": "paused",
        "reason": "queue default is paused; the task tries again at 2027-01-15T08:01:00.000Z",
        "until": "2027-01-15T08:01:00.000Z",
        "blocked_by": {"type": "queue", "name": "default"},
        "attempt": 1,
        "max_attempts": 5,
        "held": {"reason": "paused", "until": "2027-01-15T08:01:00.000Z"},
        "error": {"code": "http_503", "message": "the answer was 503"},
    });
    assert_eq!(shown, expected);
}

#[test]
fn limiters_are_listed_endpoint_first_if_they_have_limits() {
    let task = scheduled(at(0));
    let mut around = unobstructed();
    around.limit_key = Some(QueueConfig { limits: paced(), ..QueueConfig::default() });
    let of = |around: &ExplainInput| -> Vec<LimitScope> {
        decide(&task, around.configuration()).limiters.into_iter().map(|(of, _)| of).collect()
    };
    let key_of = LimitScope::Key(name("customer-42"));
    assert_eq!(of(&around), [billing(), key_of.clone()]);
    around.task_config.queue.limits = parallel();
    around.task_config.tenant = paced();
    assert_eq!(of(&around), [billing(), key_of, LimitScope::Queue(name("default")), LimitScope::Tenant]);
}

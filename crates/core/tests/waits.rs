//! Compares waits for completions with a reference model, and checks the end of each wait.

use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::limits::Reservations;
use nobat_core::task::lifecycle::{Change, Event, ReplayKey, Retry, TransitionError, overdue, transition};
use nobat_core::task::retry::{RetryPolicy, Schedule};
use nobat_core::task::{
    AttemptOutcome, CompletionToken, ErrorCode, Held, HoldState, KeyedRequest, Outcome, State, Status, Task,
    TaskError, TaskOptions, TokenDigest, TokenState, Waiting,
};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use proptest::prelude::*;

const START: Timestamp = Timestamp::EPOCH;
const TIMEOUT: Duration = Duration::from_mins(10);
const LEASE: Duration = Duration::from_mins(1);

fn task() -> Task {
    let delays = [10, 20].map(Duration::from_secs).to_vec();
    Task {
        tenant: Tenant::default(),
        id: TaskId::new(START, 7),
        kind: Name::new("http").unwrap(),
        queue: Name::new("default").unwrap(),
        payload: Json::null(),
        options: Box::new(TaskOptions {
            retry: RetryPolicy { schedule: Schedule::Delays(delays), max_age: None },
            ..TaskOptions::default()
        }),
        created_at: START,
        generation_at: START,
        generation: 1,
        due_at: START,
        state: State::Waiting(Waiting::Scheduled),
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

fn digest(number: u8) -> TokenDigest {
    CompletionToken::new(Tenant::default(), [number; 32]).digest()
}

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn spread() -> JitterSample {
    JitterSample::from_bits(0)
}

fn step(task: Task, event: Event, now: Timestamp) -> Task {
    transition(task, event, now).unwrap_or_else(|refused| panic!("{refused}")).task
}

fn claim(task: Task, now: Timestamp) -> Task {
    step(task, Event::Claim { until: now + LEASE }, now)
}

/// Claims the task and issues a token.
fn calling(task: Task, number: u8, now: Timestamp) -> Task {
    let task = claim(task, now);
    let token = task.token;
    step(task, Event::IssueToken { token, digest: digest(number) }, now)
}

fn accepted(task: Task, now: Timestamp) -> Task {
    let event = Event::Wait { token: task.token, result: Json::null(), until: now + TIMEOUT };
    step(task, event, now)
}

/// Task whose first attempt was accepted at 1 s.
fn waiting() -> Task {
    accepted(calling(task(), 1, START), at(1))
}

fn success(number: u8) -> Event {
    Event::CompleteByToken { digest: digest(number), result: Json::from_text("7".to_owned()).unwrap() }
}

fn failure(number: u8, retry: Retry) -> Event {
    let error = TaskError::new("card_declined", "the bank declined the card");
    Event::FailByToken { digest: digest(number), error, retry, policy: None, spread: spread() }
}

fn time_out(task: &Task, retry: Retry) -> Event {
    let error = TaskError::new(ErrorCode::WAIT_TIMEOUT, "no completion");
    Event::TimeOut { token: task.token, error, retry, policy: None, spread: spread() }
}

fn outcomes(task: &Task) -> Vec<AttemptOutcome> {
    task.attempts.iter().map(|attempt| attempt.outcome).collect()
}

fn error_code(task: &Task) -> Option<&str> {
    task.error.as_ref().map(|error| error.code.as_str())
}

#[test]
fn accepted_call_waits_until_the_time_out() {
    let task = waiting();
    assert_eq!(task.status(at(2)), Status::Held);
    assert_eq!(task.state, State::Waiting(Waiting::Held(Held { reason: HeldReason::Waiting })));
    assert_eq!((task.due_at, task.attempt, task.result.as_ref()), (at(601), 1, None));
    assert_eq!(outcomes(&task), [AttemptOutcome::Waiting]);
    assert_eq!(task.token_state(&digest(1)), TokenState::Live);
    assert_eq!(task.token_state(&digest(2)), TokenState::Unknown);
    assert_eq!(transition(task, Event::Wake, at(2)).unwrap_err(), TransitionError::NotHeld);
}

#[test]
fn completion_ends_the_task_after_and_during_the_call() {
    for (task, result) in [(waiting(), at(9)), (calling(task(), 1, START), at(9))] {
        let done = step(task.clone(), success(1), result);
        assert_eq!(done.status(at(9)), Status::Ended(Outcome::Succeeded));
        assert_eq!((done.result.as_ref().map(Json::get), error_code(&done)), (Some("7"), None));
        assert_eq!(outcomes(&done), [AttemptOutcome::Succeeded]);
        assert_eq!(done.attempts[0].finished_at, at(9));
        let failed = step(task.clone(), failure(1, Retry::Never), at(9));
        assert_eq!(failed.status(at(9)), Status::Ended(Outcome::Failed));
        assert_eq!(error_code(&failed), Some("card_declined"));
        assert_eq!(outcomes(&failed), [AttemptOutcome::Failed]);
        let again = step(task.clone(), failure(1, Retry::Backoff), at(9));
        assert_eq!((again.status(at(9)), again.due_at, again.attempt), (Status::Retrying, at(19), 1));
        assert_eq!(transition(again, success(1), at(9)).unwrap_err(), TransitionError::NotWaiting);
        assert_eq!(transition(done, success(1), at(9)).unwrap_err(), TransitionError::Ended);
        assert_eq!(transition(task, success(2), at(9)).unwrap_err(), TransitionError::NotWaiting);
    }
}

#[test]
fn outcome_of_a_worker_after_a_report_is_refused() {
    let task = calling(task(), 1, START);
    let token = task.token;
    for report in [success(1), failure(1, Retry::Backoff)] {
        let reported = step(task.clone(), report, at(1));
        let late = Event::Wait { token, result: Json::null(), until: at(601) };
        assert_eq!(transition(reported, late, at(2)).unwrap_err(), TransitionError::StaleToken);
    }
}

#[test]
fn claim_of_a_timed_out_wait_ends_the_token() {
    let task = claim(waiting(), at(601));
    assert!(task.is_wait_over());
    assert_eq!(task.token_state(&digest(1)), TokenState::Spent);
    assert_eq!(transition(task.clone(), success(1), at(602)).unwrap_err(), TransitionError::NotWaiting);
    let failed = step(task.clone(), time_out(&task, Retry::Never), at(602));
    assert_eq!(failed.status(at(602)), Status::Ended(Outcome::Failed));
    assert_eq!((error_code(&failed), failed.attempt), (Some("wait_timeout"), 1));
    assert_eq!(outcomes(&failed), [AttemptOutcome::Failed]);
    let again = step(task.clone(), time_out(&task, Retry::Backoff), at(602));
    assert_eq!((again.status(at(602)), again.due_at, again.attempt), (Status::Retrying, at(612), 1));
    assert_eq!(again.token_state(&digest(1)), TokenState::Spent);
    let second = calling(again, 2, at(612));
    assert!(!second.is_wait_over());
    assert_eq!((second.attempt, second.token_state(&digest(2))), (2, TokenState::Live));
    assert_eq!(second.token_state(&digest(1)), TokenState::Spent);
}

#[test]
fn last_attempt_that_times_out_fails() {
    let mut task = waiting();
    for (number, status) in
        [(2, Status::Retrying), (3, Status::Retrying), (4, Status::Ended(Outcome::Failed))]
    {
        let over = claim(task.clone(), task.due_at);
        let ended = step(over.clone(), time_out(&over, Retry::Backoff), task.due_at);
        assert_eq!(ended.status(task.due_at), status);
        if status == Status::Retrying {
            let due = ended.due_at;
            task = accepted(calling(ended, number, due), due);
        } else {
            task = ended;
        }
    }
    assert_eq!((task.attempt, outcomes(&task)), (3, vec![AttemptOutcome::Failed; 3]));
}

#[test]
fn worker_that_dies_before_the_end_of_a_wait_loses_nothing() {
    let over = claim(waiting(), at(601));
    let token = over.token;
    let crash = overdue(&over, spread(), at(661)).unwrap();
    for (event, now) in
        [(crash, at(661)), (Event::Release { token }, at(602)), (Event::Interrupt { token }, at(602))]
    {
        let back = step(over.clone(), event, now);
        assert_eq!((back.status(now), back.due_at, back.attempt), (Status::Queued, now, 1));
        assert_eq!(back.token_state(&digest(1)), TokenState::Spent, "the time-out is final");
        assert_eq!(outcomes(&back), [AttemptOutcome::Waiting]);
        assert!(claim(back, now).is_wait_over());
    }
    let reason = HeldReason::NoHandler;
    let hold = Event::Hold { token, reason, until: at(700), reserved: Reservations::default() };
    let later = step(over, hold, at(602));
    assert_eq!((later.attempt, later.status(at(602))), (1, Status::Held));
    assert!(claim(later, at(700)).is_wait_over());
}

#[test]
fn failed_call_spends_its_token() {
    let task = calling(task(), 1, START);
    let token = task.token;
    let error = TaskError::new("http_503", "the destination answered 503");
    let failed = Event::Fail { token, error, retry: Retry::Backoff, policy: None, spread: spread() };
    let until = at(60);
    let hold = Event::Hold {
        token,
        reason: HeldReason::SecretUnavailable,
        until,
        reserved: Reservations::default(),
    };
    for event in [failed, hold, Event::Release { token }, Event::Interrupt { token }] {
        let after = step(task.clone(), event, at(1));
        assert_eq!(after.token_state(&digest(1)), TokenState::Spent);
        let due = after.due_at;
        assert!(!claim(after, due).is_wait_over());
    }
}

#[test]
fn wait_ends_with_a_cancellation_a_deadline_and_a_replay() {
    let canceled = step(waiting(), Event::Cancel, at(5));
    assert_eq!(canceled.status(at(5)), Status::Ended(Outcome::Canceled));
    assert_eq!(outcomes(&canceled), [AttemptOutcome::Canceled]);
    assert_eq!(transition(canceled.clone(), success(1), at(6)).unwrap_err(), TransitionError::Ended);
    let mut task = waiting();
    task.options.expires_at = Some(at(30));
    let expired = step(task.clone(), overdue(&task, spread(), at(30)).unwrap(), at(30));
    assert_eq!(expired.status(at(30)), Status::Ended(Outcome::Expired));
    assert_eq!((outcomes(&expired), error_code(&expired)), (vec![AttemptOutcome::Failed], Some("expired")));
    let replayed = step(canceled, Event::Replay { key: ReplayKey::Same, generation: None }, at(7));
    assert_eq!(replayed.token_state(&digest(1)), TokenState::Spent);
    assert!(!claim(replayed, at(7)).is_wait_over());
}

#[test]
fn task_canceled_during_its_call_does_not_wait() {
    let asked = step(calling(task(), 1, START), Event::Cancel, at(1));
    assert_eq!(accepted(asked.clone(), at(2)).status(at(2)), Status::Ended(Outcome::Canceled));
    let retried = step(asked.clone(), failure(1, Retry::Backoff), at(2));
    assert_eq!(retried.status(at(2)), Status::Ended(Outcome::Canceled));
    assert_eq!(step(asked, success(1), at(2)).status(at(2)), Status::Ended(Outcome::Succeeded));
}

/// Generated event.
#[derive(Clone, Copy, Debug)]
enum Op {
    Claim,
    Issue,
    Wait,
    Success(u8),
    Failure(u8, Retry),
    TimeOut(Retry),
    Fail,
    Release,
    Hold,
    Interrupt,
    LeaseExpired,
    Cancel,
    Expire,
    Replay,
}

fn ops() -> impl Strategy<Value = Op> {
    let retries = || prop_oneof![Just(Retry::Backoff), Just(Retry::Never)];
    prop_oneof![
        8 => Just(Op::Claim),
        8 => Just(Op::Issue),
        8 => Just(Op::Wait),
        2 => (0_u8..3).prop_map(Op::Success),
        3 => (0_u8..3, retries()).prop_map(|(age, retry)| Op::Failure(age, retry)),
        4 => retries().prop_map(Op::TimeOut),
        1 => Just(Op::Fail),
        1 => Just(Op::Release),
        1 => Just(Op::Hold),
        1 => Just(Op::Interrupt),
        2 => Just(Op::LeaseExpired),
        1 => Just(Op::Cancel),
        1 => Just(Op::Expire),
        2 => Just(Op::Replay),
    ]
}

/// Reference model: the tokens and the wait, without the rest of the task.
#[derive(Default)]
struct Model {
    /// Number of tokens that the task has issued. The last one can be live.
    issued: u8,
    is_live: bool,
    /// True from the response that means acceptance until the wait ends.
    is_waiting: bool,
    /// True from the claim that notices a time-out until the time-out is applied.
    is_over: bool,
}

impl Model {
    /// Returns the event, or `None` if the generated one means nothing for this task.
    fn event(&self, op: Op, task: &Task, now: Timestamp) -> Event {
        let token = task.token;
        let older = |age: u8| self.issued.wrapping_sub(age);
        match op {
            Op::Claim => Event::Claim { until: now + LEASE },
            Op::Issue => Event::IssueToken { token, digest: digest(self.issued + 1) },
            Op::Wait => Event::Wait { token, result: Json::null(), until: now + TIMEOUT },
            Op::Success(age) => success(older(age)),
            Op::Failure(age, retry) => failure(older(age), retry),
            Op::TimeOut(retry) => time_out(task, retry),
            Op::Fail => Event::Fail {
                token,
                error: TaskError::new("broken", "it broke"),
                retry: Retry::Backoff,
                policy: None,
                spread: spread(),
            },
            Op::Release => Event::Release { token },
            Op::Hold => Event::Hold {
                token,
                reason: HeldReason::Paused,
                until: now,
                reserved: Reservations::default(),
            },
            Op::Interrupt => Event::Interrupt { token },
            Op::LeaseExpired => Event::LeaseExpired { spread: spread() },
            Op::Cancel => Event::Cancel,
            Op::Expire => Event::Expire,
            Op::Replay => Event::Replay { key: ReplayKey::Same, generation: None },
        }
    }

    /// Returns true if the worker of this version never applies the event to such a task.
    fn is_foreign(&self, op: Op) -> bool {
        match op {
            Op::Issue | Op::Wait | Op::Fail => self.is_over,
            _ => false,
        }
    }

    /// Follows an event that was applied.
    fn follow(&mut self, op: Op, before: &Task, after: &Task) {
        match op {
            Op::Claim => {
                self.is_over |= self.is_waiting;
                (self.is_waiting, self.is_live) = (false, false);
            }
            Op::Issue => {
                self.issued += 1;
                self.is_live = true;
            }
            Op::Wait => self.is_waiting = true,
            Op::Success(_) | Op::Failure(..) => (self.is_live, self.is_waiting) = (false, false),
            Op::TimeOut(_) => self.is_over = false,
            Op::Cancel if matches!(before.state, State::Running(_)) => {}
            Op::Cancel
            | Op::Fail
            | Op::Release
            | Op::Hold
            | Op::Interrupt
            | Op::LeaseExpired
            | Op::Expire => {
                (self.is_live, self.is_waiting) = (false, false);
            }
            Op::Replay => (self.is_live, self.is_waiting, self.is_over) = (false, false, false),
        }
        if matches!(after.state, State::Ended(_)) {
            (self.is_live, self.is_waiting, self.is_over) = (false, false, false);
        }
    }

    fn check(&self, task: &Task, now: Timestamp) -> Result<(), TestCaseError> {
        let is_running = matches!(task.state, State::Running(_));
        prop_assert_eq!(task.is_wait_over(), self.is_over && is_running);
        let waiting =
            task.attempts.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Waiting).count();
        prop_assert_eq!(waiting, usize::from(self.is_waiting || self.is_over), "an attempt waits");
        if self.is_waiting {
            prop_assert_eq!(
                task.wake_at().is_some_and(|wake_at| wake_at > now),
                task.status(now) == Status::Held
            );
        }
        for number in self.issued.saturating_sub(10)..=self.issued {
            let state = match number {
                0 => TokenState::Unknown,
                number if number == self.issued && self.is_live => TokenState::Live,
                _ => TokenState::Spent,
            };
            prop_assert_eq!(task.token_state(&digest(number)), state, "token {} of {}", number, self.issued);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn waits_follow_the_model(ops in prop::collection::vec((ops(), 0_u64..700), 1..80)) {
        let (mut task, mut model, mut now) = (task(), Model::default(), START);
        task.options.expires_at = Some(at(40_000));
        for (op, seconds) in ops {
            now = now + Duration::from_secs(seconds);
            if model.is_foreign(op) {
                continue;
            }
            let is_report = match op {
                Op::Success(age) | Op::Failure(age, _) => Some(age == 0 && model.is_live),
                _ => None,
            };
            match transition(task.clone(), model.event(op, &task, now), now) {
                Ok(Change { task: mut after, .. }) => {
                    prop_assert!(is_report != Some(false), "a spent token changes nothing");
                    if is_report.is_some() {
                        // As `Backend::apply_completion` does in the same write.
                        after.remember(KeyedRequest::of_token(&digest(model.issued), [1; 8]));
                    }
                    model.follow(op, &task, &after);
                    task = after;
                }
                Err(refused) => {
                    prop_assert!(is_report != Some(true), "a live token was refused: {refused}");
                }
            }
            model.check(&task, now)?;
        }
    }
}

/// Each attempt of a task with `wait` spends a token. The idempotency keys of clients stay known.
#[test]
fn spent_tokens_displace_no_idempotency_keys() {
    let mut task = task();
    let key = KeyedRequest { key: [1; 16], body: [2; 8] };
    task.remember(key);
    for number in 0..40 {
        task.remember(KeyedRequest::of_token(&digest(number), [0; 8]));
    }
    assert_eq!(task.requests.len(), Task::KEPT_REQUESTS);
    assert_eq!(task.earlier(KeyedRequest { body: [3; 8], ..key }), Some(key));
    let newest = KeyedRequest::of_token(&digest(39), [0; 8]);
    assert_eq!(task.requests.last(), Some(&newest));
}

//! Compares the lifecycle with a reference model. The model was written from the design alone, and is too
//! simple to have the same errors.

use std::collections::BTreeSet;
use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::limits::{LimitScope, Reservation, Reservations, ScopedReservation};
use nobat_core::task::callback::Callback;
use nobat_core::task::lifecycle::{Change, Event, ReplayKey, Retry, TransitionError, overdue, transition};
use nobat_core::task::retry::{RetryPolicy, Schedule};
use nobat_core::task::{
    AttemptOutcome, CancelRequest, Held, HoldState, Lease, Outcome, State, Status, Task, TaskError,
    TaskOptions, Waiting,
};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::id::TaskId;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use proptest::prelude::*;

const START: Timestamp = Timestamp::EPOCH;

/// Generated event. Values that depend on the task, such as its token, are filled in later.
#[derive(Clone, Copy, Debug)]
enum Op {
    Claim { lease: u64 },
    Release(Token),
    Hold(Token, u64),
    Succeed(Token),
    Fail(Token, Retry),
    Stop(Token),
    Interrupt(Token),
    LeaseExpired,
    Cancel,
    Expire,
    DispatchFailed,
    Replay(ReplayKey),
}

/// Fencing token that a worker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Newest,
    Older,
    NeverGranted,
}

/// Effect of an event in the model.
enum Verdict {
    Refused(TransitionError),
    To(Place),
}

/// State of a task, by the names of the picture in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting { due: Timestamp, why: Why },
    Running { until: Timestamp, stop: bool },
    Ended(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Scheduled,
    Held,
    Retrying,
}

/// Reference model of a task.
#[derive(Clone, Debug)]
struct Model {
    place: Place,
    delays: Vec<Duration>,
    max_age: Option<Duration>,
    since: Timestamp,
    deadline: Option<Timestamp>,
    version: u64,
    token: u64,
    attempt: u32,
    generation: u32,
    /// Number of holds since the last attempt, and number of attempts of the generation that were not
    /// counted.
    turn: (u32, u32),
    outcomes: Vec<(u64, AttemptOutcome)>,
}

impl Model {
    fn of(task: &Task, delays: &[Duration]) -> Self {
        Self {
            place: Place::Waiting { due: task.due_at, why: Why::Scheduled },
            delays: delays.to_vec(),
            max_age: task.options.retry.max_age,
            since: task.generation_at,
            deadline: task.options.expires_at,
            version: task.version,
            token: 0,
            attempt: 0,
            generation: 1,
            turn: (0, 0),
            outcomes: Vec::new(),
        }
    }

    /// Applies the event to the model, or returns the reason why the event is refused.
    fn step(&mut self, op: Op, now: Timestamp) -> Result<(), TransitionError> {
        match self.verdict(op, now) {
            Verdict::Refused(why) => Err(why),
            Verdict::To(place) => {
                self.book(op, now);
                self.place = place;
                self.version += 1;
                Ok(())
            }
        }
    }

    #[expect(clippy::match_same_arms, reason = "one line for each arrow of the picture")]
    fn verdict(&self, op: Op, now: Timestamp) -> Verdict {
        use Verdict::{Refused as No, To};
        let late = self.deadline.is_some_and(|deadline| deadline <= now);
        let waiting = |why, due| Place::Waiting { due, why };
        match (self.place, op) {
            // An event from a worker is accepted only with the newest fencing token, in every state of the
            // task.
            (Place::Running { .. }, Op::Succeed(Token::Newest)) => To(Place::Ended(Outcome::Succeeded)),
            (Place::Running { .. }, Op::Stop(Token::Newest)) => To(Place::Ended(Outcome::Canceled)),
            (
                Place::Running { stop: true, .. },
                Op::Release(Token::Newest)
                | Op::Hold(Token::Newest, _)
                | Op::Fail(Token::Newest, _)
                | Op::Interrupt(Token::Newest),
            ) => To(Place::Ended(Outcome::Canceled)),
            (Place::Running { .. }, Op::Release(Token::Newest)) => To(waiting(Why::Scheduled, now)),
            (Place::Running { .. }, Op::Hold(Token::Newest, pause)) => {
                To(waiting(Why::Held, now + Duration::from_millis(pause)))
            }
            (Place::Running { .. }, Op::Interrupt(Token::Newest)) => To(waiting(Why::Retrying, now)),
            (Place::Running { .. }, Op::Fail(Token::Newest, Retry::Defer(_, until)))
                if self.can_be_put_off(until) =>
            {
                To(waiting(Why::Held, until))
            }
            (Place::Running { .. }, Op::Fail(Token::Newest, retry)) => To(self.again(retry, now)),
            (
                _,
                Op::Release(_)
                | Op::Hold(..)
                | Op::Succeed(_)
                | Op::Fail(..)
                | Op::Stop(_)
                | Op::Interrupt(_),
            ) => No(TransitionError::StaleToken),

            (Place::Running { until, .. }, Op::LeaseExpired) if until > now => {
                No(TransitionError::LeaseHolds)
            }
            (Place::Running { stop: true, .. }, Op::LeaseExpired) => To(Place::Ended(Outcome::Canceled)),
            (Place::Running { .. }, Op::LeaseExpired) => To(self.again(Retry::Backoff, now)),
            (Place::Waiting { .. }, Op::LeaseExpired) => No(TransitionError::NotRunning),

            (Place::Running { until, .. }, Op::Cancel) => To(Place::Running { until, stop: true }),
            (Place::Waiting { .. }, Op::Cancel) => To(Place::Ended(Outcome::Canceled)),

            (Place::Running { .. }, Op::Claim { .. } | Op::Expire | Op::DispatchFailed) => {
                No(TransitionError::Running)
            }
            (Place::Waiting { .. }, Op::Claim { .. }) if late => No(TransitionError::PastDeadline),
            (Place::Waiting { due, .. }, Op::Claim { .. }) if due > now => No(TransitionError::NotDue),
            (Place::Waiting { .. }, Op::Claim { lease }) => {
                To(Place::Running { until: now + Duration::from_millis(lease), stop: false })
            }
            (Place::Waiting { .. }, Op::Expire) if late => To(Place::Ended(Outcome::Expired)),
            (Place::Waiting { .. }, Op::Expire) => No(TransitionError::BeforeDeadline),
            (Place::Waiting { due, .. }, Op::DispatchFailed) if due > now => No(TransitionError::NotDue),
            (Place::Waiting { .. }, Op::DispatchFailed) => To(Place::Ended(Outcome::Failed)),

            (Place::Ended(_), Op::Replay(_)) => To(waiting(Why::Scheduled, now)),
            (_, Op::Replay(_)) => No(TransitionError::NotEnded),
            (
                Place::Ended(_),
                Op::Claim { .. } | Op::LeaseExpired | Op::Cancel | Op::Expire | Op::DispatchFailed,
            ) => No(TransitionError::Ended),
        }
    }

    /// State after a failed attempt.
    fn again(&self, retry: Retry, now: Timestamp) -> Place {
        let own = self.delays.get(self.attempt as usize - 1);
        let due = match (own, retry) {
            (None, _) | (_, Retry::Never) => return Place::Ended(Outcome::Failed),
            (Some(own), Retry::Backoff) => now + *own,
            (Some(own), Retry::After(pause)) => now + (*own).max(pause.min(Duration::from_hours(24))),
            (Some(own), Retry::Defer(_, until)) => {
                now + (*own).max(until.since(now).min(Duration::from_hours(24)))
            }
        };
        match self.max_age {
            Some(max_age) if due > self.since + max_age => Place::Ended(Outcome::Failed),
            _ => Place::Waiting { due, why: Why::Retrying },
        }
    }

    fn can_be_put_off(&self, until: Timestamp) -> bool {
        self.turn.1 < 50 && self.max_age.is_none_or(|max_age| until <= self.since + max_age)
    }

    /// Updates the counters and the record of attempts.
    fn book(&mut self, op: Op, now: Timestamp) {
        let is_stopped = matches!(self.place, Place::Running { stop: true, .. });
        let turn = self.turn;
        self.turn = match op {
            Op::Hold(..) => (turn.0 + 1, turn.1),
            Op::Fail(_, Retry::Defer(_, until)) if !is_stopped && self.can_be_put_off(until) => {
                self.attempt -= 1;
                (0, turn.1 + 1)
            }
            Op::Succeed(_) | Op::Fail(..) | Op::Stop(_) | Op::Interrupt(_) | Op::LeaseExpired => (0, turn.1),
            Op::Replay(_) => (0, 0),
            Op::Claim { .. } | Op::Release(_) | Op::Cancel | Op::Expire | Op::DispatchFailed => turn,
        };
        let outcome = match op {
            Op::Claim { .. } => {
                self.token += 1;
                self.attempt += 1;
                None
            }
            Op::Replay(_) => {
                self.generation += 1;
                self.attempt = 0;
                self.since = now;
                self.deadline = self.deadline.filter(|deadline| *deadline > now);
                None
            }
            Op::Release(_) | Op::Hold(..) => {
                self.attempt -= 1;
                None
            }
            Op::Interrupt(_) => {
                self.attempt -= 1;
                Some(AttemptOutcome::Interrupted)
            }
            Op::Succeed(_) => Some(AttemptOutcome::Succeeded),
            Op::Fail(..) => Some(AttemptOutcome::Failed),
            Op::Stop(_) => Some(AttemptOutcome::Canceled),
            Op::LeaseExpired => Some(AttemptOutcome::Crashed),
            Op::Cancel | Op::Expire | Op::DispatchFailed => None,
        };
        self.outcomes.extend(outcome.map(|outcome| (self.token, outcome)));
    }
}

/// Returns the state of a real task, to compare that state with the model.
fn place(task: &Task) -> Place {
    match &task.state {
        State::Waiting(why) => {
            let why = match why {
                Waiting::Scheduled => Why::Scheduled,
                Waiting::Retrying => Why::Retrying,
                Waiting::Held(_) => Why::Held,
            };
            Place::Waiting { due: task.due_at, why }
        }
        State::Running(lease) => {
            Place::Running { until: lease.until, stop: lease.cancel == CancelRequest::Requested }
        }
        State::Ended(ended) => Place::Ended(ended.end),
    }
}

fn event(op: Op, task: &Task, spread: JitterSample, now: Timestamp) -> Event {
    let number = |token| match token {
        Token::Newest => task.token,
        // Before the first claim there is no older token, so any token except the newest serves.
        Token::Older => task.token.checked_sub(1).unwrap_or(7),
        Token::NeverGranted => task.token + 1,
    };
    match op {
        Op::Claim { lease } => Event::Claim { until: now + Duration::from_millis(lease) },
        Op::Release(token) => Event::Release { token: number(token) },
        Op::Hold(token, pause) => Event::Hold {
            token: number(token),
            reason: HeldReason::NoHandler,
            until: now + Duration::from_millis(pause),
            reserved: Reservations::default(),
        },
        Op::Succeed(token) => Event::Succeed { token: number(token), result: Json::null() },
        Op::Fail(token, retry) => Event::Fail {
            token: number(token),
            error: TaskError::new("broken", "it broke"),
            retry,
            policy: None,
            spread,
        },
        Op::Stop(token) => Event::Stop { token: number(token) },
        Op::Interrupt(token) => Event::Interrupt { token: number(token) },
        Op::LeaseExpired => Event::LeaseExpired { spread },
        Op::Cancel => Event::Cancel,
        Op::Expire => Event::Expire,
        Op::DispatchFailed => Event::DispatchFailed,
        Op::Replay(key) => Event::Replay { key, generation: None },
    }
}

/// Checks the invariants between a task before and after any event.
fn check_step(before: &Task, change: &Change, now: Timestamp) -> Result<(), TestCaseError> {
    let after = &change.task;
    prop_assert_eq!(change.read_version, before.version);
    prop_assert_eq!(after.version, before.version + 1);
    prop_assert!(
        after.token == before.token || after.token == before.token + 1,
        "a claim raises the token by one"
    );
    prop_assert_eq!(
        after.token > before.token,
        is_running(after) && !is_running(before),
        "only a claim grants a token"
    );
    prop_assert!(
        after.attempt <= after.options.retry.max_attempts(),
        "the attempts stay within the retry policy"
    );
    prop_assert_eq!(
        after.wake_at().is_none(),
        is_ended(after),
        "every task that has not ended has a wake-up time"
    );
    if is_ended(before) {
        prop_assert_eq!(after.generation, before.generation + 1, "only a replay changes an ended task");
    } else {
        prop_assert_eq!(after.generation, before.generation);
    }
    if let (State::Running(lease), State::Waiting(_)) = (&before.state, &after.state) {
        prop_assert_eq!(
            lease.cancel,
            CancelRequest::None,
            "a canceled task does not wait for another attempt"
        );
    }
    if matches!(after.state, State::Waiting(Waiting::Retrying)) {
        prop_assert!(after.due_at >= now, "a retry is not due in the past");
    }
    check_record(before, after)?;
    check_callback(change)
}

fn check_record(before: &Task, after: &Task) -> Result<(), TestCaseError> {
    prop_assert!(after.attempts.len() <= 20);
    prop_assert!(
        after.attempts.is_sorted_by(|one, next| one.number < next.number),
        "attempts are numbered in order"
    );
    prop_assert!(
        after
            .attempts
            .iter()
            .all(|attempt| attempt.number <= after.token && attempt.finished_at >= attempt.started_at)
    );
    let kept = after.attempts.iter().filter(|attempt| before.attempts.contains(attempt)).count();
    prop_assert!(kept + 1 >= before.attempts.len().min(20), "at most the oldest attempt is dropped");
    let constant = |task: &Task| {
        (
            task.tenant.clone(),
            task.id,
            task.kind.clone(),
            task.queue.clone(),
            task.payload.clone(),
            task.created_at,
        )
    };
    prop_assert_eq!(constant(before), constant(after));
    Ok(())
}

fn check_callback(change: &Change) -> Result<(), TestCaseError> {
    let task = &change.task;
    let asked = |end| task.options.callback.as_ref().is_some_and(|callback| callback.on.contains(&end));
    match &task.state {
        State::Ended(ended) if asked(ended.end) => {
            let callback = change.callback.as_ref().expect("the end is reported in the same change");
            prop_assert_eq!(callback.options.parent, Some(task.id));
            prop_assert_eq!(&callback.tenant, &task.tenant);
            prop_assert!(callback.options.callback.is_none(), "a callback is not reported in turn");
            let url = format!(
                "\"{}\"",
                task.options.callback.as_ref().map(|callback| callback.url.clone()).unwrap_or_default()
            );
            prop_assert!(callback.payload.get().contains(&url));
            let status = format!("\"status\":\"{}\"", Status::Ended(ended.end).as_str());
            prop_assert!(callback.payload.get().contains(&status), "the callback reports this end");
        }
        _ => prop_assert!(change.callback.is_none(), "only a requested end has a callback"),
    }
    Ok(())
}

fn is_running(task: &Task) -> bool {
    matches!(task.state, State::Running(_))
}

fn is_ended(task: &Task) -> bool {
    matches!(task.state, State::Ended(_))
}

fn task(
    delays: &[Duration],
    max_age: Option<Duration>,
    delay: u64,
    deadline: Option<u64>,
    on: Option<Vec<Outcome>>,
) -> Task {
    Task {
        tenant: Tenant::default(),
        id: TaskId::new(START, 7),
        kind: Name::new("test").unwrap(),
        queue: Name::new("default").unwrap(),
        payload: Json::from_value(&[1, 2, 3]).unwrap(),
        options: Box::new(TaskOptions {
            retry: RetryPolicy { schedule: Schedule::Delays(delays.to_vec()), max_age },
            expires_at: deadline.map(|deadline| START + Duration::from_millis(deadline)),
            callback: on.map(|on| Callback {
                url: "https://example.com/done".to_owned(),
                on,
                retry: RetryPolicy::default(),
            }),
            ..TaskOptions::default()
        }),
        created_at: START,
        generation_at: START,
        generation: 1,
        due_at: START + Duration::from_millis(delay),
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

fn tokens() -> impl Strategy<Value = Token> {
    prop_oneof![8 => Just(Token::Newest), 1 => Just(Token::Older), 1 => Just(Token::NeverGranted)]
}

fn retries() -> impl Strategy<Value = Retry> {
    prop_oneof![
        6 => Just(Retry::Backoff),
        1 => Just(Retry::Never),
        1 => (0_u64..200_000).prop_map(|pause| Retry::After(Duration::from_secs(pause))),
        1 => (0_u64..7_200).prop_map(|moment| Retry::Defer(HeldReason::RetryAfter, START + Duration::from_secs(moment))),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0_u64..120_000).prop_map(|lease| Op::Claim { lease }),
        1 => tokens().prop_map(Op::Release),
        1 => (tokens(), 0_u64..600_000).prop_map(|(token, pause)| Op::Hold(token, pause)),
        2 => tokens().prop_map(Op::Succeed),
        6 => (tokens(), retries()).prop_map(|(token, retry)| Op::Fail(token, retry)),
        1 => tokens().prop_map(Op::Stop),
        2 => tokens().prop_map(Op::Interrupt),
        3 => Just(Op::LeaseExpired),
        2 => Just(Op::Cancel),
        2 => Just(Op::Expire),
        1 => Just(Op::DispatchFailed),
        3 => prop_oneof![Just(ReplayKey::Same), Just(ReplayKey::New)].prop_map(Op::Replay),
    ]
}

/// Milliseconds between two events: mostly forward, sometimes back, as between the clocks of two machines.
fn passing() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0_i64..5_000, 4 => 0_i64..900_000, 2 => -300_000_i64..0]
}

fn tasks() -> impl Strategy<Value = (Task, Vec<Duration>)> {
    let delays = prop::collection::vec((0_u64..60_000).prop_map(Duration::from_millis), 0..5);
    let max_age = prop::option::weighted(0.2, (1_u64..3_600).prop_map(Duration::from_secs));
    let deadline = prop::option::weighted(0.4, 1_u64..3_600_000);
    let ends = prop::sample::subsequence(
        vec![Outcome::Succeeded, Outcome::Failed, Outcome::Canceled, Outcome::Expired],
        1..=4,
    );
    (delays, max_age, 0_u64..100_000, deadline, prop::option::of(ends)).prop_map(
        |(delays, max_age, delay, deadline, on)| {
            let task = task(&delays, max_age, delay, deadline, on);
            (task, delays)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn lifecycle_agrees_with_the_model((task, delays) in tasks(), steps in prop::collection::vec((passing(), ops(), any::<u64>()), 1..80)) {
        let mut model = Model::of(&task, &delays);
        let (mut task, mut now) = (task, START);
        let mut callbacks = BTreeSet::new();
        let mut recorded: Vec<(u64, AttemptOutcome)> = Vec::new();
        for (passing, op, random) in steps {
            now = Timestamp::from_millis(now.millis() + passing);
            let before = task.clone();
            let outcome = transition(task.clone(), event(op, &task, JitterSample::from_bits(random), now), now);
            let expected = model.step(op, now);
            match outcome {
                Err(refused) => prop_assert_eq!(Err(refused), expected, "{:?} on {:?}", op, before),
                Ok(change) => {
                    prop_assert_eq!(Ok(()), expected, "{:?} on {:?}", op, before);
                    check_step(&before, &change, now)?;
                    if let Some(callback) = &change.callback {
                        prop_assert!(callbacks.insert(callback.id), "each end has its own callback");
                    }
                    if change.task.attempts.last() != before.attempts.last() {
                        recorded.extend(change.task.attempts.last().map(|attempt| (attempt.number, attempt.outcome)));
                    }
                    task = change.task;
                }
            }
            prop_assert_eq!(place(&task), model.place);
            prop_assert_eq!(
                (task.version, task.token, task.attempt, task.generation),
                (model.version, model.token, model.attempt, model.generation)
            );
            prop_assert_eq!(task.options.expires_at, model.deadline);
            prop_assert_eq!((task.hold.holds, task.hold.deferrals), model.turn);
        }
        prop_assert_eq!(recorded, model.outcomes, "every ended attempt is recorded");
    }

    /// Every event that the sweeper applies is allowed. Afterwards at most an expiry is overdue.
    #[test]
    fn overdue_events_are_allowed((task, _) in tasks(), steps in prop::collection::vec((passing(), ops(), any::<u64>()), 1..40)) {
        let (mut task, mut now) = (task, START);
        for (passing, op, random) in steps {
            now = Timestamp::from_millis(now.millis() + passing);
            let spread = JitterSample::from_bits(random);
            if let Some(event) = overdue(&task, spread, now) {
                prop_assert!(task.wake_at().is_some_and(|moment| moment <= now), "no event is overdue before its time");
                let swept = transition(task.clone(), event, now);
                prop_assert!(swept.is_ok(), "{:?}", swept);
                // A second event can be overdue: after a crashed attempt, the deadline of the task may have
                // passed too.
                let again = swept.ok().and_then(|change| overdue(&change.task, spread, now));
                prop_assert!(matches!(again, None | Some(Event::Expire)));
            } else if let State::Running(lease) = &task.state {
                prop_assert!(lease.until > now, "an expired lease is overdue");
            } else if let State::Waiting(_) = &task.state {
                prop_assert!(task.options.expires_at.is_none_or(|deadline| now < deadline), "a passed deadline is overdue");
            }
            if let Ok(change) = transition(task.clone(), event(op, &task, spread, now), now) {
                task = change.task;
            }
        }
    }
}

#[test]
fn replay_keeps_a_future_deadline_and_the_key() {
    let ended = transition(task(&[], None, 0, Some(1_000), None), Event::Cancel, START).unwrap().task;
    let replay = |key, after| {
        transition(
            ended.clone(),
            Event::Replay { key, generation: None },
            START + Duration::from_millis(after),
        )
        .unwrap()
        .task
        .options
    };
    let deadline = Some(START + Duration::from_secs(1));
    assert_eq!(
        [999, 1_000, 1_001].map(|after| replay(ReplayKey::Same, after).expires_at),
        [deadline, None, None]
    );
    assert_eq!(
        (replay(ReplayKey::Same, 0).key_generation, replay(ReplayKey::New, 0).key_generation),
        (None, Some(2))
    );
}

/// nobat does not call a receiver that always asks for a pause forever.
#[test]
fn deferral_beyond_the_limit_costs_an_attempt() {
    let delays = [Duration::from_secs(1); 2];
    let (mut task, mut now) = (task(&delays, None, 0, None, None), START);
    while !is_ended(&task) {
        for op in [
            Op::Claim { lease: 60_000 },
            Op::Fail(Token::Newest, Retry::Defer(HeldReason::RetryAfter, now + Duration::from_secs(7))),
        ] {
            task = transition(task.clone(), event(op, &task, JitterSample::from_bits(0), now), now)
                .unwrap()
                .task;
        }
        now = now + Duration::from_secs(7);
    }
    assert_eq!((task.token, task.attempt, task.hold.deferrals), (53, 3, 50));
}

/// A woken task tries again at once, or after 10 seconds if a worker with the old configuration could hold
/// the task for long. The task keeps its reservation, unless the reservation is for a time after a pause that
/// has ended.
#[test]
fn woken_task_tries_soon_and_keeps_its_reservation() {
    let (now, soon) = (START, Duration::from_secs(10));
    let reservation = Reservation { slot: 1, interval: 1 };
    let scoped = Some(ScopedReservation { scope: LimitScope::Tenant, reservation });
    for reason in HeldReason::ALL {
        let turn =
            HoldState { holds: 7, reservations: scoped.clone().into(), deferrals: 3, completion: None };
        let task = Task {
            state: State::Waiting(Waiting::Held(Held { reason })),
            due_at: now + Duration::from_mins(5),
            hold: turn,
            ..task(&[], None, 0, None, None)
        };
        let woken = transition(task, Event::Wake, now).map(|change| (change.task.due_at, change.task.hold));
        let kept = |scoped: Option<ScopedReservation>| HoldState {
            holds: 0,
            reservations: scoped.into(),
            deferrals: 3,
            completion: None,
        };
        let expected = match reason {
            HeldReason::Paused | HeldReason::EndpointGone | HeldReason::EndpointMissing => {
                Ok((now, kept(scoped.clone())))
            }
            HeldReason::RetryAfter => Ok((now + soon, kept(None))),
            HeldReason::RateLimited
            | HeldReason::ConcurrencyLimited
            | HeldReason::CircuitOpen
            | HeldReason::Batching => Ok((now + soon, kept(scoped.clone()))),
            _ => Err(TransitionError::NotHeld),
        };
        assert_eq!(woken, expected, "{reason:?}");
    }
}

/// An end gives back all reservations of the task. A task that is woken from a pause gives back its
/// reservation for a time after the pause.
#[test]
fn ended_task_holds_no_reservation() {
    let now = START;
    let scoped = Some(ScopedReservation {
        scope: LimitScope::Tenant,
        reservation: Reservation { slot: 1, interval: 1 },
    });
    let reserved = Reservations { rate: scoped.clone(), batch: Some(7) };
    let holding = |state, deadline| Task {
        state,
        hold: HoldState { holds: 7, reservations: reserved.clone(), deferrals: 3, completion: None },
        ..task(&[], None, 0, deadline, None)
    };
    let held = |reason| State::Waiting(Waiting::Held(Held { reason }));
    let running = |cancel| State::Running(Lease { until: now, started_at: now, cancel });
    let after = |task: Task, event| {
        transition(task, event, now).map(|change| (change.released, change.task.hold.reservations)).unwrap()
    };
    let nothing = Reservations::default;
    let all = || (reserved.clone(), nothing());
    assert_eq!(after(holding(held(HeldReason::RateLimited), None), Event::Cancel), all());
    assert_eq!(after(holding(held(HeldReason::RateLimited), Some(0)), Event::Expire), all());
    assert_eq!(after(holding(held(HeldReason::RateLimited), None), Event::DispatchFailed), all());
    assert_eq!(after(holding(running(CancelRequest::Requested), None), Event::Release { token: 0 }), all());
    let wait =
        Event::Hold { token: 0, reason: HeldReason::RateLimited, until: now, reserved: reserved.clone() };
    assert_eq!(after(holding(running(CancelRequest::Requested), None), wait.clone()), all());
    assert_eq!(after(holding(running(CancelRequest::None), None), wait), (nothing(), reserved.clone()));
    assert_eq!(
        after(holding(running(CancelRequest::None), None), Event::Release { token: 0 }),
        (nothing(), reserved.clone())
    );
    let crashed = Event::LeaseExpired { spread: JitterSample::from_bits(0) };
    assert_eq!(
        after(holding(running(CancelRequest::None), None), crashed),
        (Reservations { rate: None, batch: Some(7) }, nothing())
    );
    let resting =
        Task { due_at: now + Duration::from_mins(5), ..holding(held(HeldReason::RetryAfter), None) };
    assert_eq!(after(resting, Event::Wake), (scoped.into(), Reservations { rate: None, batch: Some(7) }));
}

/// The new leader of a batch tries again when the batch is due. The event changes no other held task.
#[test]
fn only_a_batching_task_is_made_leader() {
    let (now, at) = (START, START + Duration::from_secs(3));
    let held = |reason, seconds| Task {
        state: State::Waiting(Waiting::Held(Held { reason })),
        due_at: now + Duration::from_secs(seconds),
        ..task(&[], None, 0, None, None)
    };
    let led = |task| transition(task, Event::Lead { at }, now).map(|change| change.task.due_at);
    assert_eq!(led(held(HeldReason::Batching, 63)), Ok(at));
    assert_eq!(
        led(held(HeldReason::Batching, 2)),
        Err(TransitionError::NotHeld),
        "the member tries again before that anyway"
    );
    assert_eq!(led(held(HeldReason::RateLimited, 63)), Err(TransitionError::NotHeld));
}

#[test]
fn claim_before_the_first_write_equals_a_claim() {
    let (until, late) = (START + Duration::from_mins(1), START + Duration::from_mins(2));
    let due = task(&[], None, 0, Some(100_000), None);
    let (mut unstored, stored) =
        (due.clone(), transition(due.clone(), Event::Claim { until }, START).unwrap().task);
    unstored.claim_unstored(until, START).unwrap();
    assert_eq!((unstored.version, stored.version), (due.version, due.version + 1));
    assert_eq!(Task { version: stored.version, ..unstored }, stored);
    let mut scheduled = task(&[], None, 5, None, None);
    assert_eq!(scheduled.claim_unstored(until, START), Err(TransitionError::NotDue));
    assert_eq!(due.clone().claim_unstored(until, late), Err(TransitionError::PastDeadline));
}

/// Checks the generator: its events reach every status.
#[test]
fn every_status_is_reached() {
    let due = task(&[Duration::from_secs(5)], None, 0, Some(100_000), None);
    let later = START + Duration::from_mins(1);
    let go = |task: &Task, op, now| {
        transition(task.clone(), event(op, task, JitterSample::from_bits(0), now), now)
            .unwrap_or_else(|refused| panic!("{op:?}: {refused}"))
            .task
    };
    let running = go(&due, Op::Claim { lease: 60_000 }, START);
    let reached: BTreeSet<Status> = [
        task(&[], None, 5, None, None).status(START),
        due.status(START),
        running.status(START),
        go(&running, Op::Fail(Token::Newest, Retry::Backoff), START).status(START),
        go(&running, Op::Hold(Token::Newest, 5), START).status(START),
        go(&running, Op::Succeed(Token::Newest), START).status(START),
        go(&running, Op::Fail(Token::Newest, Retry::Never), START).status(START),
        go(&due, Op::Cancel, START).status(START),
        go(&due, Op::Expire, later + Duration::from_mins(1)).status(START),
    ]
    .into();
    assert_eq!(reached, Status::ALL.into());
}

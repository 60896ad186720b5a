//! Sample tasks.

use std::num::NonZeroU32;
use std::time::Duration;

use nobat_core::auth::api_key::KeyText;
use nobat_core::json::Json;
use nobat_core::limits::{LimitScope, Reservation, Reservations, ScopedReservation};
use nobat_core::task::callback::Callback;
use nobat_core::task::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use nobat_core::task::{
    Fingerprint, HoldState, InheritedDefaults, IssuedToken, KeyedRequest, Outcome, State, Task, TaskOptions,
    TaskOrigin, TokenDigest, Waiting,
};
use nobat_core::types::id::{EventId, TaskId};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;

/// Start time of the tests.
pub fn start() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_123)
}

/// Returns a valid name. Panics if it is invalid.
pub fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns valid JSON. Panics if it is invalid.
pub fn json(text: &str) -> Json {
    Json::from_text(text.to_owned()).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a request with an idempotency key, which the number identifies.
pub fn request(number: u8) -> KeyedRequest {
    KeyedRequest { key: [number; 16], body: [number; 8] }
}

/// Returns the plainest task, accepted and due at `now`.
pub fn task(number: u128, now: Timestamp) -> Task {
    Task {
        tenant: Tenant::default(),
        id: TaskId::new(now, number),
        kind: name("plain"),
        queue: name("default"),
        payload: Json::null(),
        options: Box::default(),
        created_at: now,
        generation_at: now,
        generation: 1,
        due_at: now,
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

/// Returns a task with every option set, to values that are easily lost on the way to a disk and back.
pub fn elaborate(number: u128, now: Timestamp) -> Task {
    let exponential = Exponential {
        max_attempts: const { NonZeroU32::new(7).unwrap() },
        initial_delay: Duration::from_millis(1_234),
        multiplier: 1.1,
        max_delay: Duration::from_secs(86_399),
        jitter: Jitter::None,
    };
    let text = "{\"n\" : 123456789012345678901234567890.10, \"a\":[1 , 2.0],\n\t\"s\":\"\\u00e9\\\"\\/ тест 🦀\", \"n\":null}";
    Task {
        tenant: tenant("acme.eu-1_b"),
        kind: name("Report.weekly_2"),
        queue: name("slow-lane"),
        payload: json(text),
        options: Box::new(TaskOptions {
            timeout: Duration::from_millis(12_345),
            retry: RetryPolicy {
                schedule: Schedule::Exponential(exponential),
                max_age: Some(Duration::from_millis(86_400_001)),
            },
            expires_at: Some(now + Duration::from_hours(20)),
            callback: Some(Callback {
                url: "https://example.com/done?a=1&b=%20#c".to_owned(),
                on: vec![Outcome::Succeeded, Outcome::Expired],
                retry: RetryPolicy { max_age: Some(Duration::from_hours(1)), ..RetryPolicy::default() },
            }),
            labels: [
                ("customer", "42"),
                ("empty", ""),
                ("greeting", "Salam, dünýä 🌍 'quoted' \"twice\" \\"),
            ]
            .map(|(label, text)| (label.to_owned(), text.to_owned()))
            .into(),
            fingerprint: Some(Fingerprint(std::array::from_fn(|place| {
                u8::try_from(place * 8).unwrap_or(255)
            }))),
            parent: Some(TaskId::new(now, u128::MAX)),
            origin: Some(TaskOrigin::Event {
                event: EventId(TaskId::from_bytes([9; 16])),
                subscription: name("stock"),
            }),
            submitted_by: Some(KeyText::new([9; 20]).digest().id()),
            key_generation: Some(3),
            endpoint: Some(name("billing.eu_1")),
            limit_key: Some(name("customer-42")),
            hops: 2,
            left: InheritedDefaults { timeout: true, retry: true },
        }),
        due_at: now + Duration::from_millis(1_001),
        hold: HoldState {
            holds: 3,
            reservations: Reservations {
                rate: Some(ScopedReservation {
                    scope: LimitScope::Key(name("a.b-c_1")),
                    reservation: Reservation { slot: 1_800_000_000_123_456, interval: 33_334 },
                }),
                batch: Some(u64::MAX),
            },
            deferrals: 2,
            completion: Some(IssuedToken { attempt: u64::MAX, digest: TokenDigest([9; 32]) }),
        },
        requests: vec![request(0), request(255)],
        ..task(number, now)
    }
}

/// Returns a task with a list of delays, the other ends, and no optional values.
pub fn listed(number: u128, now: Timestamp) -> Task {
    let delays = vec![
        Duration::ZERO,
        Duration::from_millis(1),
        Duration::from_millis(3_001),
        Duration::from_hours(24 * 366),
    ];
    Task {
        options: Box::new(TaskOptions {
            retry: RetryPolicy { schedule: Schedule::Delays(delays), max_age: None },
            callback: Some(Callback {
                url: "http://example.com/".to_owned(),
                on: vec![Outcome::Failed, Outcome::Canceled],
                retry: RetryPolicy::default(),
            }),
            ..TaskOptions::default()
        }),
        ..task(number, now)
    }
}

/// Returns a task with this many attempts, a second apart.
pub fn with_attempts(number: u128, attempts: usize, now: Timestamp) -> Task {
    let delays = vec![Duration::from_secs(1); attempts.saturating_sub(1)];
    let retry = RetryPolicy { schedule: Schedule::Delays(delays), max_age: None };
    Task { options: Box::new(TaskOptions { retry, ..TaskOptions::default() }), ..task(number, now) }
}

/// Returns the task with a callback for every end.
pub fn reported(mut task: Task) -> Task {
    task.options.callback = Some(Callback {
        url: "https://example.com/done".to_owned(),
        on: Outcome::ALL.to_vec(),
        retry: RetryPolicy::default(),
    });
    task
}

/// Returns a valid tenant. Panics if it is invalid.
pub fn tenant(text: &str) -> Tenant {
    Tenant::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns an elaborate task that is due.
pub fn elaborate_due(number: u128, now: Timestamp) -> Task {
    Task { due_at: now, ..elaborate(number, now) }
}

//! Stored form of the parts of a task that stores do not interpret: compact JSON, the same in every backend.
//!
//! Default values are omitted, so most tasks store nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::auth::api_key::KeyId;
use crate::limits::{Reservation, Reservations, ScopedReservation};
use crate::task::attempt::{Attempt, AttemptOutcome, TaskError};
use crate::task::callback::Callback;
use crate::task::completion::{IssuedToken, TokenDigest};
use crate::task::options::{InheritedDefaults, KeyedRequest, TaskOptions, TaskOrigin};
use crate::task::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use crate::task::state::{HoldState, Outcome};
use crate::types::id::{EventId, TaskId};
use crate::types::name::Name;
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Returns the options as text, or `None` if all have their default values. Stores keep `expires_at`,
/// `fingerprint` and `key_generation` separately.
pub fn options_to_text(settings: &TaskOptions) -> Option<String> {
    let stored = StoredOptions::from(settings);
    (stored != StoredOptions::default()).then(|| text(&stored))
}

/// Inverse of [`options_to_text`].
pub fn options_from_text(text: Option<&str>) -> Result<TaskOptions, Unreadable> {
    text.map_or_else(|| Ok(StoredOptions::default()), |text| parse(text, "the options of a task"))
        .map(TaskOptions::from)
}

/// Returns the finished attempts as text, or `None` if there are none.
pub fn attempts_to_text(attempts: &[Attempt]) -> Option<String> {
    let stored: Vec<StoredAttempt> = attempts.iter().map(StoredAttempt::from).collect();
    (!stored.is_empty()).then(|| text(&stored))
}

/// Inverse of [`attempts_to_text`].
pub fn attempts_from_text(text: Option<&str>) -> Result<Vec<Attempt>, Unreadable> {
    let stored: Vec<StoredAttempt> =
        text.map_or_else(|| Ok(Vec::new()), |text| parse(text, "the attempts of a task"))?;
    stored.into_iter().map(Attempt::try_from).collect()
}

/// Returns an error's code and message as text.
pub fn error_to_text(error: &TaskError) -> String {
    text(&StoredError::from(error))
}

/// Inverse of [`error_to_text`].
pub fn error_from_text(text: &str) -> Result<TaskError, Unreadable> {
    parse::<StoredError>(text, "the error of a task").map(TaskError::from)
}

/// Returns the hold state as text, or `None` if it is the default.
pub fn hold_state_to_text(hold: &HoldState) -> Option<String> {
    (*hold != HoldState::default()).then(|| {
        let mut values = json!(StoredHoldState::from(hold));
        if let Some(values) = values.as_array_mut() {
            while values.pop_if(|value| value.is_null()).is_some() {}
        }
        text(&values)
    })
}

/// Inverse of [`hold_state_to_text`].
pub fn hold_state_from_text(text: Option<&str>) -> Result<HoldState, Unreadable> {
    text.map_or_else(
        || Ok(HoldState::default()),
        |text| parse::<StoredHoldState>(text, "the hold of a task")?.try_into(),
    )
}

/// Returns requests with an idempotency key, 48 hexadecimal digits each, or `None` if there are none.
pub fn requests_to_text(requests: &[KeyedRequest]) -> Option<String> {
    let bytes: Vec<u8> =
        requests.iter().flat_map(|request| request.key.into_iter().chain(request.body)).collect();
    (!requests.is_empty()).then(|| HEXLOWER.encode(&bytes))
}

/// Inverse of [`requests_to_text`].
pub fn requests_from_text(text: Option<&str>) -> Result<Vec<KeyedRequest>, Unreadable> {
    let unreadable = || Unreadable("the requests of a task");
    let bytes = HEXLOWER.decode(text.unwrap_or_default().as_bytes()).map_err(|_| unreadable())?;
    let request = |bytes: &[u8]| {
        let (key, body) = bytes.split_first_chunk()?;
        Some(KeyedRequest { key: *key, body: body.try_into().ok()? })
    };
    bytes.chunks(24).map(request).collect::<Option<_>>().ok_or_else(unreadable)
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("numbers, texts, and maps of texts"))
}

fn parse<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|_| Unreadable(what))
}

/// Stored form of [`TaskOptions`], without separately stored fields and default values.
#[derive(Default, Serialize, Deserialize, PartialEq)]
struct StoredOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<StoredRetry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callback: Option<StoredCallback>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscription: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planned_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_of: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_key: Option<Name>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left_timeout: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left_retry: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hops: Option<u8>,
}

/// Stored form of a retry policy. Times are in milliseconds.
#[derive(Serialize, Deserialize, PartialEq)]
pub(crate) struct StoredRetry {
    schedule: StoredSchedule,
    max_age_ms: Option<u64>,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum StoredSchedule {
    Exponential {
        max_attempts: std::num::NonZeroU32,
        initial_delay_ms: u64,
        multiplier: f64,
        max_delay_ms: u64,
        jitter: bool,
    },
    Delays(Vec<u64>),
}

#[derive(Serialize, Deserialize, PartialEq)]
struct StoredCallback {
    url: String,
    on: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<StoredRetry>,
}

/// Stored form of an attempt: number, start and end in milliseconds since the Unix epoch, outcome, and error.
#[derive(Serialize, Deserialize)]
struct StoredAttempt(u64, i64, i64, u8, #[serde(default)] Option<StoredError>);

#[derive(Serialize, Deserialize)]
struct StoredError(String, String);

/// Stored form of a [`HoldState`]: holds, deferrals, reservation, batch and completion token. Absent values at
/// the end are omitted.
#[derive(Serialize, Deserialize)]
struct StoredHoldState(
    u32,
    u32,
    #[serde(default)] Option<StoredReservation>,
    #[serde(default)] Option<u64>,
    #[serde(default)] Option<StoredToken>,
);

/// Stored form of a completion token: number of the attempt, and digest in base64.
#[derive(Serialize, Deserialize)]
struct StoredToken(u64, String);

/// Stored form of a reservation: limiter, slot in microseconds, interval in microseconds.
#[derive(Serialize, Deserialize)]
struct StoredReservation(String, i64, i64);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<&TaskOptions> for StoredOptions {
    fn from(settings: &TaskOptions) -> Self {
        let mut stored = Self {
            timeout_ms: (settings.timeout != TaskOptions::DEFAULT_TIMEOUT).then(|| millis(settings.timeout)),
            retry: StoredRetry::unless_usual(&settings.retry),
            callback: settings.callback.as_ref().map(StoredCallback::from),
            labels: settings.labels.clone(),
            parent: settings.parent,
            by: settings.submitted_by,
            endpoint: settings.endpoint.clone(),
            limit_key: settings.limit_key.clone(),
            left_timeout: settings.left.timeout,
            left_retry: settings.left.retry,
            hops: Some(settings.hops).filter(|hops| *hops > 0),
            ..Self::default()
        };
        match settings.origin.clone() {
            None => {}
            Some(TaskOrigin::Event { event, subscription }) => {
                (stored.event, stored.subscription) = (Some(event), Some(subscription));
            }
            Some(TaskOrigin::Schedule { schedule, planned_at }) => {
                (stored.schedule, stored.planned_at_ms) = (Some(schedule), planned_at.map(Timestamp::millis));
            }
            Some(TaskOrigin::Source { source }) => stored.source = Some(source),
            Some(TaskOrigin::Wait { task }) => stored.wait_of = Some(task),
        }
        stored
    }
}

impl From<StoredOptions> for TaskOptions {
    fn from(row: StoredOptions) -> Self {
        let origin = match (row.event.zip(row.subscription), row.schedule) {
            (Some((event, subscription)), _) => Some(TaskOrigin::Event { event, subscription }),
            (None, Some(schedule)) => {
                let planned_at = row.planned_at_ms.map(Timestamp::from_millis);
                Some(TaskOrigin::Schedule { schedule, planned_at })
            }
            (None, None) => {
                let of_source = row.source.map(|source| TaskOrigin::Source { source });
                of_source.or(row.wait_of.map(|task| TaskOrigin::Wait { task }))
            }
        };
        Self {
            timeout: row.timeout_ms.map_or(Self::DEFAULT_TIMEOUT, Duration::from_millis),
            retry: row.retry.map_or_else(RetryPolicy::default, RetryPolicy::from),
            expires_at: None,
            callback: row.callback.map(Callback::from),
            labels: row.labels,
            fingerprint: None,
            parent: row.parent,
            origin,
            submitted_by: row.by,
            key_generation: None,
            endpoint: row.endpoint,
            limit_key: row.limit_key,
            left: InheritedDefaults { timeout: row.left_timeout, retry: row.left_retry },
            hops: row.hops.unwrap_or(0),
        }
    }
}

impl StoredRetry {
    fn unless_usual(policy: &RetryPolicy) -> Option<Self> {
        (*policy != RetryPolicy::default()).then(|| Self::from(policy))
    }
}

impl From<&RetryPolicy> for StoredRetry {
    fn from(policy: &RetryPolicy) -> Self {
        let schedule = match &policy.schedule {
            Schedule::Delays(delays) => StoredSchedule::Delays(delays.iter().copied().map(millis).collect()),
            Schedule::Exponential(growth) => StoredSchedule::Exponential {
                max_attempts: growth.max_attempts,
                initial_delay_ms: millis(growth.initial_delay),
                multiplier: growth.multiplier,
                max_delay_ms: millis(growth.max_delay),
                jitter: growth.jitter == Jitter::Full,
            },
        };
        Self { schedule, max_age_ms: policy.max_age.map(millis) }
    }
}

impl From<StoredRetry> for RetryPolicy {
    fn from(row: StoredRetry) -> Self {
        let schedule = match row.schedule {
            StoredSchedule::Delays(delays) => {
                Schedule::Delays(delays.into_iter().map(Duration::from_millis).collect())
            }
            StoredSchedule::Exponential {
                max_attempts,
                initial_delay_ms,
                multiplier,
                max_delay_ms,
                jitter,
            } => Schedule::Exponential(Exponential {
                max_attempts,
                initial_delay: Duration::from_millis(initial_delay_ms),
                multiplier,
                max_delay: Duration::from_millis(max_delay_ms),
                jitter: if jitter { Jitter::Full } else { Jitter::None },
            }),
        };
        Self { schedule, max_age: row.max_age_ms.map(Duration::from_millis) }
    }
}

impl From<&Callback> for StoredCallback {
    fn from(callback: &Callback) -> Self {
        let on = callback.on.iter().map(|end| end.as_str().to_owned()).collect();
        Self { url: callback.url.clone(), on, retry: StoredRetry::unless_usual(&callback.retry) }
    }
}

impl From<StoredCallback> for Callback {
    fn from(row: StoredCallback) -> Self {
        let on = row.on.iter().filter_map(|word| Outcome::from_word(word)).collect();
        Self { url: row.url, on, retry: row.retry.map_or_else(RetryPolicy::default, RetryPolicy::from) }
    }
}

impl From<&Attempt> for StoredAttempt {
    fn from(attempt: &Attempt) -> Self {
        let outcome = match attempt.outcome {
            AttemptOutcome::Succeeded => 0,
            AttemptOutcome::Failed => 1,
            AttemptOutcome::Crashed => 2,
            AttemptOutcome::Interrupted => 3,
            AttemptOutcome::Canceled => 4,
            AttemptOutcome::Waiting => 5,
        };
        let error = attempt.error.as_ref().map(StoredError::from);
        Self(attempt.number, attempt.started_at.millis(), attempt.finished_at.millis(), outcome, error)
    }
}

impl TryFrom<StoredAttempt> for Attempt {
    type Error = Unreadable;

    fn try_from(row: StoredAttempt) -> Result<Self, Unreadable> {
        let outcome = match row.3 {
            0 => AttemptOutcome::Succeeded,
            1 => AttemptOutcome::Failed,
            2 => AttemptOutcome::Crashed,
            3 => AttemptOutcome::Interrupted,
            4 => AttemptOutcome::Canceled,
            5 => AttemptOutcome::Waiting,
            _ => return Err(Unreadable("the attempts of a task")),
        };
        Ok(Self {
            number: row.0,
            started_at: Timestamp::from_millis(row.1),
            finished_at: Timestamp::from_millis(row.2),
            outcome,
            error: row.4.map(TaskError::from),
        })
    }
}

impl From<&HoldState> for StoredHoldState {
    fn from(hold: &HoldState) -> Self {
        let Reservations { rate: scoped, batch } = &hold.reservations;
        let scoped = scoped
            .as_ref()
            .map(|of| StoredReservation(of.scope.to_string(), of.reservation.slot, of.reservation.interval));
        let completion = hold
            .completion
            .map(|issued| StoredToken(issued.attempt, BASE64URL_NOPAD.encode(&issued.digest.0)));
        Self(hold.holds, hold.deferrals, scoped, *batch, completion)
    }
}

impl TryFrom<StoredHoldState> for HoldState {
    type Error = Unreadable;

    fn try_from(row: StoredHoldState) -> Result<Self, Unreadable> {
        let scoped = |StoredReservation(of, slot, interval): StoredReservation| {
            let of = of.parse().map_err(|_| Unreadable("the hold of a task"))?;
            Ok(ScopedReservation { scope: of, reservation: Reservation { slot, interval } })
        };
        let reserved = Reservations { rate: row.2.map(scoped).transpose()?, batch: row.3 };
        let completion = |StoredToken(attempt, digest): StoredToken| {
            let digest = BASE64URL_NOPAD.decode(digest.as_bytes()).ok()?;
            Some(IssuedToken { attempt, digest: TokenDigest(digest.try_into().ok()?) })
        };
        let completion =
            row.4.map(|token| completion(token).ok_or(Unreadable("the hold of a task"))).transpose()?;
        Ok(Self { holds: row.0, deferrals: row.1, reservations: reserved, completion })
    }
}

impl From<&TaskError> for StoredError {
    fn from(error: &TaskError) -> Self {
        Self(error.code.as_str().to_owned(), error.message.clone())
    }
}

impl From<StoredError> for TaskError {
    fn from(row: StoredError) -> Self {
        Self::new(&row.0, row.1)
    }
}

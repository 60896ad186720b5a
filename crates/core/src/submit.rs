//! From what a client asks for to a task that can be stored.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::bounds::Bounds;
use crate::callback::Callback;
use crate::endpoint::Endpoint;
use crate::http_url::HttpUrl;
use crate::id::TaskId;
use crate::json::Json;
use crate::key::KeyId;
use crate::lane::Lane;
use crate::name::{InvalidName, Name, Tenant};
use crate::ports::TaskName;
use crate::retry::{Exponential, Jitter, RetryPolicy, Schedule};
use crate::task::{End, Fingerprint, Left, Settings, Task};
use crate::time::Timestamp;

/// A task as a client asks for it. Durations are seconds; unknown fields are refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Submission {
    /// Which handler runs it: `http`, `noop`, or a name that the program registered.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub kind: String,
    /// The lane it waits in; `default` unless said.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub queue: Option<String>,
    /// What the handler is given, kept byte for byte; `null` unless said. Kind `http` takes an object with `method` (default `POST`), `url` or,
    /// for an endpoint, `path`, `headers`, `body` or `body_base64` (a binary body, default type `application/octet-stream`),
    /// `idempotency_key` (1 to 255 visible ASCII characters, default one of nobat's own), `timeout`, `success` and `retry_on`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// Start no sooner than so many seconds from now. Excludes `run_at`.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub delay: Option<f64>,
    /// Start no sooner than this moment, at most 366 days ahead; a moment in the past is now. Excludes `delay`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub run_at: Option<Timestamp>,
    /// The endpoint that a task of kind `http` goes to; its payload then has a `path` instead of a `url`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub endpoint: Option<String>,
    /// What it shares with other tasks of the tenant: together they start only as often as `/v1/flows/{key}` says.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub flow_key: Option<String>,
    /// How many seconds one attempt may take; unless said, what its endpoint says, or else 30.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001))]
    pub timeout: Option<f64>,
    /// The moment from which it is no longer worth starting.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// When to try again, and when to stop; unless said, what its endpoint says, or else its queue.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
    /// Whom to tell of its end.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<CallbackSubmission>, required = false))]
    pub callback: Option<CallbackSubmission>,
    /// Notes of the submitter's own: up to 20 names, each with up to 256 bytes of text.
    #[serde(default, deserialize_with = "crate::read::maybe_texts")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::labels, required = false))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// When to try again: either `delays`, or any of the fields of a growing delay.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetrySubmission {
    /// All attempts, the first included; 5 unless said.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 50))]
    pub max_attempts: Option<f64>,
    /// The longest wait in seconds before the first retry; 10 unless said.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub base: Option<f64>,
    /// What the wait is multiplied by from one retry to the next; 2 unless said.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub factor: Option<f64>,
    /// The longest wait of all, in seconds; 3600 unless said.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 31_622_400))]
    pub max: Option<f64>,
    /// `full` spreads a wait from nothing to its length, `none` does not; `full` unless said.
    #[serde(default, deserialize_with = "crate::read::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<JitterWord>, required = false))]
    pub jitter: Option<JitterWord>,
    /// No retry is scheduled for more than so many seconds after acceptance, or after a replay.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001, maximum = 31_622_400))]
    pub max_age: Option<f64>,
    /// These waits in seconds, up to 49 of them, and one attempt more than there are waits.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::schema::delays, required = false))]
    pub delays: Option<Vec<f64>>,
}

/// How waits are spread.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JitterWord {
    /// From nothing to the computed delay.
    Full,
    /// Not at all.
    None,
}

/// Whom to tell of a task's end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallbackSubmission {
    /// Where the task is sent by `POST`, as an `http` task of its own.
    #[cfg_attr(feature = "openapi", schema(format = "uri", max_length = 2048))]
    pub url: String,
    /// The ends to tell of; all four unless said.
    #[serde(default, deserialize_with = "crate::read::maybe_words")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<EndWord>>, required = false, min_items = 1))]
    pub on: Option<Vec<EndWord>>,
    /// When it is tried again.
    #[serde(default, deserialize_with = "crate::read::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
}

/// An end, by its word.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EndWord {
    /// The work was done.
    Succeeded,
    /// It was given up.
    Failed,
    /// Somebody called it off.
    Canceled,
    /// Its deadline passed.
    Expired,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field, as a JSON pointer (RFC 6901) into the submission.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// A more telling code than "invalid", where there is one.
    pub code: Option<&'static str>,
}

impl Invalid {
    /// That field is wrong, for that reason.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), code: None }
    }

    /// The same, seen from outside the value that the pointer started in.
    #[must_use]
    pub fn under(self, parent: &str) -> Self {
        Self { pointer: format!("{parent}{}", self.pointer), ..self }
    }
}

/// Knows the kinds that are run here, and what payloads they take.
pub trait Kinds: Send + Sync {
    /// Whether a task of that kind and with that payload can be run. Pointers start in the payload.
    fn check(&self, kind: &Name, payload: &Json, aim: Aim) -> Result<(), Unfit>;

    /// Whether that is PEM of certificate authorities that an endpoint can be trusted by; what would be right, if not.
    fn check_authority(&self, pem: &str) -> Result<(), String>;
}

/// Where it is said what a task is to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// In its payload, if it calls anybody at all.
    Payload,
    /// In the endpoint that it names.
    Endpoint,
}

/// Why a task cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Nobody runs that kind; these are the ones that are run.
    UnknownKind(Vec<String>),
    /// Tasks of that kind go to no endpoint.
    NoEndpoint,
    /// The payload is not what the kind takes.
    Payload(Vec<Invalid>),
}

/// What the one who takes a submission in adds to it.
pub struct Intake<'a> {
    /// Whose task it will be.
    pub tenant: &'a Tenant,
    /// Its id.
    pub id: TaskId,
    /// SHA-256 of the request, if it had an idempotency key.
    pub fingerprint: Option<Fingerprint>,
    /// The key to the API that it came with.
    pub submitted_by: Option<KeyId>,
    /// The longest payload in bytes, if that is limited.
    pub max_payload: Option<NonZeroU32>,
    /// The longest timeout that workers grant.
    pub max_timeout: Duration,
    /// What is run here.
    pub kinds: &'a dyn Kinds,
    /// The endpoint that it names, if there is one of that name.
    pub endpoint: Option<&'a Endpoint>,
    /// What is laid down for its queue.
    pub queue: Option<&'a Lane>,
    /// Through how many tasks the request came.
    pub hops: u8,
    /// The time.
    pub now: Timestamp,
}

/// The lane of whoever names none.
static DEFAULT_QUEUE: LazyLock<Name> = LazyLock::new(|| Name::constant("default"));

/// How far ahead a task can be scheduled, and the longest of all durations: 366 days.
pub const MAX_AHEAD: Duration = Duration::from_hours(366 * 24);
pub(crate) const MAX_ATTEMPTS: u32 = 50;
/// Bounds of every delay, in seconds.
const DELAYS: Bounds = Bounds::delay(MAX_AHEAD);
/// Bounds of the time after which no retry is scheduled, in seconds.
const AGES: Bounds = Bounds::timeout(MAX_AHEAD);
/// Bounds of the factor by which delays grow.
const FACTORS: Bounds = Bounds::new(1.0, 100.0);
pub(crate) const MAX_LABELS: usize = 20;
pub(crate) const MAX_LABEL_BYTES: usize = 256;

impl Submission {
    /// The lane that it is to wait in.
    pub fn queue(&self) -> Result<Name, InvalidName> {
        self.queue.as_deref().map_or_else(|| Ok(DEFAULT_QUEUE.clone()), Name::new)
    }

    /// The task that is asked for, or all that is wrong with it.
    pub fn into_task(self, intake: &Intake<'_>) -> Result<Task, Vec<Invalid>> {
        let mut wrong = Wrong(Vec::new());
        let now = intake.now;
        let kind = wrong.name("/kind", Some(&self.kind));
        let queue = wrong.name("/queue", self.queue.as_deref());
        let endpoint = wrong.endpoint(self.endpoint.as_deref(), intake.endpoint);
        let found = intake.endpoint.filter(|_| endpoint.is_some());
        let payload = wrong.payload(self.payload, intake.max_payload);
        let due_at = wrong.due(self.delay, self.run_at, now);
        let settings = Settings {
            timeout: wrong.timeout(self.timeout, found.and_then(|endpoint| endpoint.timeout), intake.max_timeout),
            expires_at: wrong.deadline(self.expires_at, due_at, now),
            retry: match &self.retry {
                Some(retry) => wrong.retry("/retry", retry),
                None => found.and_then(|endpoint| endpoint.retry.clone()).or_else(|| intake.queue?.retry.clone()).unwrap_or_default(),
            },
            left: Left { timeout: found.is_some() && self.timeout.is_none(), retry: found.is_some() && self.retry.is_none() },
            flow_key: self.flow_key.as_deref().and_then(|key| wrong.name("/flow_key", Some(key))),
            endpoint,
            callback: self.callback.and_then(|callback| wrong.callback(callback, intake.kinds)),
            labels: wrong.labels(self.labels.unwrap_or_default()),
            fingerprint: intake.fingerprint,
            parent: None,
            submitted_by: intake.submitted_by,
            key_generation: None,
            hops: intake.hops,
        };
        if let Some(kind) = &kind {
            let aim = if self.endpoint.is_some() { Aim::Endpoint } else { Aim::Payload };
            wrong.fit(intake.kinds.check(kind, &payload, aim));
        }
        match (kind, queue) {
            (Some(kind), Some(queue)) if wrong.0.is_empty() => {
                let name = TaskName { tenant: intake.tenant.clone(), id: intake.id };
                Ok(Task { due_at, ..Task::new(name, kind, queue, payload, settings, now) })
            }
            _ => Err(wrong.0),
        }
    }
}

/// Collects what is wrong, so that a client learns all of it at once.
#[derive(Default)]
pub(crate) struct Wrong(pub(crate) Vec<Invalid>);

impl Wrong {
    pub(crate) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(Invalid::new(pointer, detail));
    }

    fn name(&mut self, pointer: &str, text: Option<&str>) -> Option<Name> {
        let Some(text) = text else { return Some(DEFAULT_QUEUE.clone()) };
        Name::new(text).map_err(|error| self.add(pointer, error.to_string())).ok()
    }

    fn endpoint(&mut self, text: Option<&str>, found: Option<&Endpoint>) -> Option<Name> {
        let name = self.name("/endpoint", Some(text?))?;
        if found.is_none() {
            let detail = format!("there is no endpoint of this name; `PUT /v1/endpoints/{name}` makes one");
            self.0.push(Invalid { code: Some("unknown_endpoint"), ..Invalid::new("/endpoint", detail) });
        }
        Some(name)
    }

    fn payload(&mut self, payload: Option<Box<serde_json::value::RawValue>>, max: Option<NonZeroU32>) -> Json {
        let Some(payload) = payload else { return Json::null() };
        if let Some(max) = max.filter(|max| payload.get().len() > max.get() as usize) {
            self.add("/payload", format!("this tenant's payloads may have {max} bytes"));
        }
        Json::from_outside(&payload).unwrap_or_else(|error| {
            self.0.push(Invalid { code: Some("malformed_json"), ..Invalid::new("/payload", error.to_string()) });
            Json::null()
        })
    }

    /// Returns the value, or `None` after noting under `pointer` why there is none.
    pub(crate) fn take<T>(&mut self, pointer: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.add(pointer, detail)).ok()
    }

    fn due(&mut self, delay: Option<f64>, run_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match (delay, run_at) {
            (None, None) => now,
            (Some(_), Some(_)) => {
                self.add("/run_at", "`delay` and `run_at` exclude each other");
                now
            }
            (Some(delay), None) => now + self.take("/delay", DELAYS.seconds(delay)).unwrap_or_default(),
            (None, Some(run_at)) if run_at > now + MAX_AHEAD => {
                self.add("/run_at", "expected a time within the next 366 days");
                now
            }
            (None, Some(run_at)) => run_at.max(now),
        }
    }

    fn timeout(&mut self, timeout: Option<f64>, usual: Option<Duration>, max: Duration) -> Duration {
        let default = usual.unwrap_or(Settings::DEFAULT_TIMEOUT).min(max);
        timeout.and_then(|timeout| self.take("/timeout", Bounds::timeout(max).seconds(timeout))).unwrap_or(default)
    }

    fn deadline(&mut self, deadline: Option<Timestamp>, due_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.add("/expires_at", "expected a time in the future");
        } else if deadline.is_some_and(|deadline| deadline <= due_at) {
            self.add("/expires_at", "expected a time after the one it may start at");
        }
        deadline
    }

    pub(crate) fn retry(&mut self, pointer: &str, retry: &RetrySubmission) -> RetryPolicy {
        let max_age = retry.max_age.and_then(|age| self.take(&format!("{pointer}/max_age"), AGES.seconds(age)));
        let grows =
            retry.max_attempts.is_some() || retry.base.is_some() || retry.factor.is_some() || retry.max.is_some() || retry.jitter.is_some();
        let schedule = match &retry.delays {
            Some(_) if grows => {
                self.add(&format!("{pointer}/delays"), "`delays` excludes `max_attempts`, `base`, `factor`, `max` and `jitter`");
                Schedule::Delays(Vec::new())
            }
            Some(delays) => Schedule::Delays(self.delays(pointer, delays)),
            None => Schedule::Exponential(self.exponential(pointer, retry)),
        };
        RetryPolicy { schedule, max_age }
    }

    fn delays(&mut self, pointer: &str, delays: &[f64]) -> Vec<Duration> {
        if delays.len() >= MAX_ATTEMPTS as usize {
            self.add(&format!("{pointer}/delays"), format!("expected at most {} delays", MAX_ATTEMPTS - 1));
        }
        let read = |(place, delay): (usize, &f64)| self.take(&format!("{pointer}/delays/{place}"), DELAYS.seconds(*delay));
        delays.iter().enumerate().filter_map(read).collect()
    }

    fn exponential(&mut self, pointer: &str, retry: &RetrySubmission) -> Exponential {
        let default = Exponential::default();
        let at = |field: &str| format!("{pointer}/{field}");
        let max_attempts = retry.max_attempts.and_then(|count| self.take(&at("max_attempts"), Bounds::count(MAX_ATTEMPTS).whole(count)));
        let factor = retry.factor.and_then(|factor| self.take(&at("factor"), FACTORS.number(factor)));
        let mut delay = |field: &str, seconds: Option<f64>| self.take(&at(field), DELAYS.seconds(seconds?));
        Exponential {
            max_attempts: max_attempts.unwrap_or(default.max_attempts),
            base: delay("base", retry.base).unwrap_or(default.base),
            factor: factor.unwrap_or(default.factor),
            max: delay("max", retry.max).unwrap_or(default.max),
            jitter: match retry.jitter {
                Some(JitterWord::None) => Jitter::None,
                Some(JitterWord::Full) | None => Jitter::Full,
            },
        }
    }

    /// A callback is an `http` task, and its URL is held to the same rules.
    fn callback(&mut self, callback: CallbackSubmission, kinds: &dyn Kinds) -> Option<Callback> {
        let probe = Json::from_value(&BTreeMap::from([("url", &callback.url)])).ok()?;
        if let Err(Unfit::Payload(invalid)) = kinds.check(&crate::callback::HTTP, &probe, Aim::Payload) {
            self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/callback")));
        }
        let mut on: Vec<End> = match callback.on {
            None => EndWord::ALL.map(End::from).to_vec(),
            Some(words) => words.into_iter().map(End::from).collect(),
        };
        on.sort_unstable();
        on.dedup();
        if on.is_empty() {
            self.add("/callback/on", "expected at least one end");
        }
        let retry = callback.retry.map(|retry| self.retry("/callback/retry", &retry)).unwrap_or_default();
        // The check above has refused what cannot be parsed.
        let url = HttpUrl::parse(&callback.url).map_or(callback.url, String::from);
        Some(Callback { url, on, retry })
    }

    fn labels(&mut self, labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if labels.len() > MAX_LABELS {
            self.add("/labels", format!("expected at most {MAX_LABELS} labels"));
        }
        for (name, text) in &labels {
            let pointer = format!("/labels/{}", name.replace('~', "~0").replace('/', "~1"));
            if let Err(error) = Name::new(name) {
                self.add(&pointer, error.to_string());
            }
            if text.len() > MAX_LABEL_BYTES || text.chars().any(is_invisible) {
                self.add(&pointer, format!("expected at most {MAX_LABEL_BYTES} bytes of text without control characters"));
            }
        }
        labels
    }

    fn fit(&mut self, checked: Result<(), Unfit>) {
        match checked {
            Ok(()) => {}
            Err(Unfit::UnknownKind(known)) => {
                let detail = format!("nobody here runs this kind; known kinds are: {}", known.join(", "));
                self.0.push(Invalid { code: Some("unknown_kind"), ..Invalid::new("/kind", detail) });
            }
            Err(Unfit::NoEndpoint) => self.add("/endpoint", "tasks of this kind go to no endpoint; those of kind `http` do"),
            Err(Unfit::Payload(invalid)) => self.0.extend(invalid.into_iter().map(|invalid| invalid.under("/payload"))),
        }
    }
}

/// Control characters, and the marks that make text read otherwise than it is written.
pub fn is_invisible(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl EndWord {
    const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Canceled, Self::Expired];
}

impl From<EndWord> for End {
    fn from(word: EndWord) -> Self {
        match word {
            EndWord::Succeeded => Self::Succeeded,
            EndWord::Failed => Self::Failed,
            EndWord::Canceled => Self::Canceled,
            EndWord::Expired => Self::Expired,
        }
    }
}

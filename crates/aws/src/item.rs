//! A task as a DynamoDB item. Fields that conditions, indexes or operators need are attributes. All other
//! fields are compact texts.
//!
//! Default values are left out, because a write costs one unit for each 1,024 bytes of the item.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use data_encoding::HEXLOWER;
use nobat_core::json::Json;
use nobat_core::task::{
    CancelRequest, Completion, Fingerprint, Held, Lease, Outcome, State, Task, TaskKey, Waiting, codec,
};
use nobat_core::types::held_reason::HeldReason;
use nobat_core::types::name::Name;
use nobat_core::types::sha256::sha256;
use nobat_core::types::time::Timestamp;

use crate::error::Unreadable;
use crate::keys;
use crate::keys::SweepIndex;

/// Returns seconds since the epoch, rounded up, as DynamoDB's TTL requires.
pub(crate) fn expiry(at: Timestamp) -> i64 {
    at.millis().div_euclid(1_000) + 1
}

/// An item or a part of it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// Primary key of an item.
pub(crate) type Key = [(String, AttributeValue); 2];

/// Maximum size of an item that costs one write unit, in bytes.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
const ONE_UNIT: usize = 1_024;

/// Typical maximum size of the attributes that change, in bytes. A payload is stored in the task's item only
/// if this many bytes stay free. A claim and an end then cost one write unit each.
const CHANGING: usize = 200;

/// Attributes of an update. `None` removes an attribute.
pub(crate) struct Attributes(pub(crate) Vec<(&'static str, Option<AttributeValue>)>);

impl Attributes {
    /// Returns the attributes that have a value, as an item.
    pub(crate) fn into_item(self) -> Item {
        self.0.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Reference to an overflow item, which contains a payload or a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverflowRef {
    /// Sort key of the overflow item.
    pub(crate) key: String,
}

/// A task as read, with references to its overflow items.
pub(crate) struct Read {
    /// The task. Its payload is `null` if it is in an overflow item. Its result is absent if it is in an
    /// overflow item.
    pub(crate) task: Task,
    /// Overflow item with the payload, if there is one.
    pub(crate) payload: Option<OverflowRef>,
    /// Overflow item with the result, if there is one.
    pub(crate) result: Option<OverflowRef>,
}

/// Returns a text attribute.
pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// Returns a number attribute.
pub(crate) fn number(value: impl Into<i128>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

/// Returns a timestamp attribute, in milliseconds since the epoch.
pub(crate) fn moment(at: Timestamp) -> AttributeValue {
    number(at.millis())
}

/// Returns the primary key of a task's own item.
pub(crate) fn key(name: &TaskKey) -> Key {
    key_of(name, keys::TASK)
}

/// Returns the primary key of an item that belongs to a task.
pub(crate) fn key_of(name: &TaskKey, sort: &str) -> Key {
    at(keys::partition(name), sort)
}

/// Returns a primary key.
pub(crate) fn at(partition: impl Into<String>, sort: impl Into<String>) -> Key {
    [("PK".to_owned(), text(partition)), ("SK".to_owned(), text(sort))]
}

/// Returns the item of a new task. Its overflow items must already be written.
pub(crate) fn whole(task: &Task, op: &str, now: Timestamp) -> Item {
    let mut item = fixed(task, payload_apart(task).as_ref());
    item.extend(changing(task, op).into_item());
    if let SweepIndex::At(partition, mark) = keys::sweep(task, now) {
        item.extend([("sweep".to_owned(), text(partition)), ("sweep_at".to_owned(), moment(mark))]);
    }
    item
}

/// Returns the reference to the payload if it is too long for the task's item.
///
/// The result depends only on fields that never change, so it is always the same for one task.
pub(crate) fn payload_apart(task: &Task) -> Option<OverflowRef> {
    let is_long = size(&fixed(task, None)) + CHANGING > ONE_UNIT;
    is_long.then(|| OverflowRef {
        key: keys::payload(task.created_at, &HEXLOWER.encode(&sha256(&[task.payload.get().as_bytes()]))),
    })
}

/// Returns the reference to the result if it is too long for the task's item.
pub(crate) fn result_apart(task: &Task) -> Option<OverflowRef> {
    let result = task.result.as_ref()?;
    let rest = size(&fixed(task, payload_apart(task).as_ref()))
        + size(&changing(task, OP_OF_ITS_LENGTH).into_item())
        + ENDED;
    (rest + result.get().len() > ONE_UNIT).then(|| OverflowRef { key: keys::result(task.token) })
}

/// Text as long as the value of the attribute `op`, to calculate the size of an item.
const OP_OF_ITS_LENGTH: &str = "0000000000000000";

/// Number of bytes of an ended task's item that `fixed` and `changing` do not include: the attribute
/// `expires_at`, which DynamoDB's TTL reads, and the name of the attribute `result`. The text of the result
/// is not included.
const ENDED: usize = 24;

/// Returns the attributes that never change.
fn fixed(task: &Task, payload_apart: Option<&OverflowRef>) -> Item {
    let (inline, apart) = match payload_apart {
        None => (Some(text(task.payload.get())), None),
        Some(apart) => (None, Some(text(&apart.key))),
    };
    let attributes = Attributes(vec![
        ("recent", Some(text(keys::recent_of(task)))),
        ("place", Some(text(keys::place(task)))),
        ("kind", Some(text(task.kind.as_str()))),
        ("queue", Some(text(task.queue.as_str()))),
        ("created_at", Some(moment(task.created_at))),
        ("options", codec::options_to_text(&task.options).map(text)),
        (
            "fingerprint",
            task.options.fingerprint.map(|fingerprint| AttributeValue::B(Blob::new(fingerprint.0))),
        ),
        ("payload", inline.filter(|_| task.payload != Json::null())),
        ("payload_key", apart),
    ]);
    key(&task.key()).into_iter().chain(attributes.into_item()).collect()
}

/// Returns the attributes that every change writes. `op` identifies the write, so that a retry recognizes it.
pub(crate) fn changing(task: &Task, op: &str) -> Attributes {
    let lease = match &task.state {
        State::Running(lease) => Some(lease),
        _ => None,
    };
    let held = match &task.state {
        State::Waiting(Waiting::Held(held)) => Some(held.reason.as_str()),
        _ => None,
    };
    let canceled = lease.is_some_and(|lease| lease.cancel == CancelRequest::Requested);
    Attributes(vec![
        ("status", Some(text(word(&task.state)))),
        ("version", Some(number(task.version))),
        ("token", (task.token > 0).then(|| number(task.token))),
        ("attempt", (task.attempt > 0).then(|| number(task.attempt))),
        ("generation", (task.generation > 1).then(|| number(task.generation))),
        ("generation_at", (task.generation_at != task.created_at).then(|| moment(task.generation_at))),
        ("due_at", Some(moment(task.due_at))),
        ("deadline", task.options.expires_at.map(moment)),
        ("key_generation", task.options.key_generation.map(number)),
        ("lease_until", lease.map(|lease| moment(lease.until))),
        ("started_at", lease.map(|lease| moment(lease.started_at))),
        ("cancel", canceled.then_some(AttributeValue::Bool(true))),
        ("held", held.map(text)),
        ("ended_at", task.finished_at().map(moment)),
        ("attempts", codec::attempts_to_text(&task.attempts).map(text)),
        ("error", task.error.as_ref().map(|error| text(codec::error_to_text(error)))),
        ("progress", task.progress.as_ref().map(|progress| text(progress.get()))),
        ("hold_state", codec::hold_state_to_text(&task.hold).map(text)),
        ("requests", codec::requests_to_text(&task.requests).map(text)),
        ("op", Some(text(op))),
    ])
}

/// Returns the text of attribute `status`. The table has no `queued`: the API shows it for waiting tasks that
/// are due.
pub(crate) fn word(state: &State) -> &'static str {
    match state {
        State::Waiting(Waiting::Scheduled) => "scheduled",
        State::Waiting(Waiting::Retrying) => "retrying",
        State::Waiting(Waiting::Held(_)) => "held",
        State::Running(_) => "running",
        State::Ended(ended) => ended.end.as_str(),
    }
}

/// Reads a task's own item.
pub(crate) fn read(item: &Item) -> Result<Read, Unreadable> {
    let reader = Reader(item);
    let name = keys::name(reader.text("PK")?).ok_or(Unreadable("PK"))?;
    let mut options = codec::options_from_text(reader.optional_text("options")?)?;
    options.expires_at = reader.optional_moment("deadline")?;
    options.key_generation = reader.optional_number("key_generation")?;
    options.fingerprint = reader.fingerprint()?;
    let created_at = reader.moment("created_at")?;
    let task = Task {
        tenant: name.tenant,
        id: name.id,
        kind: reader.name("kind")?,
        queue: reader.name("queue")?,
        payload: reader.json("payload")?.unwrap_or_else(Json::null),
        options: Box::new(options),
        created_at,
        generation_at: reader.optional_moment("generation_at")?.unwrap_or(created_at),
        generation: reader.optional_number("generation")?.unwrap_or(1),
        due_at: reader.moment("due_at")?,
        state: reader.state()?,
        version: reader.optional_number("version")?.ok_or(Unreadable("version"))?,
        token: reader.optional_number("token")?.unwrap_or(0),
        attempt: reader.optional_number("attempt")?.unwrap_or(0),
        attempts: codec::attempts_from_text(reader.optional_text("attempts")?)?,
        result: reader.json("result")?,
        error: reader.optional_text("error")?.map(codec::error_from_text).transpose()?,
        progress: reader.json("progress")?,
        hold: codec::hold_state_from_text(reader.optional_text("hold_state")?)?,
        requests: codec::requests_from_text(reader.optional_text("requests")?)?,
    };
    let apart = |attribute| {
        Ok::<_, Unreadable>(reader.optional_text(attribute)?.map(|key| OverflowRef { key: key.to_owned() }))
    };
    Ok(Read { task, payload: apart("payload_key")?, result: apart("result_key")? })
}

/// Returns the sweep time of an item in the index `sweep`, if any.
pub(crate) fn sweep_at(item: &Item) -> Option<Timestamp> {
    Reader(item).optional_moment("sweep_at").ok().flatten()
}

/// Returns the attribute `op`: the id of the last write to the item that had an id.
pub(crate) fn op(item: &Item) -> Option<&str> {
    Reader(item).optional_text("op").ok().flatten()
}

pub(crate) struct Reader<'a>(pub(crate) &'a Item);

impl<'a> Reader<'a> {
    fn optional_text(&self, attribute: &'static str) -> Result<Option<&'a str>, Unreadable> {
        let value = self.0.get(attribute).map(|value| value.as_s().map_err(|_| Unreadable(attribute)));
        value.transpose().map(|text| text.map(String::as_str))
    }

    pub(crate) fn text(&self, attribute: &'static str) -> Result<&'a str, Unreadable> {
        self.optional_text(attribute)?.ok_or(Unreadable(attribute))
    }

    pub(crate) fn optional_number<N: std::str::FromStr>(
        &self,
        attribute: &'static str,
    ) -> Result<Option<N>, Unreadable> {
        let Some(value) = self.0.get(attribute) else { return Ok(None) };
        value.as_n().ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(Unreadable(attribute))
    }

    pub(crate) fn optional_moment(&self, attribute: &'static str) -> Result<Option<Timestamp>, Unreadable> {
        Ok(self.optional_number(attribute)?.map(Timestamp::from_millis))
    }

    pub(crate) fn moment(&self, attribute: &'static str) -> Result<Timestamp, Unreadable> {
        self.optional_moment(attribute)?.ok_or(Unreadable(attribute))
    }

    fn name(&self, attribute: &'static str) -> Result<Name, Unreadable> {
        Name::new(self.text(attribute)?).map_err(|_| Unreadable(attribute))
    }

    fn json(&self, attribute: &'static str) -> Result<Option<Json>, Unreadable> {
        let text = self.optional_text(attribute)?;
        text.map(|text| Json::from_text(text.to_owned()).map_err(|_| Unreadable(attribute))).transpose()
    }

    fn fingerprint(&self) -> Result<Option<Fingerprint>, Unreadable> {
        let Some(value) = self.0.get("fingerprint") else { return Ok(None) };
        let bytes = value.as_b().ok().and_then(|blob| <[u8; 32]>::try_from(blob.as_ref()).ok());
        bytes.map(|bytes| Some(Fingerprint(bytes))).ok_or(Unreadable("fingerprint"))
    }

    fn state(&self) -> Result<State, Unreadable> {
        match self.text("status")? {
            "scheduled" => Ok(State::Waiting(Waiting::Scheduled)),
            "retrying" => Ok(State::Waiting(Waiting::Retrying)),
            "held" => {
                let reason = HeldReason::of(self.text("held")?);
                Ok(State::Waiting(Waiting::Held(Held { reason })))
            }
            "running" => Ok(State::Running(Lease {
                until: self.moment("lease_until")?,
                started_at: self.moment("started_at")?,
                cancel: if self.0.contains_key("cancel") {
                    CancelRequest::Requested
                } else {
                    CancelRequest::None
                },
            })),
            other => {
                let end = Outcome::from_word(other).ok_or(Unreadable("status"))?;
                Ok(State::Ended(Completion { end, at: self.moment("ended_at")? }))
            }
        }
    }
}

/// Returns the size of an item by `DynamoDB`'s rules: UTF-8 bytes of names and texts. A number takes one byte
/// for two digits, plus one.
pub(crate) fn size(item: &Item) -> usize {
    let value = |value: &AttributeValue| match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        AttributeValue::B(blob) => blob.as_ref().len(),
        _ => 1,
    };
    item.iter().map(|(name, of)| name.len() + value(of)).sum()
}

//! Overflow items: payloads and results that are too long for their task's item. An overflow item is written
//! before the task that refers to it.
//!
//! A text that is too long for one item is split into several items.
//!
//! A status update then costs one write unit for a payload of any size. If the task's write is refused, its
//! new payload expires a day later. If the process dies between the two writes, the overflow item stays.

use std::time::Duration;

use futures_util::future::try_join_all;
use nobat_core::json::Json;
use nobat_core::ports::StoreError;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::time::Timestamp;

use crate::error::Unreadable;
use crate::expression::Expression;
use crate::item::{Item, OverflowRef, Read, Reader, expiry, key_of, number, payload_apart, text};
use crate::table::Table;

/// Time for which an overflow item is kept longer than its task, so that a visible task has its payload and
/// result.
const LONGER: Duration = Duration::from_hours(7 * 24);

/// Maximum length of the text in one item, in bytes. An item has at most 400 KB.
const MAX_PART: usize = 350 * 1024;

/// Retention of an overflow item that no task refers to.
const ORPHAN: Duration = Duration::from_hours(24);

impl Table {
    /// Returns the task with its payload and result from overflow items.
    pub(crate) async fn complete(&self, read: Read) -> Result<Task, StoreError> {
        let mut task = read.task;
        if let Some(payload) = read.payload {
            // A missing payload becomes `null`. A handler usually refuses `null`, and the task ends. With an
            // error here, the task could never end.
            task.payload = self.read_body(&task.key(), &payload).await?.unwrap_or_else(|| {
                tracing::error!(task = %task.id, "the payload of a task is missing from the table; the handler gets null");
                Json::null()
            });
        }
        if let Some(result) = read.result {
            task.result = self.read_body(&task.key(), &result).await?;
        }
        Ok(task)
    }

    async fn read_body(&self, name: &TaskKey, body: &OverflowRef) -> Result<Option<Json>, StoreError> {
        let Some(first) = self.read(key_of(name, &body.key)).await? else { return Ok(None) };
        let reader = Reader(&first);
        let mut text = reader.text("body")?.to_owned();
        for index in 1..reader.optional_number::<usize>("parts")?.unwrap_or(1) {
            let Some(part) = self.read(key_of(name, &part_key(body, index))).await? else { return Ok(None) };
            text.push_str(Reader(&part).text("body")?);
        }
        Ok(Some(Json::from_text(text).map_err(|_| Unreadable("body"))?))
    }

    /// Writes a task's payload if the payload needs an overflow item.
    pub(crate) async fn write_payload(&self, task: &Task) -> Result<(), StoreError> {
        let Some(apart) = payload_apart(task) else { return Ok(()) };
        let absent = Expression::default().when("attribute_not_exists(#PK)");
        let items = items(&task.key(), &apart, &task.payload);
        try_join_all(items.into_iter().map(|item| self.put(item, absent.clone()))).await.map(drop)
    }

    /// Writes the overflow item of a result. The item expires after its task.
    pub(crate) async fn write_result(
        &self,
        name: &TaskKey,
        apart: &OverflowRef,
        result: &Json,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let until = expiry(now + self.retention + LONGER);
        let items = items(name, apart, result).into_iter().map(|mut item| {
            item.insert("expires_at".to_owned(), number(until));
            self.put(item, Expression::default())
        });
        try_join_all(items).await.map(drop)
    }

    /// Sets the expiry of a payload whose task was not written.
    pub(crate) async fn orphan_payload(&self, task: &Task, now: Timestamp) -> Result<(), StoreError> {
        self.age_payload(task, Some(now + ORPHAN)).await
    }

    /// Sets the expiry of the payload of an ended task. The payload expires after the task.
    pub(crate) async fn end_payload(&self, task: &Task, now: Timestamp) -> Result<(), StoreError> {
        self.age_payload(task, Some(now + self.retention + LONGER)).await
    }

    /// Removes the expiry of the payload of a task that starts again.
    pub(crate) async fn keep_payload(&self, task: &Task) -> Result<(), StoreError> {
        self.age_payload(task, None).await
    }

    /// Sets or removes a payload's expiry, unless a later version of its task has done so.
    async fn age_payload(&self, task: &Task, until: Option<Timestamp>) -> Result<(), StoreError> {
        let Some(apart) = payload_apart(task) else { return Ok(()) };
        let change = match until {
            Some(until) => Expression::default().set("expires_at", number(expiry(until))),
            None => Expression::default().remove("expires_at"),
        };
        let change = change.set("version", number(task.version));
        let change =
            change.when("attribute_exists(#PK) AND (attribute_not_exists(#version) OR #version < :version)");
        let updates = (0..parts(task.payload.get()).len())
            .map(|index| self.update(key_of(&task.key(), &part_key(&apart, index)), change.clone(), None));
        try_join_all(updates).await.map(drop)
    }
}

/// Returns the items of a text. The first item has the number of items.
fn items(name: &TaskKey, apart: &OverflowRef, json: &Json) -> Vec<Item> {
    let parts = parts(json.get());
    let mut items: Vec<Item> = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let body = [("body".to_owned(), text(*part))];
        items.push(key_of(name, &part_key(apart, index)).into_iter().chain(body).collect());
    }
    if let [first, _, ..] = &mut items[..] {
        first.insert("parts".to_owned(), number(parts.len() as u64));
    }
    items
}

/// Returns the sort key of a part of a text.
fn part_key(apart: &OverflowRef, index: usize) -> String {
    if index == 0 { apart.key.clone() } else { format!("{}.{index}", apart.key) }
}

/// Splits a text between characters into parts of at most [`MAX_PART`] bytes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > MAX_PART {
        let (part, after) = rest.split_at(rest.floor_char_boundary(MAX_PART));
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

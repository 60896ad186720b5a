//! Overflow items: payloads and results that are too long for their task's item. An overflow item is written
//! before the task that refers to it.
//!
//! A status update then costs one write unit for a payload of any size. If the task's write is refused, its
//! new payload expires a day later. If the process dies between the two writes, the overflow item stays.

use std::time::Duration;

use nobat_core::json::Json;
use nobat_core::ports::StoreError;
use nobat_core::task::{Task, TaskKey};
use nobat_core::types::time::Timestamp;

use crate::error::Unreadable;
use crate::expression::Expression;
use crate::item::{Item, OverflowRef, Read, expiry, key_of, number, payload_apart, text};
use crate::table::Table;

/// Time for which an overflow item is kept longer than its task, so that a visible task has its payload and
/// result.
const LONGER: Duration = Duration::from_hours(7 * 24);

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
        let Some(mut item) = self.read(key_of(name, &body.key)).await? else { return Ok(None) };
        let text =
            item.remove("body").and_then(|value| value.as_s().ok().cloned()).ok_or(Unreadable("body"))?;
        Ok(Some(Json::from_text(text).map_err(|_| Unreadable("body"))?))
    }

    /// Writes a task's payload if the payload needs an overflow item.
    pub(crate) async fn write_payload(&self, task: &Task) -> Result<(), StoreError> {
        let Some(apart) = payload_apart(task) else { return Ok(()) };
        let absent = Expression::default().when("attribute_not_exists(#PK)");
        self.put(body(&task.key(), &apart, &task.payload), absent).await.map(drop)
    }

    /// Writes the overflow item of a result. The item expires after its task.
    pub(crate) async fn write_result(
        &self,
        name: &TaskKey,
        apart: &OverflowRef,
        result: &Json,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut item = body(name, apart, result);
        item.insert("expires_at".to_owned(), number(expiry(now + self.retention + LONGER)));
        self.put(item, Expression::default()).await.map(drop)
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
        self.update(key_of(&task.key(), &apart.key), change, None).await.map(drop)
    }
}

fn body(name: &TaskKey, apart: &OverflowRef, json: &Json) -> Item {
    key_of(name, &apart.key).into_iter().chain([("body".to_owned(), text(json.get()))]).collect()
}

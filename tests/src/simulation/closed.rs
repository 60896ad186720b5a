//! Queues, kinds and endpoints whose tasks must not start because they are paused or removed.

use std::collections::BTreeMap;
use std::time::Duration;

use nobat_core::config::endpoint::Endpoint;
use nobat_core::config::queue::QueueConfig;
use nobat_core::config::record::{Record, RecordKind, RecordName};
use nobat_core::types::intervals::CONFIG_TTL;
use nobat_core::types::time::Timestamp;

/// Closed records, and the times since when they are closed.
#[derive(Default)]
pub struct Closed {
    since: BTreeMap<RecordName, Timestamp>,
}

impl Closed {
    /// Records the write of a record.
    pub fn written(&mut self, record: &Record, now: Timestamp) {
        let is_open = match record.name.kind {
            RecordKind::Endpoint => {
                Endpoint::from_text(&record.body, record.version).is_ok_and(|endpoint| endpoint.is_open())
            }
            _ => QueueConfig::from_text(&record.body, record.version).is_ok_and(|lane| !lane.paused),
        };
        if is_open {
            self.since.remove(&record.name);
        } else {
            self.since.entry(record.name.clone()).or_insert(now);
        }
    }

    /// Records the removal of a record. A removed queue or kind counts as open, a removed endpoint as closed.
    pub fn removed(&mut self, name: &RecordName, now: Timestamp) {
        if name.kind == RecordKind::Endpoint {
            self.since.entry(name.clone()).or_insert(now);
        } else {
            self.since.remove(name);
        }
    }

    /// Checks a start under these records by a task that was claimed at `claimed_at`. Returns an error if a
    /// record was closed so long before the claim that every process must know. Clocks differ by at most
    /// `apart`.
    pub fn begins(&self, of: &[RecordName], claimed_at: Timestamp, apart: Duration) -> Result<(), String> {
        let is_known = |name: &&RecordName| {
            self.since.get(name).is_some_and(|since| *since + CONFIG_TTL + apart < claimed_at)
        };
        match of.iter().find(is_known) {
            Some(name) => Err(format!(
                "a task has started although its {} {} was closed long before",
                name.kind.as_str(),
                name.name
            )),
            None => Ok(()),
        }
    }
}

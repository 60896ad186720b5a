//! What nobody may start, since somebody paused it, or took away the endpoint that it is for.

use std::collections::BTreeMap;
use std::time::Duration;

use nobat_core::directory::FRESH;
use nobat_core::endpoint::Endpoint;
use nobat_core::lane::Lane;
use nobat_core::registry::{Record, RecordName, Sort};
use nobat_core::time::Timestamp;

/// Since when each thing is closed that is.
#[derive(Default)]
pub struct Closed {
    since: BTreeMap<RecordName, Timestamp>,
}

impl Closed {
    /// A record was written.
    pub fn written(&mut self, record: &Record, now: Timestamp) {
        let is_open = match record.name.sort {
            Sort::Endpoint => Endpoint::from_text(&record.body, record.version).is_ok_and(|endpoint| endpoint.is_open()),
            _ => Lane::from_text(&record.body, record.version).is_ok_and(|lane| !lane.paused),
        };
        if is_open {
            self.since.remove(&record.name);
        } else {
            self.since.entry(record.name.clone()).or_insert(now);
        }
    }

    /// A record was removed: of a lane that is as good as open, and of an endpoint it is not.
    pub fn removed(&mut self, name: &RecordName, now: Timestamp) {
        if name.sort == Sort::Endpoint {
            self.since.entry(name.clone()).or_insert(now);
        } else {
            self.since.remove(name);
        }
    }

    /// A task begins that is of these, and was claimed then. Says which promise that breaks, if it does: that a change holds everywhere a
    /// while after it was made, by clocks that are so far apart at most.
    pub fn begins(&self, of: &[RecordName], claimed_at: Timestamp, apart: Duration) -> Result<(), String> {
        let is_known = |name: &&RecordName| self.since.get(name).is_some_and(|since| *since + FRESH + apart < claimed_at);
        match of.iter().find(is_known) {
            Some(name) => Err(format!("something of the {} {} has started, which was closed long before", name.sort.as_str(), name.name)),
            None => Ok(()),
        }
    }
}

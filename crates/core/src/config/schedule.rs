//! Schedules: tasks that are created at planned times.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::record::{Record, RecordKind, RecordName};
use crate::json::Json;
use crate::schedules::advance::{Missed, Overlap, Rules, ScheduleState};
use crate::schedules::timing::{CronTiming, Timing};
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Schedule of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Rule that gives the planned times, and rules for overlapping and missed planned times.
    pub rules: Rules,
    /// Maximum delay of a task after its planned time. Each planned time has its own delay.
    pub jitter: Duration,
    /// Template of the task, as the client sent it.
    pub task: Json,
    /// True if paused: a paused schedule creates no tasks.
    pub paused: bool,
    /// State at the time of the last write of the record. The task that runs the schedule starts with this
    /// state.
    pub state: ScheduleState,
    /// Random number. A schedule that was removed and created again under the same name gets a new number.
    pub incarnation: u64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Number of writes to the record, from 1.
    pub version: u64,
}

/// Stored form of a [`Schedule`]. The record stores the version separately.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<Timestamp>,
    overlap: Overlap,
    missed: Missed,
    #[serde(default)]
    jitter_ms: u64,
    task: Json,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    state: ScheduleState,
    incarnation: u64,
    created_at: Timestamp,
}

impl Schedule {
    /// Returns the name of the record.
    pub fn record_name(tenant: &Tenant, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind: RecordKind::Schedule, name: name.clone() }
    }

    /// Returns the record.
    pub fn record(&self, tenant: &Tenant, name: &Name) -> Record {
        let mut stored = Stored {
            cron: None,
            timezone: None,
            every_ms: None,
            at: Vec::new(),
            overlap: self.rules.overlap,
            missed: self.rules.missed,
            jitter_ms: millis(self.jitter),
            task: self.task.clone(),
            paused: self.paused,
            state: self.state.clone(),
            incarnation: self.incarnation,
            created_at: self.created_at,
        };
        match &self.rules.timing {
            Timing::Cron(cron) => {
                stored.cron = Some(cron.expression().to_owned());
                stored.timezone = Some(cron.zone().to_string());
            }
            Timing::Every(every) => stored.every_ms = Some(millis(*every)),
            Timing::At(times) => stored.at.clone_from(times),
        }
        let body = serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and JSON values"));
        Record { name: Self::record_name(tenant, name), version: self.version, body }
    }

    /// Reads the body of a record.
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        const UNREADABLE: Unreadable = Unreadable("a schedule");
        let stored: Stored = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
        let timing = match (stored.cron, stored.every_ms) {
            (Some(expression), _) => {
                let zone = stored.timezone.unwrap_or_default().parse().map_err(|_| UNREADABLE)?;
                Timing::Cron(CronTiming::new(&expression, zone).map_err(|_| UNREADABLE)?)
            }
            (None, Some(every)) => Timing::Every(Duration::from_millis(every)),
            (None, None) => Timing::At(stored.at),
        };
        Ok(Self {
            rules: Rules { timing, overlap: stored.overlap, missed: stored.missed },
            jitter: Duration::from_millis(stored.jitter_ms),
            task: stored.task,
            paused: stored.paused,
            state: stored.state,
            incarnation: stored.incarnation,
            created_at: stored.created_at,
            version,
        })
    }

    /// Returns the delay of the task of a planned time, from 0 to the jitter. The same name and planned time
    /// always give the same delay.
    pub fn delay(&self, name: &Name, planned_at: Timestamp) -> Duration {
        let max = millis(self.jitter);
        if max == 0 {
            return Duration::ZERO;
        }
        let text = format!("{name}/{}", planned_at.millis());
        let digest = crate::types::sha256::sha256(&[text.as_bytes()]);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Duration::from_millis(u64::from_be_bytes(first) % (max + 1))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

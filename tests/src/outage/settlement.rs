//! Content of the table once no user submits any more.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use nobat_core::ports::Clock;
use nobat_worker::system::SystemClock;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::outage::Sweeps;
use crate::outage::context::Stage;

/// Final states of the tasks.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Number of tasks whose users got a 202.
    accepted: usize,
    /// Ids of accepted tasks that are missing.
    lost: Vec<String>,
    /// Ids and items of tasks that did not succeed or did not end.
    unfinished: Vec<(String, String)>,
    /// Number of tasks in the table whose users never got a 202.
    recovered: usize,
    /// Number of tasks with more than one claim.
    again: usize,
    /// Number of tasks that had not ended when the users stopped.
    late: usize,
    took: Duration,
}

/// Interval between two looks at the table.
const LOOK: Duration = Duration::from_secs(2);
/// Maximum wait for the last task. The sweep finds it when its mark comes, minutes after its lease expired,
/// and may have to do so twice.
const PATIENCE: Duration = Duration::from_mins(10);
/// Time by which timestamps are set back.
const BACK: Duration = Duration::from_mins(1);

impl Settlement {
    /// Waits until all tasks have ended.
    pub(crate) async fn reach(stage: &Stage, accepted: &[Value], sweeps: Sweeps) -> Self {
        let (begun, mut late) = (Instant::now(), None);
        loop {
            let tasks = tasks(stage).await;
            let left: Vec<&Value> = tasks.values().filter(|task| !has_ended(task)).collect();
            late.get_or_insert(left.len());
            if left.is_empty() || begun.elapsed() > PATIENCE {
                return Self {
                    late: late.unwrap_or_default(),
                    took: begun.elapsed(),
                    ..Self::of(accepted, &tasks)
                };
            }
            if sweeps == Sweeps::Hurried {
                for task in left {
                    set_back(stage, task).await;
                }
            }
            sleep(LOOK).await;
        }
    }

    fn of(accepted: &[Value], tasks: &BTreeMap<String, Value>) -> Self {
        let mut settlement = Self { accepted: accepted.len(), recovered: tasks.len(), ..Self::default() };
        for task in accepted {
            let id = task["id"].as_str().unwrap_or_default().to_owned();
            if tasks.contains_key(&id) {
                settlement.recovered -= 1;
            } else {
                settlement.lost.push(id);
            }
        }
        for (id, task) in tasks {
            if status(task) != "succeeded" {
                settlement.unfinished.push((id.clone(), task.to_string()));
            }
            settlement.again += usize::from(task["token"]["N"] != "1");
        }
        settlement
    }

    /// Returns the violations, in words.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let lost = self.lost.iter().map(|id| format!("{id} was accepted, but is lost"));
        let unfinished = self.unfinished.iter().map(|(id, task)| format!("{id} did not succeed: {task}"));
        lost.chain(unfinished).collect()
    }
}

impl Display for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tasks accepted, {} lost, {} not done; {} stored without a 202 to their user, {} with more than one attempt; {} left to the \
             sweep at the end, which took {:.0} s",
            self.accepted,
            self.lost.len(),
            self.unfinished.len(),
            self.recovered,
            self.again,
            self.late,
            self.took.as_secs_f64()
        )
    }
}

/// Returns the tasks in the table, by id.
async fn tasks(stage: &Stage) -> BTreeMap<String, Value> {
    let items = stage.table.items().await.into_iter().filter(|item| item["SK"]["S"] == "task");
    let id = |item: &Value| {
        item["PK"]["S"].as_str().and_then(|key| key.rsplit('#').next()).unwrap_or_default().to_owned()
    };
    items.map(|item| (id(&item), item)).collect()
}

fn status(task: &Value) -> &str {
    task["status"]["S"].as_str().unwrap_or_default()
}

fn has_ended(task: &Value) -> bool {
    matches!(status(task), "succeeded" | "failed" | "canceled" | "expired")
}

/// Makes the next sweep see the task. It may end a lease, because no attempt can still be running.
async fn set_back(stage: &Stage, item: &Value) {
    let (now, id) = (
        SystemClock.now(),
        item["PK"]["S"].as_str().and_then(|key| key.rsplit('#').next()).unwrap_or_default(),
    );
    let (task, past) = (json!({"id": id}), now - BACK);
    match status(item) {
        "running" => stage.table.set_moments(&task, &[("lease_until", past), ("sweep_at", past)]).await,
        _ => stage.table.set_moments(&task, &[("sweep_at", past)]).await,
    }
}

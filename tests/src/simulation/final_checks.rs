//! Final checks, when everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt;
use nobat_core::limits::LimiterKey;
use nobat_core::ports::{InsertResult, ListQuery};
use nobat_core::service::backend::Backend;
use nobat_core::task::retry::Schedule;
use nobat_core::task::{AttemptOutcome, Completion, ErrorCode, Outcome, State, Task, TaskKey};
use nobat_core::types::time::Timestamp;
use nobat_worker::maintenance::pruner::Pruner;

use super::handlers::{PERMANENT, Script, Wrong};
use super::ledger::{Key, Ledger, key};
use super::limits::{self, Laid};
use crate::conformance::{RETENTION, Removal};
use crate::sample;
use crate::simulation::context::{Stage, short};
use crate::simulation::store_monitor::Witness;

const AT_ONCE: &str = "the simulated store answers at once";

/// Returns the first broken promise.
pub fn judge(stage: &Stage, witness: &Witness, backend: &Backend, removal: Removal) -> Result<(), String> {
    let tasks = read_all(stage, backend)?;
    let ledger = stage.ledger();
    every_accepted_task_has_ended(&tasks, &ledger)?;
    let mut callbacks: BTreeMap<Key, BTreeSet<_>> = BTreeMap::new();
    for task in tasks.values() {
        if let Some(parent) = task.options.parent {
            callbacks.entry((task.tenant.clone(), parent)).or_default().insert(task.id);
        }
    }
    for (key, task) in &tasks {
        let told = |what: String| format!("{}: {what}\n{task:?}", short(&task.key()));
        is_known(key, task, &ledger, witness).map_err(told)?;
        if callbacks.remove(key).unwrap_or_default() != witness.callbacks_of(key) {
            return Err(told(
                "the task does not have exactly one callback for each end to report".to_owned(),
            ));
        }
        is_on_record(key, task, &ledger).map_err(told)?;
        check_failure(task).map_err(told)?;
        // Too many deferrals spend attempts, which makes the end unpredictable.
        let is_known = !ledger.meddled_with.contains(key)
            && ledger.put_off(key) < usize::try_from(Task::MAX_PUT_OFF).unwrap_or(0);
        if stage.plan.is_calm() && task.options.parent.is_none() && is_known {
            check_scripted_end(key, task, &ledger).map_err(told)?;
        }
    }
    drop(ledger);
    stage.time.advance(RETENTION + Duration::from_hours(1));
    match removal {
        Removal::ByPruning => all_are_pruned(stage, backend, tasks.len()),
        Removal::ByItself => all_are_hidden(stage, backend, tasks.into_values().next()),
    }
}

/// Checks that no reservation is left. In a calm run, a reservation ends with its task, so none may remain
/// when no task waits.
pub fn check_reservations(stage: &Stage, backend: &Backend, ended_at: Timestamp) -> Result<(), String> {
    for tenant in limits::TENANTS.map(sample::tenant) {
        for Laid { of, limits } in stage.plan.limits.iter().filter(|_| stage.plan.is_calm()) {
            let name = LimiterKey { tenant: tenant.clone(), scope: of.clone() };
            let kept = backend
                .limiters
                .read(&name)
                .now_or_never()
                .ok_or(AT_ONCE)?
                .map_err(|error| error.to_string())?;
            let left = kept.limiter.state(limits, ended_at).reserved_starts.unwrap_or(0);
            if left > 0 {
                return Err(format!(
                    "{left} starts of {of} are reserved at {ended_at}, although no task waits: {}",
                    kept.limiter.to_text()
                ));
            }
        }
    }
    Ok(())
}

/// Checks that all tasks are pruned once their retention is over.
fn all_are_pruned(stage: &Stage, backend: &Backend, count: usize) -> Result<(), String> {
    let pruned = Pruner { backend: backend.clone() }.run_once(stage.time.now()).now_or_never();
    match pruned.ok_or(AT_ONCE)?.map_err(|error| error.to_string())? {
        // Limiter states and the audit trail are pruned at the same time, and `run_once` returns the largest
        // count.
        pruned if pruned < count => Err(format!("only {pruned} of {count} tasks were pruned")),
        _ if !read_all(stage, backend)?.is_empty() => Err("a list shows a removed task".to_owned()),
        _ => Ok(()),
    }
}

/// Checks that expired tasks are hidden and their names are free, even before the database removes them.
fn all_are_hidden(stage: &Stage, backend: &Backend, some: Option<Task>) -> Result<(), String> {
    for _ in 0..3 {
        if !read_all(stage, backend)?.is_empty() {
            return Err("a list shows a task past its retention".to_owned());
        }
    }
    let Some(task) = some else { return Ok(()) };
    let (now, payload) = (stage.time.now(), task.payload);
    let again = Task { tenant: task.tenant, id: task.id, payload, ..sample::task(0, now) };
    let inserted = backend
        .store
        .insert(vec![again.clone()], now)
        .now_or_never()
        .ok_or(AT_ONCE)?
        .map_err(|error| error.to_string())?;
    let found = backend
        .store
        .get(&again.key(), now)
        .now_or_never()
        .ok_or(AT_ONCE)?
        .map_err(|error| error.to_string())?;
    match inserted {
        InsertResult::Created(_) if found.as_ref() == Some(&again) => Ok(()),
        _ => Err(format!("{} is past its retention, but its name is not free", short(&again.key()))),
    }
}

/// Reads all tasks of all tenants by walking the lists.
fn read_all(stage: &Stage, backend: &Backend) -> Result<BTreeMap<Key, Task>, String> {
    let now = stage.time.now();
    let mut tasks = BTreeMap::new();
    for tenant in limits::TENANTS.map(sample::tenant) {
        let mut query = ListQuery::all(tenant, 7);
        loop {
            let page = backend
                .store
                .list(&query, now)
                .now_or_never()
                .ok_or(AT_ONCE)?
                .map_err(|error| error.to_string())?;
            for listed in page.tasks {
                let name = listed.key();
                let found = backend
                    .store
                    .get(&name, now)
                    .now_or_never()
                    .ok_or(AT_ONCE)?
                    .map_err(|error| error.to_string())?;
                let task = found.ok_or_else(|| format!("{} is listed, but is not stored", short(&name)))?;
                if tasks.insert(key(&name), task).is_some() {
                    return Err(format!("{} is listed twice", short(&name)));
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    Ok(tasks)
}

fn every_accepted_task_has_ended(tasks: &BTreeMap<Key, Task>, ledger: &Ledger) -> Result<(), String> {
    for (tenant, id) in &ledger.accepted {
        let name = TaskKey { tenant: tenant.clone(), id: *id };
        match tasks.get(&(tenant.clone(), *id)) {
            None => return Err(format!("{} was accepted, but is not stored", short(&name))),
            Some(task) if !matches!(task.state, State::Ended(_)) => {
                return Err(format!("{} was accepted, but has not ended", short(&name)));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks that a client submitted the task, or that it is the callback of an end.
fn is_known(key: &Key, task: &Task, ledger: &Ledger, witness: &Witness) -> Result<(), String> {
    match (task.options.parent, ledger.asked_for.get(key)) {
        (None, None) => Err("no client submitted the task".to_owned()),
        (Some(parent), _) if !witness.callbacks_of(&(task.tenant.clone(), parent)).contains(&task.id) => {
            Err("the task is a callback without an end".to_owned())
        }
        _ => Ok(()),
    }
}

/// Checks that each claim ran at most once and that each execution is on record.
fn is_on_record(key: &Key, task: &Task, ledger: &Ledger) -> Result<(), String> {
    let mut runs = BTreeSet::new();
    for execution in ledger.executions_of(key) {
        if execution.token == 0 || execution.token > task.token || !runs.insert(execution.token) {
            return Err(format!(
                "the task ran with token {}, which was not granted, or was used before",
                execution.token
            ));
        }
    }
    let recorded: BTreeSet<u64> = task.attempts.iter().map(|attempt| attempt.number).collect();
    let oldest = if task.attempts.len() < Task::KEPT_ATTEMPTS { 0 } else { task.attempts[0].number };
    if let Some(missing) = runs.iter().find(|run| **run >= oldest && !recorded.contains(run)) {
        return Err(format!("the task ran with token {missing}, but the attempt is not on record"));
    }
    let ran = |outcome| matches!(outcome, AttemptOutcome::Succeeded | AttemptOutcome::Failed);
    match task.attempts.iter().find(|attempt| ran(attempt.outcome) && !runs.contains(&attempt.number)) {
        Some(attempt) => Err(format!("attempt {} is on record, but never ran", attempt.number)),
        None => Ok(()),
    }
}

/// Checks that a failed task had exhausted its retry policy or a permanent error. The monitor checks dead
/// letters.
fn check_failure(task: &Task) -> Result<(), String> {
    let State::Ended(Completion { end: Outcome::Failed, .. }) = task.state else { return Ok(()) };
    let is_for_good = task
        .error
        .as_ref()
        .is_some_and(|error| [PERMANENT, ErrorCode::DISPATCH_FAILED].contains(&error.code.as_str()));
    if is_for_good || task.attempt == task.options.retry.max_attempts() {
        return Ok(());
    }
    Err("the task failed with attempts left".to_owned())
}

/// Checks that a task ended as its script says, after exactly the attempts that this takes, independent of
/// other tasks. Valid where only the task itself can fail.
fn check_scripted_end(key: &Key, task: &Task, ledger: &Ledger) -> Result<(), String> {
    let script: Script = task.payload.parse().map_err(|error| error.to_string())?;
    let allowed = task.options.retry.max_attempts();
    let is_too_slow = u128::from(script.seconds) * 1_000 > task.options.timeout.as_millis();
    let gives_up_at_once = script.failures > 0 && script.failure == Wrong::Permanent && !is_too_slow;
    let (end, attempts) = match () {
        () if gives_up_at_once => (Outcome::Failed, 1),
        () if is_too_slow || script.failures >= allowed => (Outcome::Failed, allowed),
        () => (Outcome::Succeeded, script.failures + 1),
    };
    let State::Ended(ended) = &task.state else { return Err("the task has not ended".to_owned()) };
    let put_off = ledger.put_off(key);
    let runs = ledger.executions_of(key).count() - put_off;
    if (ended.end, task.attempt, runs) != (end, attempts, attempts as usize) {
        return Err(format!(
            "the task did not end as {} after {attempts} attempts; it ran {runs} times",
            end.as_str()
        ));
    }
    if let Schedule::Delays(delays) = &task.options.retry.schedule
        && put_off == 0
    {
        let pauses = task.attempts.windows(2).map(|pair| pair[1].started_at.since(pair[0].finished_at));
        if pauses.zip(delays).any(|(pause, delay)| pause < *delay) {
            return Err("a retry started before its delay was over".to_owned());
        }
    }
    let timed_out = task.error.as_ref().is_some_and(|error| error.code.as_str() == ErrorCode::TIMEOUT);
    let hangs = script.failures >= allowed && script.failure == Wrong::Hang;
    if timed_out != ((is_too_slow || hangs) && end == Outcome::Failed) {
        return Err("the task's error does not match its script".to_owned());
    }
    Ok(())
}

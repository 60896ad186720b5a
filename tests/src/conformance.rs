//! Conformance suite of every backend, written against the ports.
//!
//! [`conformance_cases`](crate::conformance_cases) turns each case into a test. The backend supplies a
//! function that creates an empty [`World`] around it. Time is virtual and passes only when a case advances
//! it.

pub mod claim;
pub mod commit;
pub mod config;
pub mod events;
pub mod explain;
pub mod heartbeat;
pub mod insert;
pub mod limiters;
pub mod list;
pub mod queue;
pub mod replay;
pub mod retention;
pub mod schedules;
pub mod sweep;
pub mod waits;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use nobat_core::ports::{ClaimResult, CommitResult, Delivery, InsertResult, Settlement};
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::{Change, Event, Retry, transition};
use nobat_core::task::{Task, TaskError, TaskKey};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::jitter_sample::JitterSample;
use nobat_core::types::time::Timestamp;

use crate::sample;
use crate::time::Time;

/// Retention of ended tasks in backends under test: 30 days.
pub const RETENTION: Duration = Duration::from_hours(30 * 24);

/// Passes all cases, grouped by noun, to the macro `$test`.
#[macro_export]
macro_rules! conformance_cases {
    ($test:ident) => {
        $test! {
            insert: [
                reads_back_bit_for_bit, existing_id_returns_the_stored_task, writes_a_batch_whole_or_not_at_all,
                keeps_tenants_apart, takes_the_largest_payload, missing_task_is_not_found
            ]
            claim: [
                agrees_with_the_lifecycle_on_every_state, missing_task_is_not_claimed, grants_one_of_two_concurrent_claims,
                grants_each_token_once
            ]
            commit: [
                reads_back_every_transition, refuses_a_stale_version, refuses_a_missing_task, writes_the_callback_with_the_end,
                writes_no_callback_when_refused, takes_a_large_result, wakes_waiting_callers
            ]
            heartbeat: [
                renews_the_lease, keeps_the_progress_until_it_is_replaced, reports_a_requested_cancellation,
                is_lost_without_the_newest_lease, outdates_the_workers_copy
            ]
            list: [
                shows_the_newest_first, filters, pages_show_every_task_once, page_scans_a_bounded_number,
                listed_task_equals_the_stored_one, counts_waiting_tasks
            ]
            replay: [
                same_generation_is_replayed_once, carries_out_a_request_once, remembers_a_bounded_number_of_requests
            ]
            sweep: [
                shows_an_expired_lease, shows_a_passed_deadline, shows_a_due_task_whose_hint_was_lost, shows_a_bounded_number,
                hides_tasks_that_need_no_sweep, hides_a_postponed_task, stale_postponement_does_not_hide_a_change
            ]
            retention: [
                prunes_tasks_past_their_retention, prunes_a_bounded_number, hides_tasks_past_their_retention,
                frees_the_name_for_another_task, reports_both_tasks_of_one_name, restarts_after_a_replay
            ]
            queue: [
                delivers_a_due_task, delivers_a_task_when_it_becomes_due, delivers_a_task_inserted_while_waiting,
                delivers_each_task_to_one_worker, delivers_no_more_than_requested, delivers_no_task_before_it_is_due,
                delivers_a_released_task_again, delivers_a_retry_and_a_callback, loses_no_task_when_dropped,
                delivers_no_expired_task, delivers_tasks_of_every_tenant
            ]
            limiters: [
                reads_back_the_written_state, refuses_to_write_over_another_version, keeps_limiters_apart,
                lift_ends_the_pause_of_one_limiter, prunes_idle_limiters
            ]
            events: [
                event_creates_one_task_for_each_subscription, subscription_gets_events_after_it_was_written,
                all_subscriptions_get_the_event, lists_events_by_type
            ]
            schedules: [planned_time_creates_one_task, changed_schedule_ends_its_earlier_task]
            waits: [
                accepted_call_waits_for_one_completion, completion_during_the_call_ends_the_task,
                reported_failure_is_retried_with_another_token, time_out_fails_or_retries_the_task, time_out_creates_one_task
            ]
            explain: [names_a_pause_while_it_lasts, names_a_rate_and_its_reservations]
            config: [
                finds_the_written_record, writes_a_record_without_an_entry, writes_all_or_nothing, keeps_records_of_tenants_apart, removes_only_the_read_version,
                pages_by_name, lists_the_audit_trail, records_an_entry_with_its_change, prunes_old_audit_entries, takes_no_more_than_the_rate,
                writes_records_and_tasks_together
            ]
        }
    };
}

/// Place where a backend keeps its hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// The backend has no hints: the queue is an index over the tasks.
    InTheStore,
    /// The hints are in a queue that is separate from the store, so that a hint can be lost.
    Apart,
}

/// Actor that removes tasks whose retention is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A call of `prune` removes them.
    ByPruning,
    /// The database removes them by itself, at an unspecified time.
    ByItself,
}

/// Empty backend and its virtual time.
pub struct World {
    /// Backend under test.
    pub backend: Backend,
    /// Virtual time of the backend.
    pub time: Arc<Time>,
    /// Place of its hints.
    pub hints: Hints,
    /// Actor that removes tasks whose retention is over.
    pub removal: Removal,
    /// Value that must outlive the backend, such as the directory of its file.
    pub keep: Option<Box<dyn Any>>,
}

/// Runs one case on one backend.
pub fn check<F: Future<Output = ()>>(
    make: impl AsyncFnOnce(Arc<Time>) -> World,
    case: impl FnOnce(World) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async { case(make(Time::at(sample::start())).await).await });
}

impl World {
    /// Returns the current virtual time.
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Stores a task, without a hint.
    pub async fn insert(&self, task: Task) -> Task {
        self.insert_all(vec![task]).await.remove(0)
    }

    /// Stores tasks, without hints.
    pub async fn insert_all(&self, tasks: Vec<Task>) -> Vec<Task> {
        match self.backend.store.insert(tasks, self.now()).await.unwrap() {
            InsertResult::Created(tasks) => tasks,
            InsertResult::Existing(tasks) => panic!("the tasks exist already: {tasks:?}"),
        }
    }

    /// Stores tasks with their hints, as the API does.
    pub async fn accept(&self, tasks: Vec<Task>) {
        let inserted = self.backend.accept(tasks, self.now()).await.unwrap();
        assert!(matches!(inserted, InsertResult::Created(_)), "{inserted:?}");
    }

    /// Returns the stored task, or `None`.
    pub async fn find(&self, name: &TaskKey) -> Option<Task> {
        self.backend.store.get(name, self.now()).await.unwrap()
    }

    /// Returns the stored task, which must exist.
    pub async fn get(&self, task: &Task) -> Task {
        self.find(&task.key()).await.unwrap_or_else(|| panic!("{} is missing", task.id))
    }

    /// Claims a task. Panics if the claim is not granted.
    pub async fn claim(&self, task: &Task) -> Task {
        match self.backend.store.claim(&task.key(), self.now() + LEASE, self.now()).await.unwrap() {
            ClaimResult::Granted(task) => task,
            other => panic!("{other:?}"),
        }
    }

    /// Prunes up to `limit` tasks and checks that `expected` are removed. If the database removes them by
    /// itself, it expects 0.
    pub async fn prune(&self, limit: usize, expected: usize) {
        let expected = if self.removal == Removal::ByPruning { expected } else { 0 };
        assert_eq!(self.backend.store.prune(limit, self.now()).await.unwrap(), expected);
    }

    /// Commits a change. Panics on a conflict.
    pub async fn commit(&self, change: Change) -> Task {
        match self.backend.store.commit(change, self.now()).await.unwrap() {
            CommitResult::Done(task) => *task,
            CommitResult::Conflict => panic!("the commit met a conflict"),
        }
    }

    /// Applies an event to the task as given, and commits the change.
    pub async fn bring(&self, task: &Task, event: Event) -> Task {
        self.commit(self.change(task, event)).await
    }

    /// Returns the change that an event makes to the task.
    pub fn change(&self, task: &Task, event: Event) -> Change {
        transition(task.clone(), event, self.now()).unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// Receives up to `max` tasks as a worker does: claims a task that is only hinted at, and acknowledges
    /// its message.
    pub async fn receive(&self, max: usize) -> Vec<Task> {
        let mut taken = Vec::new();
        for delivery in self.backend.queue.receive(max).await.unwrap() {
            match delivery {
                Delivery::Claimed(task) => taken.push(*task),
                Delivery::Hint { name, receipt } => {
                    if let ClaimResult::Granted(task) =
                        self.backend.store.claim(&name, self.now() + LEASE, self.now()).await.unwrap()
                    {
                        taken.push(task);
                    }
                    self.backend.queue.settle(vec![(receipt, Settlement::Acknowledge)]).await.unwrap();
                }
            }
        }
        taken
    }

    /// Checks that the queue hands over nothing before `sentinel`, which this method accepts.
    ///
    /// Only the next delivery can show that nothing else comes, because the backend may have threads of its
    /// own.
    pub async fn receives_next(&self, sentinel: Task) {
        let name = sentinel.key();
        self.accept(vec![sentinel]).await;
        let taken: Vec<TaskKey> = self.receive(10).await.iter().map(Task::key).collect();
        assert_eq!(taken, [name], "the queue delivers only the task that was accepted last");
    }
}

/// Polls a future once, and returns its output if it is ready.
async fn begin<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_immediate(future).await
}

fn succeed(task: &Task) -> Event {
    Event::Succeed { token: task.token, result: sample::json(r#"{"done": 1.0}"#) }
}

fn fail(task: &Task, retry: Retry) -> Event {
    Event::Fail {
        token: task.token,
        error: TaskError::new("http_503", "the endpoint is «busy»"),
        retry,
        policy: None,
        spread: JitterSample::from_bits(0),
    }
}

fn names(tasks: &[Task]) -> Vec<TaskKey> {
    tasks.iter().map(Task::key).collect()
}

#[cfg(test)]
mod tests {
    /// Guards against a case that is written but not listed: it would never run.
    #[test]
    fn every_case_is_listed() {
        let files = [
            ("insert", include_str!("conformance/insert.rs")),
            ("claim", include_str!("conformance/claim.rs")),
            ("commit", include_str!("conformance/commit.rs")),
            ("heartbeat", include_str!("conformance/heartbeat.rs")),
            ("list", include_str!("conformance/list.rs")),
            ("replay", include_str!("conformance/replay.rs")),
            ("sweep", include_str!("conformance/sweep.rs")),
            ("retention", include_str!("conformance/retention.rs")),
            ("queue", include_str!("conformance/queue.rs")),
            ("limiters", include_str!("conformance/limiters.rs")),
            ("events", include_str!("conformance/events.rs")),
            ("schedules", include_str!("conformance/schedules.rs")),
            ("waits", include_str!("conformance/waits.rs")),
            ("explain", include_str!("conformance/explain.rs")),
            ("config", include_str!("conformance/config.rs")),
        ];
        macro_rules! listed {
            ($($noun:ident: [$($case:ident),*])*) => { [$((stringify!($noun), vec![$(stringify!($case)),*])),*] };
        }
        let listed = crate::conformance_cases!(listed);
        assert_eq!(files.len(), listed.len());
        for ((noun, source), (listed_noun, cases)) in files.into_iter().zip(listed) {
            let written: Vec<_> =
                source.split("pub async fn ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
            assert_eq!((noun, written), (listed_noun, cases));
        }
    }
}

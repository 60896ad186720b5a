//! Failures of the AWS backend: lost answers, missing bodies, and sweep marks far ahead.

use std::sync::Arc;
use std::time::Duration;

use nobat_aws::Settings;
use nobat_core::ports::{ClaimResult, CommitResult, InsertResult};
use nobat_core::secrets::vault::NoVault;
use nobat_core::service::backend::Backend;
use nobat_core::task::lifecycle::{Event, ReplayKey, transition};
use nobat_core::task::{Outcome, State, Status, Task, TaskKey};
use nobat_core::types::intervals::LEASE;
use nobat_core::types::time::Timestamp;
use nobat_tests::aws::client::Service;
use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::fault_proxy::{Flow, Tap};
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::conformance::RETENTION;
use nobat_tests::sample;
use nobat_worker::maintenance::sweeper::Sweeper;
use nobat_worker::system::SystemRandom;
use serde_json::{Value, json};

/// Backend behind a tap, and direct access to its table and queues.
struct Cloud {
    backend: Backend,
    table: Table,
    queues: Queues,
    tap: Tap,
    now: Timestamp,
}

impl Cloud {
    async fn start() -> Self {
        let emulator = Emulator::shared();
        let tap = Tap::before(emulator.address()).await.unwrap();
        let (table, queues) = (
            Table::create(emulator.client()).await,
            Queues::create(emulator.client(), Duration::from_secs(30)).await,
        );
        let settings = Settings {
            table: table.name().to_owned(),
            queue_url: queues.hints().to_owned(),
            retention: RETENTION,
        };
        let backend = nobat_aws::connect_to_emulator(&settings, &tap.url()).await;
        Self { backend, table, queues, tap, now: sample::start() }
    }

    async fn insert(&self, tasks: Vec<Task>) -> Vec<Task> {
        match self.backend.store.insert(tasks, self.now).await.unwrap() {
            InsertResult::Created(tasks) => tasks,
            InsertResult::Existing(tasks) => panic!("the tasks exist already: {tasks:?}"),
        }
    }

    async fn claim(&self, name: &TaskKey) -> Task {
        match self.backend.store.claim(name, self.now + LEASE, self.now).await.unwrap() {
            ClaimResult::Granted(task) => task,
            other => panic!("{other:?}"),
        }
    }

    async fn apply(&self, task: &Task, event: Event) -> Task {
        let change = transition(task.clone(), event, self.now).unwrap();
        match self.backend.store.commit(change, self.now).await.unwrap() {
            CommitResult::Done(task) => *task,
            CommitResult::Conflict => panic!("a conflict"),
        }
    }

    async fn get(&self, name: &TaskKey) -> Task {
        self.backend.store.get(name, self.now).await.unwrap().unwrap()
    }

    /// Runs `work`, and loses the answer of its first call.
    async fn with_lost_response<T>(&self, work: impl Future<Output = T>) -> T {
        self.tap.set(Flow::LosesNextReply);
        let done = work.await;
        assert_eq!(self.tap.flow(), Flow::Open, "a reply was lost");
        done
    }

    fn sweeper(&self) -> Sweeper {
        Sweeper { backend: self.backend.clone(), random: Arc::new(SystemRandom) }
    }

    /// Returns the items that hold bodies: their sort keys and expiry times in seconds.
    async fn bodies(&self) -> Vec<(String, Option<i64>)> {
        let items = self.table.items().await;
        let body = |item: &Value| {
            let key = item["SK"]["S"].as_str().unwrap().to_owned();
            let goes = item["expires_at"]["N"].as_str().map(|digits| digits.parse().unwrap());
            (key != "task").then_some((key, goes))
        };
        items.iter().filter_map(body).collect()
    }
}

fn large_task(number: u128, now: Timestamp) -> Task {
    Task { payload: sample::json(&format!("\"{}\"", "x".repeat(5_000))), ..sample::task(number, now) }
}

fn succeed(task: &Task) -> Event {
    Event::Succeed { token: task.token, result: sample::json("1") }
}

#[tokio::test]
async fn write_with_a_lost_response_is_recognized() {
    let cloud = Cloud::start().await;
    let task = cloud
        .with_lost_response(cloud.insert(vec![sample::reported(sample::task(1, cloud.now))]))
        .await
        .remove(0);
    let batch = cloud
        .with_lost_response(cloud.insert((2..12).map(|number| sample::task(number, cloud.now)).collect()))
        .await;
    let running = cloud.with_lost_response(cloud.claim(&task.key())).await;
    assert_eq!((running.token, running.attempt), (1, 1));
    let ended = cloud.with_lost_response(cloud.apply(&running, succeed(&running))).await;
    assert_eq!(cloud.get(&task.key()).await, ended);
    let canceled = cloud.with_lost_response(cloud.apply(&batch[0], Event::Cancel)).await;
    assert_eq!(cloud.get(&canceled.key()).await, canceled);
    assert_eq!(
        cloud.table.items().await.len(),
        12,
        "ten tasks of the batch, one single task and its callback"
    );
}

#[tokio::test]
async fn missing_payload_does_not_block_the_sweep_of_other_tasks() {
    let mut cloud = Cloud::start().await;
    let tasks = cloud.insert(vec![large_task(1, cloud.now), sample::task(2, cloud.now)]).await;
    let running = cloud.claim(&tasks[0].key()).await;
    let (body, _) = cloud.bodies().await.remove(0);
    let key = json!({ "PK": { "S": format!("T#default#{}", running.id) }, "SK": { "S": body } });
    let delete = json!({ "TableName": cloud.table.name(), "Key": key });
    Emulator::shared().client().dynamodb("DeleteItem", &delete).await;
    cloud.now = cloud.now + Duration::from_mins(10);
    let swept = cloud.sweeper().run_once(cloud.now).await.unwrap();
    assert_eq!((swept.judged, swept.hinted, swept.failed), (1, 1, 0));
    assert_eq!(cloud.get(&running.key()).await.attempts.len(), 1, "the crash is recorded");
}

#[tokio::test]
async fn payload_is_stored_per_task_and_expires_with_it() {
    let mut cloud = Cloud::start().await;
    let first = cloud.insert(vec![large_task(1, cloud.now)]).await.remove(0);
    assert_eq!(cloud.bodies().await[0].1, None);
    let running = cloud.claim(&first.key()).await;
    let ended = cloud.apply(&running, succeed(&running)).await;
    let end = (cloud.now + RETENTION).millis() / 1_000;
    assert!(cloud.bodies().await[0].1.unwrap() > end, "the payload is kept as long as its task");
    let replayed = cloud.apply(&ended, Event::Replay { key: ReplayKey::Same, generation: None }).await;
    assert_eq!(cloud.bodies().await[0].1, None, "a replay needs the payload again");
    cloud.apply(&replayed, Event::Cancel).await;
    cloud.now = cloud.now + RETENTION + Duration::from_millis(1);
    let second = Task { id: first.id, ..large_task(2, cloud.now) };
    cloud.insert(vec![second.clone()]).await;
    let mut goes: Vec<_> = cloud.bodies().await.into_iter().map(|(_, goes)| goes.is_some()).collect();
    goes.sort_unstable();
    assert_eq!(goes, [false, true], "the first payload expires, the second does not");
    assert_eq!(cloud.get(&second.key()).await.payload, second.payload);
}

#[tokio::test]
async fn payload_of_a_refused_request_expires_after_a_day() {
    let cloud = Cloud::start().await;
    let task = cloud.insert(vec![large_task(1, cloud.now)]).await.remove(0);
    let other = Task { payload: sample::json(&format!("\"{}\"", "y".repeat(5_000))), ..task.clone() };
    let refused = cloud.backend.store.insert(vec![other], cloud.now).await.unwrap();
    assert!(matches!(&refused, InsertResult::Existing(found) if *found == [task]), "{refused:?}");
    let again = cloud.backend.store.insert(vec![large_task(1, cloud.now)], cloud.now).await.unwrap();
    assert!(matches!(again, InsertResult::Existing(_)));
    let mut goes: Vec<_> = cloud.bodies().await.into_iter().map(|(_, goes)| goes).collect();
    goes.sort_unstable();
    let day = cloud.now + Duration::from_hours(24);
    assert_eq!(
        goes,
        [None, Some(day.millis() / 1_000 + 1)],
        "the payload of the accepted request does not expire"
    );
}

#[tokio::test]
async fn crashed_worker_is_detected_although_its_task_was_postponed() {
    let mut cloud = Cloud::start().await;
    let task = cloud.insert(vec![sample::with_attempts(1, 2, cloud.now)]).await.remove(0);
    cloud.backend.store.postpone(&task, cloud.now + Duration::from_hours(1)).await.unwrap();
    let running = cloud.claim(&task.key()).await;
    cloud.now = cloud.now + LEASE + Duration::from_mins(2);
    assert_eq!(cloud.sweeper().run_once(cloud.now).await.unwrap().judged, 1);
    let crashed = cloud.get(&running.key()).await;
    assert!(matches!(crashed.state, State::Waiting(_)) && crashed.attempts.len() == 1, "{crashed:?}");
}

#[tokio::test]
async fn callback_payload_of_a_failed_write_expires() {
    let cloud = Cloud::start().await;
    let task = cloud.insert(vec![sample::reported(sample::task(1, cloud.now))]).await.remove(0);
    let running = cloud.claim(&task.key()).await;
    cloud.backend.store.heartbeat(&task.key(), running.token, cloud.now + LEASE, None).await.unwrap();
    let result = sample::json(&format!("\"{}\"", "r".repeat(2_000)));
    let event = Event::Succeed { token: running.token, result };
    let ended = cloud.backend.apply(&task.key(), Some(running), event, cloud.now).await.unwrap();
    assert_eq!(ended.status(cloud.now), Status::Ended(Outcome::Succeeded));
    let stays = cloud.bodies().await.into_iter().filter(|(_, goes)| goes.is_none()).count();
    assert_eq!(stays, 1, "only the payload of the stored callback does not expire");
}

/// SQS's fair queues depend on the group. The emulator cannot show their fairness.
#[tokio::test]
async fn every_hint_carries_its_tenant_as_message_group() {
    let mut cloud = Cloud::start().await;
    let of =
        |number, tenant: &str| Task { tenant: sample::tenant(tenant), ..sample::task(number, cloud.now) };
    let tasks = vec![of(1, "acme"), of(2, "other")];
    for task in &tasks {
        cloud.backend.accept(vec![task.clone()], cloud.now).await.unwrap();
    }
    let mut groups = cloud.queues.groups().await;
    groups.sort_unstable();
    assert_eq!(groups, ["acme", "other"]);
    cloud.queues.purge().await;
    cloud.now = cloud.now + Duration::from_mins(3);
    assert_eq!(cloud.sweeper().run_once(cloud.now).await.unwrap().hinted, 2);
    let mut groups = cloud.queues.groups().await;
    groups.sort_unstable();
    assert_eq!(groups, ["acme", "other"]);
}

#[tokio::test]
async fn processes_share_one_master_key_stored_wrapped_in_the_table() {
    let (emulator, cloud) = (Emulator::shared(), Cloud::start().await);
    let made = emulator.client().call(Service::Kms, "CreateKey", &json!({})).await.unwrap();
    let key = made["KeyMetadata"]["Arn"].as_str().unwrap();
    let source = async || nobat_aws::vault_of_emulator(cloud.table.name(), key, &cloud.tap.url()).await;
    // No master key exists yet, and both processes create one at the same time.
    let (one, other) = (source().await, source().await);
    let (of_one, of_other) = tokio::join!(one.vault(), other.vault());
    let sealed = of_one.unwrap().seal("here", b"hunter2", [1; 12]);
    assert_eq!(of_other.unwrap().open("here", &sealed).unwrap(), b"hunter2");
    let late = Box::pin(cloud.with_lost_response(async { source().await.vault().await.unwrap() })).await;
    assert_eq!(late.open("here", &sealed).unwrap(), b"hunter2");
    let items = cloud.table.items().await;
    assert_eq!(items.len(), 1, "{items:#?}");
    // A process that has the master key needs KMS no more. A new process can do nothing without KMS.
    cloud.tap.set(Flow::Refused);
    assert!(one.vault().await.is_ok());
    assert!(matches!(source().await.vault().await, Err(NoVault::Unavailable(_))));
}

//! Schedules.

use nobat_tests::harness::{World, path};
use serde_json::{Value, json};

async fn put(world: &World, name: &str, schedule: &Value) -> Value {
    let mut schedule = schedule.clone();
    if schedule["task"].is_null() {
        schedule["task"] = json!({"kind": "noop"});
    }
    let answer = world.ask("PUT", &format!("/v1/schedules/{name}"), &schedule).await;
    assert!(answer.status < 300, "{}", answer.text());
    answer.json()
}

async fn get(world: &World, name: &str) -> Value {
    world.get(&format!("/v1/schedules/{name}")).await.json()
}

/// Waits until the schedule has made so many decisions. Returns the schedule.
async fn decided(world: &World, name: &str, count: usize) -> Value {
    for _ in 0..300 {
        let schedule = get(world, name).await;
        if schedule["last"].as_array().unwrap().len() >= count {
            return schedule;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{name} made no {count} decisions: {}", get(world, name).await)
}

/// Removes the schedule, waits until all tasks have ended, and ends the test.
async fn finish(world: World, names: &[&str]) {
    for name in names {
        assert_eq!(world.ask("DELETE", &format!("/v1/schedules/{name}"), &Value::Null).await.status, 200);
    }
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}

#[tokio::test]
async fn schedule_creates_one_task_for_each_planned_time() {
    let world = World::start().await;
    let created = put(&world, "second", &json!({"every": 1})).await;
    assert_eq!((created["next"].as_array().unwrap().len(), &created["overlap"]), (5, &json!("skip")));
    let schedule = decided(&world, "second", 3).await;
    let decisions = schedule["last"].as_array().unwrap();
    for decision in decisions {
        assert_eq!(decision["outcome"], "started", "{schedule}");
        let task = world.ended(&json!({"id": decision["task"]})).await;
        assert_eq!((&task["schedule"], &task["planned_at"]), (&json!("second"), &decision["planned_at"]));
        assert!(task["created_at"].as_str() >= decision["planned_at"].as_str(), "{task}");
    }
    let mut planned: Vec<_> = decisions.iter().map(|decision| decision["planned_at"].to_string()).collect();
    planned.dedup();
    assert_eq!(planned.len(), decisions.len());
    finish(world, &["second"]).await;
}

#[tokio::test]
async fn paused_schedule_creates_no_task_until_it_is_resumed() {
    let world = World::start().await;
    put(&world, "second", &json!({"every": 1})).await;
    decided(&world, "second", 1).await;
    let paused = world.post_with("/v1/schedules/second/pause", &[], "").await;
    assert_eq!(
        (paused.status, &paused.json()["paused"], &paused.json()["next"]),
        (200, &json!(true), &json!([]))
    );
    let before = world.tasks("kind=noop&").await.len();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(world.tasks("kind=noop&").await.len(), before);
    // A start by hand works also during the pause.
    let run = world.post_with("/v1/schedules/second/run", &[], "").await;
    assert_eq!(run.status, 202, "{}", run.text());
    assert_eq!(world.ended(&run.json()).await["schedule"], "second");
    let resumed = world.post_with("/v1/schedules/second/resume", &[], "").await.json();
    let last = resumed["last"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["outcome"], &last["task"]), (&json!("paused"), &Value::Null), "{resumed}");
    let started = |schedule: &Value| {
        let last = schedule["last"].as_array().unwrap().last().cloned().unwrap_or_default();
        last["outcome"] == "started"
            && last["planned_at"].as_str() > resumed["last"][0]["planned_at"].as_str()
    };
    for _ in 0..100 {
        if started(&get(&world, "second").await) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(started(&get(&world, "second").await));
    finish(world, &["second"]).await;
}

#[tokio::test]
async fn overlapping_planned_times_are_skipped_or_wait() {
    let world = World::start().await;
    let slow = json!({"kind": "noop", "payload": {"sleep": 2.5}});
    put(&world, "skip", &json!({"every": 1, "task": slow})).await;
    put(&world, "queue", &json!({"every": 1, "overlap": "queue", "task": slow})).await;
    let skip = decided(&world, "skip", 3).await;
    let outcomes: Vec<_> =
        skip["last"].as_array().unwrap().iter().map(|decision| &decision["outcome"]).collect();
    assert!(outcomes.contains(&&json!("skipped_overlap")), "{skip}");
    let queue = decided(&world, "queue", 2).await;
    let times: Vec<_> =
        queue["last"].as_array().unwrap().iter().map(|decision| &decision["planned_at"]).collect();
    let second = |time: &Value| time.as_str().unwrap()[17..19].parse::<u32>().unwrap();
    assert_eq!((second(times[0]) + 1) % 60, second(times[1]), "no planned time is left out: {queue}");
    let tasks = queue["last"].as_array().unwrap();
    let (first, next) = (
        world.ended(&json!({"id": tasks[0]["task"]})).await,
        world.task(&json!({"id": tasks[1]["task"]})).await,
    );
    assert!(next["created_at"].as_str() >= first["finished_at"].as_str(), "{first} {next}");
    finish(world, &["skip", "queue"]).await;
}

#[tokio::test]
async fn schedule_survives_kills_and_runs_missed_times_once() {
    let mut world = World::start().await;
    put(&world, "second", &json!({"every": 1, "missed": "all", "overlap": "allow"})).await;
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(1_700)).await;
        world.kill().await;
        world.go_on().await;
    }
    decided(&world, "second", 5).await;
    world.post_with("/v1/schedules/second/pause", &[], "").await;
    let mut planned: Vec<String> = Vec::new();
    for task in world.tasks("kind=noop&").await {
        planned.push(task["planned_at"].as_str().unwrap().to_owned());
    }
    planned.sort();
    let all = planned.len();
    planned.dedup();
    assert_eq!(planned.len(), all, "no planned time has two tasks");
    let second =
        |text: &String| text[14..16].parse::<usize>().unwrap() * 60 + text[17..19].parse::<usize>().unwrap();
    let span = (second(&planned[all - 1]) + 3_600 - second(&planned[0])) % 3_600;
    assert_eq!(span + 1, all, "no planned time is lost: {planned:?}");
    finish(world, &["second"]).await;
}

#[tokio::test]
async fn start_by_hand_is_carried_out_once() {
    let world = World::start().await;
    put(&world, "report", &json!({"cron": "0 0 L * *", "timezone": "Asia/Ashgabat"})).await;
    let key = [("idempotency-key", "\"today\"")];
    let first = world.post_with("/v1/schedules/report/run", &key, "").await;
    let again = world.post_with("/v1/schedules/report/run", &key, "").await;
    assert_eq!((first.status, again.status, again.header("idempotency-replayed")), (202, 202, "true"));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let unknown = world.post_with("/v1/schedules/none/run", &[], "").await;
    assert_eq!(unknown.problem(), (404, "schedule_not_found".to_owned()));
    finish(world, &["report"]).await;
}

#[tokio::test]
async fn task_of_a_schedule_cannot_be_canceled() {
    let world = World::start().await;
    put(&world, "report", &json!({"every": 3_600})).await;
    let task = world.tasks("kind=schedule&").await.remove(0);
    assert_eq!((&task["status"], &task["schedule"]), (&json!("scheduled"), &json!("report")));
    for action in ["cancel", "replay"] {
        let refused = world.post_with(&format!("{}/{action}", path(&task)), &[], "").await;
        assert_eq!(refused.problem(), (409, "internal_task".to_owned()), "{action}");
    }
    let submitted = world.post("/v1/tasks", &json!({"kind": "schedule"})).await;
    assert_eq!(submitted.problem(), (422, "unknown_kind".to_owned()));
    finish(world, &["report"]).await;
}

#[tokio::test]
async fn invalid_schedule_is_refused() {
    let world = World::start().await;
    for (schedule, pointer) in [
        (json!({}), ""),
        (json!({"cron": "5 * * * *", "every": 10}), ""),
        (json!({"cron": "5 * * *"}), "/cron"),
        (json!({"cron": "0 0 30 2 *"}), "/cron"),
        (json!({"cron": "5 * * * *", "timezone": "Mars/Olympus"}), "/timezone"),
        (json!({"every": 10, "timezone": "UTC"}), "/timezone"),
        (json!({"every": 0.5}), "/every"),
        (json!({"at": []}), "/at"),
        (json!({"at": ["2020-01-01T00:00:00Z"]}), "/at"),
        (json!({"every": 10, "jitter": 90_000}), "/jitter"),
        (json!({"every": 10, "task": {"kind": "none"}}), "/task/kind"),
        (json!({"every": 10, "task": {"kind": "noop", "run_at": "2026-12-01T08:00:00Z"}}), "/task/run_at"),
    ] {
        let mut body = schedule.clone();
        if body["task"].is_null() {
            body["task"] = json!({"kind": "noop"});
        }
        let refused = world.ask("PUT", "/v1/schedules/x", &body).await;
        assert_eq!(refused.status, 422, "{schedule} {}", refused.text());
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{}", refused.text());
    }
    world.end().await;
}

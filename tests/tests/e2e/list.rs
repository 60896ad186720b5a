use nobat_tests::harness::{World, moment};
use serde_json::{Value, json};

/// Submits seven tasks. Two of them end as failed, and two are in another queue.
async fn submit_seven(world: &World) -> Vec<Value> {
    let dead = json!({"kind": "noop", "payload": {"fail": 1}, "retry": {"max_attempts": 1}});
    let other = json!({"kind": "noop", "queue": "other", "payload": {"sleep": 0}});
    let call = json!({"kind": "http", "payload": {"url": world.receiver.url("/hook")}});
    let mut tasks = Vec::new();
    for task in
        [json!({"kind": "noop"}), dead.clone(), other.clone(), dead, call, other, json!({"kind": "noop"})]
    {
        tasks.push(world.ended(&world.submit(&task).await).await);
    }
    tasks
}

fn ids(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().filter_map(|task| task["id"].as_str()).collect()
}

#[tokio::test]
async fn list_shows_newest_tasks_first_without_bodies() {
    let world = World::start().await;
    let mut tasks = submit_seven(&world).await;
    tasks.reverse();
    let listed = world.tasks("").await;
    assert_eq!(ids(&listed), ids(&tasks));
    for (listed, task) in listed.iter().zip(&mut tasks) {
        for absent in ["payload", "result", "attempts"] {
            task.as_object_mut().unwrap().remove(absent);
        }
        assert_eq!(listed, task);
    }
    world.end().await;
}

#[tokio::test]
async fn tasks_are_found_by_status_queue_kind_and_time() {
    let world = World::start().await;
    let tasks = submit_seven(&world).await;
    let third = moment(&tasks[2], "created_at");
    let count = async |filter: &str| world.tasks(&format!("{filter}&")).await.len();
    assert_eq!(
        (count("status=failed").await, count("status=succeeded").await, count("status=queued").await),
        (2, 5, 0)
    );
    assert_eq!(
        (count("queue=other").await, count("kind=http").await, count("queue=other&kind=http").await),
        (2, 1, 0)
    );
    let (before, after) =
        (count(&format!("created_before={third}")).await, count(&format!("created_after={third}")).await);
    assert_eq!(before + after, 7, "the moment itself belongs to `created_after`");
    let earlier = tasks.iter().filter(|task| moment(task, "created_at") < third).count();
    assert_eq!(before, earlier);
    world.end().await;
}

#[tokio::test]
async fn pages_show_every_task_exactly_once() {
    let world = World::start().await;
    let mut tasks = submit_seven(&world).await;
    tasks.reverse();
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = world.get(&format!("/v1/tasks?{query}")).await.json();
        let found = page["data"].as_array().unwrap();
        assert!(found.len() <= 2);
        seen.extend(found.iter().cloned());
        // Tasks accepted meanwhile come first and do not shift the later pages.
        world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(ids(&seen), ids(&tasks));
    world.end().await;
}

#[tokio::test]
async fn cursor_of_another_list_is_refused() {
    let mut world = World::start().await;
    submit_seven(&world).await;
    let page = world.get("/v1/tasks?limit=2&kind=noop").await.json();
    let cursor = page["next_cursor"].as_str().expect("a second page").to_owned();
    let status =
        async |world: &World, query: String| world.get(&format!("/v1/tasks?{query}")).await.problem();
    let refused = (400, "invalid_cursor".to_owned());
    let forged = cursor.replace(|digit: char| digit.is_ascii_digit(), "0");
    assert_eq!(status(&world, format!("kind=noop&cursor={forged}")).await, refused, "forged");
    assert_eq!(status(&world, format!("cursor={cursor}")).await, refused, "for another list");
    assert_eq!(status(&world, "cursor=7".to_owned()).await, refused, "not a cursor");
    world.kill().await;
    world.go_on().await;
    assert_eq!(
        world.get(&format!("/v1/tasks?kind=noop&cursor={cursor}")).await.status,
        200,
        "the cursor is valid after a restart"
    );
    world.end().await;
}

#[tokio::test]
async fn invalid_filter_is_refused_by_name() {
    let world = World::start().await;
    for query in [
        "limit=0",
        "limit=1000000",
        "limit=-1",
        "status=done",
        "kind=a%20b",
        "created_after=yesterday",
        "offset=10",
        "limit=1&limit=2",
    ] {
        let answer = world.get(&format!("/v1/tasks?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert_eq!(
            (answer.status, &answer.json()["errors"][0]["pointer"]),
            (422, &json!(format!("?{name}"))),
            "{query}"
        );
    }
    world.end().await;
}

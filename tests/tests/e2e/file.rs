use nobat_tests::harness::{PATIENCE, World, path};
use serde_json::json;

#[tokio::test]
async fn second_server_on_the_same_file_is_refused() {
    let world = World::start().await;
    let data = world.data();
    let second = world.run(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]).await;
    assert_eq!(second.code, 1, "{second:?}");
    let holder =
        format!("is in use by the nobat server at http://{} (process {})", world.address(), world.process());
    assert!(second.stderr.contains(&holder) && second.stderr.contains("--data"), "{}", second.stderr);
    world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    world.end().await;
}

#[tokio::test]
async fn a_file_of_a_newer_nobat_is_refused_and_left_as_it_is() {
    let mut world = World::start().await;
    let task = world.submit(&json!({"kind": "noop", "delay": 0.2})).await;
    world.stop().await;
    let known: i64 = world.file().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    world.file().pragma_update(None, "user_version", known + 1).unwrap();
    let oldest_reader =
        |version: i64| world.file().execute("UPDATE instance SET oldest_reader = ?1", [version]).unwrap();
    oldest_reader(known + 1);
    let data = world.data();
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&format!("the file has schema {}", known + 1)), "{}", refused.stderr);
    let found: i64 = world.file().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(found, known + 1);
    // A newer schema that only adds to this one can still be used.
    oldest_reader(known);
    world.go_on().await;
    world.ended(&task).await;
    world.end().await;
}

#[tokio::test]
async fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let mut world = World::start().await;
    world.stop().await;
    let other = world.folder().join("other.db");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE songs (name TEXT); INSERT INTO songs VALUES ('x')")
        .unwrap();
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0", "--data", other.to_str().unwrap()]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("of another program"), "{}", refused.stderr);
    let text = world.folder().join("notes.txt");
    std::fs::write(&text, "these are notes, and no database at all\n".repeat(100)).unwrap();
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0", "--data", text.to_str().unwrap()]).await;
    assert!(refused.code == 1 && refused.stderr.contains("cannot use the file"), "{refused:?}");
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("these are notes"));
    world.go_on().await;
    world.end().await;
}

#[tokio::test]
async fn ended_tasks_are_removed_after_the_retention() {
    let mut world = World::start().await;
    let old = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let waiting = world.submit(&json!({"kind": "noop", "delay": 3600})).await;
    world.stop().await;
    // The test cannot wait for a day, so it makes everything in the file two days older.
    let two_days = 2 * 24 * 3600 * 1000;
    let aged =
        "UPDATE tasks SET seq = seq - (?1 << 20), created_at = created_at - ?1, ended_at = ended_at - ?1";
    assert_eq!(world.file().execute(aged, [two_days]).unwrap(), 2);
    world.go_on_with(&["--retention-days", "1"]).await;
    let young = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    assert_eq!(world.get(&path(&old)).await.problem(), (404, "task_not_found".to_owned()));
    assert_eq!(
        world.post(&format!("{}/replay", path(&old)), &json!({})).await.problem(),
        (404, "task_not_found".to_owned())
    );
    assert_eq!(world.post(&format!("{}/cancel", path(&waiting)), &json!({})).await.status, 200);
    assert_eq!((world.task(&young).await, world.tasks("").await.len()), (young, 2));
    world.stop().await;
    let kept: i64 = world.file().query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2, "the task is removed from the file");
    world.go_on().await;
    world.end().await;
}

#[tokio::test]
async fn invalid_setting_is_refused_by_name() {
    let world = World::start().await;
    for setting in [
        ["--retention-days", "0"],
        ["--concurrency", "many"],
        ["--allow-private-networks", "home"],
        ["--listen", "here"],
    ] {
        let refused = world.run(&["serve", setting[0], setting[1]]).await;
        assert!(refused.code == 2 && refused.stderr.contains(setting[0]), "{refused:?}");
    }
    world.end().await;
}

/// Returns the names of files in the world's folder, without those of the world's own server.
fn others(world: &World) -> Vec<String> {
    let names = std::fs::read_dir(world.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with("nobat.db")).collect()
}

#[tokio::test]
async fn a_start_that_fails_for_its_address_or_key_leaves_no_file() {
    let world = World::start().await;
    let (listen, data) = (world.address().to_string(), world.folder().join("second.db"));
    let data = data.to_str().unwrap();
    let second = world.run(&["serve", "--listen", &listen, "--data", data]).await;
    assert!(second.code == 1 && second.stderr.contains(&format!("cannot listen on {listen}")), "{second:?}");
    assert_eq!(others(&world), Vec::<String>::new());
    let mistyped =
        world.run(&["serve", "--listen", "127.0.0.1:0", "--data", data, "--master-key", "hunter2"]).await;
    assert!(mistyped.code == 1 && mistyped.stderr.contains("NOBAT_MASTER_KEY"), "{mistyped:?}");
    assert_eq!(others(&world), Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn an_idle_servers_file_holds_every_task_without_its_log() {
    let world = World::start().await;
    let task = world.ended(&world.submit(&json!({"kind": "noop"})).await).await;
    let (log, copy) = (format!("{}-wal", world.data().display()), world.folder().join("copy.db"));
    let begun = std::time::Instant::now();
    while std::fs::metadata(&log).unwrap().len() > 0 {
        assert!(begun.elapsed() < PATIENCE, "the write-ahead log is not emptied");
        // Reads and health checks do not delay it.
        assert_eq!(world.get("/readyz").await.status, 200);
        assert_eq!(world.task(&task).await["status"], "succeeded");
    }
    std::fs::copy(world.data(), &copy).unwrap();
    let copied =
        rusqlite::Connection::open(&copy)
            .unwrap()
            .query_row("SELECT count(*) FROM tasks", [], |row| row.get::<_, i64>(0));
    assert_eq!(copied.unwrap(), 1);
    world.end().await;
}

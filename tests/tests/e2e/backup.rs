use std::collections::BTreeSet;

use nobat_tests::harness::{OPEN, World, has_ended};
use nobat_tests::size::size;
use serde_json::{Value, json};

fn ids(tasks: &[Value]) -> BTreeSet<String> {
    tasks.iter().map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
}

async fn submit(world: &World, count: usize) -> BTreeSet<String> {
    let mut tasks = Vec::new();
    for number in 0..count {
        tasks.push(world.submit(&json!({"kind": "noop", "payload": {"sleep": 0.01}, "labels": {"number": number.to_string()}})).await);
    }
    ids(&tasks)
}

#[tokio::test]
async fn backup_under_load_holds_all_tasks_accepted_before() {
    let mut world = World::start().await;
    let mut kept = submit(&world, 50).await;
    for number in 1..=size(3, 20) {
        kept.extend(submit(&world, 20).await);
        let (copy, data) = (world.folder().join(format!("backup-{number}.db")), world.data());
        let (backup, lost) = tokio::join!(
            async { world.run(&["backup", copy.to_str().unwrap(), "--data", data.to_str().unwrap()]).await },
            submit(&world, 30)
        );
        assert!(backup.code == 0 && backup.stderr.contains("does not contain the master key"), "{backup:?}");
        world.kill().await;
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{ending}", data.display()));
        }
        let restored =
            world.run(&["restore", copy.to_str().unwrap(), "--data", data.to_str().unwrap()]).await;
        assert_eq!(restored.code, 0, "{restored:?}");
        world.go_on().await;
        let found = ids(&world.tasks("").await);
        assert!(
            kept.is_subset(&found),
            "{} of {} tasks are restored",
            kept.intersection(&found).count(),
            kept.len()
        );
        assert!(
            found.is_subset(&kept.union(&lost).cloned().collect()),
            "additional tasks were accepted during the backup"
        );
        for task in world.tasks("").await {
            assert!(has_ended(&world.ended(&task).await));
        }
        kept = found;
    }
    world.end().await;
}

#[tokio::test]
async fn concurrent_backups_to_one_file_produce_one() {
    let world = World::start().await;
    let (copy, data) = (world.folder().join("backup.db"), world.data());
    let arguments = ["backup", copy.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let mut made = 0;
    for _ in 0..5 {
        let (one, other) = tokio::join!(world.run(&arguments), world.run(&arguments));
        for ran in [one, other] {
            assert!(ran.code == 0 || ran.stderr.contains("already exists"), "{ran:?}");
            made += i32::from(ran.code == 0);
        }
    }
    assert_eq!(made, 1);
    let names: Vec<_> =
        std::fs::read_dir(world.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("draft")), "{names:?}");
    world.end().await;
}

#[tokio::test]
async fn backup_and_restore_overwrite_no_file() {
    let mut world = World::start().await;
    let (copy, data) = (world.folder().join("backup.db"), world.data());
    let (copy, data) = (copy.to_str().unwrap(), data.to_str().unwrap());
    assert_eq!(world.run(&["backup", copy, "--data", data]).await.code, 0);
    let again = world.run(&["backup", copy, "--data", data]).await;
    assert!(again.code != 0 && again.stderr.contains("already exists"), "{again:?}");
    let running = world.run(&["restore", copy, "--data", data]).await;
    assert!(running.code != 0 && running.stderr.contains("is in use by the nobat server at"), "{running:?}");
    world.stop().await;
    let there = world.run(&["restore", copy, "--data", data]).await;
    assert!(there.code != 0 && there.stderr.contains("already exists"), "{there:?}");
    let missing = world.run(&["backup", "another.db", "--data", "no-such-file.db"]).await;
    assert!(missing.code != 0 && missing.stderr.contains("does not exist"), "{missing:?}");
    std::fs::write(copy, b"no database at all").unwrap();
    let damaged = world.run(&["restore", copy, "--data", &format!("{data}-2")]).await;
    assert!(damaged.code != 0 && !std::path::Path::new(&format!("{data}-2")).exists(), "{damaged:?}");
    world.go_on_with(&OPEN).await;
    world.end().await;
}

use nobat_tests::harness::process::run;
use nobat_tests::harness::program::Program;
use nobat_tests::harness::{OPEN, PATIENCE, World, path};
use nobat_tests::size::size;
use serde_json::{Value, json};

/// Creates a key in the world's file, while no server runs on it.
async fn create_key(world: &World, arguments: &[&str]) -> String {
    let data = world.data();
    let ran = world.run(&[&["keys", "create", "--data", data.to_str().unwrap()], arguments].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let key = ran.stdout.trim().to_owned();
    assert!(key.starts_with("nb_live_") && ran.stderr.contains("key_"), "{ran:?}");
    key
}

#[tokio::test]
async fn reachable_server_does_not_start_without_a_key() {
    let mut world = World::start().await;
    world.stop().await;
    let data = world.data();
    let serve = ["serve", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    let refused = world.run(&serve).await;
    assert!(refused.code != 0 && refused.stderr.contains("nobat keys create"), "{refused:?}");
    let proxied = world
        .run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--trusted-proxies",
            "127.0.0.1",
            "--data",
            data.to_str().unwrap(),
        ])
        .await;
    assert!(proxied.code != 0 && proxied.stderr.contains("nobat keys create"), "{proxied:?}");
    create_key(&world, &["--scopes", "admin"]).await;
    world.go_on_with(&["--trusted-proxies", "127.0.0.1"]).await;
    assert_eq!(world.get("/v1/tasks").await.status, 401);
    world.stop().await;
}

#[tokio::test]
async fn key_made_in_the_file_can_create_keys_on_the_server() {
    let mut world = World::start().await;
    world.stop().await;
    let admin = create_key(&world, &["--scopes", "admin"]).await;
    world.go_on_with(&OPEN).await;
    let with = async |key: &str, arguments: &[&str]| world.run(&[arguments, &["--key", key]].concat()).await;
    let url = format!("http://{}", world.address());
    let made =
        with(&admin, &["keys", "create", "--url", &url, "--tenant", "acme", "--label", "the shop"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let acme = made.stdout.trim();
    let submitted = with(acme, &["submit", "noop", "--json", "--wait"]).await;
    assert_eq!(submitted.code, 0, "{submitted:?}");
    let task: Value = serde_json::from_str(&submitted.stdout).unwrap();
    let listed = with(&admin, &["keys", "list", "--url", &url]).await;
    assert!(
        listed.stdout.contains("the shop") && listed.stdout.contains(task["submitted_by"].as_str().unwrap()),
        "{listed:?}"
    );
    assert!(!listed.stdout.contains("nb_live_"), "{listed:?}");
    assert_eq!(
        with(&admin, &["get", task["id"].as_str().unwrap()]).await.code,
        3,
        "the scope admin does not include tasks:read"
    );
    let id = task["submitted_by"].as_str().unwrap();
    let rotated = with(&admin, &["keys", "rotate", id, "--grace-period", "60", "--url", &url]).await;
    assert!(rotated.code == 0 && rotated.stdout.starts_with("nb_live_"), "{rotated:?}");
    assert_eq!(with(acme, &["list"]).await.code, 0, "the old key is valid during the grace period");
    let revoked = with(&admin, &["keys", "revoke", id, "--url", &url]).await;
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let refused = with(acme, &["list"]).await;
    assert!(refused.code == 3 && refused.stderr.contains("unauthorized"), "{refused:?}");
    assert_eq!(with(rotated.stdout.trim(), &["list"]).await.code, 0);
    let mistyped = with(&acme[..acme.len() - 1], &["list"]).await;
    assert!(
        mistyped.code != 0
            && mistyped.stderr.contains("mistyped")
            && !mistyped.stderr.contains(&acme[10..30]),
        "{mistyped:?}"
    );
    world.stop().await;
    for secret in [admin.as_str(), acme] {
        assert!(!world.log().contains(&secret["nb_live_".len()..]), "a key is in the log");
        let file = std::fs::read(world.data()).unwrap();
        assert!(!file.windows(20).any(|window| window == &secret.as_bytes()[10..30]), "a key is in the file");
    }
}

#[tokio::test]
async fn keys_command_on_a_file_in_use_names_the_server() {
    let world = World::start().await;
    let (data, program, url) = (world.data(), Program::Nobat.path(), format!("http://{}", world.address()));
    // Without `NOBAT_URL`, which names the server.
    let create =
        ["keys", "create", "--data", data.to_str().unwrap(), "--tenant", "acme", "--label", "the shop"];
    let refused = run(&program, &create, None).await.unwrap();
    let command = format!("{} keys create --url {url} --tenant acme --label 'the shop'", program.display());
    let expected = format!(
        "is in use by the nobat server at {url} (process {}); run `{command}` instead",
        world.process()
    );
    assert!(refused.code == 1 && refused.stderr.contains(&expected), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    let ran = tokio::process::Command::new("sh").args(["-c", &command]).output().await.unwrap();
    assert!(ran.status.success() && ran.stdout.starts_with(b"nb_live_"), "{ran:?}");
    // The error must not repeat a key from the command line.
    let list = ["keys", "list", "--data", data.to_str().unwrap(), "--key", "nb_live_hunter2"];
    let refused = run(&program, &list, None).await.unwrap();
    assert!(refused.code == 1 && !refused.stderr.contains("hunter2"), "{refused:?}");
    let mut world = world;
    world.stop().await;
}

#[tokio::test]
async fn flood_of_one_tenant_does_not_delay_another() {
    let world = World::with(&["--concurrency", "4"]).await;
    let scopes = json!(["tasks:write", "tasks:read", "admin"]);
    let first = world.post("/v1/keys", &json!({"tenant": "flood", "scopes": scopes})).await.json();
    let flood = format!("Bearer {}", first["key"].as_str().unwrap());
    let as_flood = [("authorization", flood.as_str())];
    let mut calm = Vec::new();
    for number in 0..size(3, 25) {
        let tenant = json!({"tenant": format!("calm-{number}"), "scopes": scopes});
        let made = world.post_with("/v1/keys", &as_flood, &tenant.to_string()).await.json();
        calm.push(format!("Bearer {}", made["key"].as_str().unwrap()));
    }
    let noop = |seconds: f64| json!({"kind": "noop", "payload": {"sleep": seconds}});
    let batch = json!({"tasks": vec![noop(0.02); 100]}).to_string();
    for _ in 0..size(20, 1_000) {
        assert_eq!(world.post_with("/v1/tasks/batch", &as_flood, &batch).await.status, 202);
    }
    for calm in &calm {
        let as_calm = [("authorization", calm.as_str())];
        let task = world.post_with("/v1/tasks", &as_calm, &noop(0.0).to_string()).await.json();
        let ended = world.get_with(&format!("{}?wait=20", path(&task)), &as_calm).await.json();
        assert_eq!(ended["status"], "succeeded", "{ended:#}");
    }
    let left = world.get_with("/v1/tasks?status=queued&limit=100", &as_flood).await.json();
    assert_eq!(left["data"].as_array().map(Vec::len), Some(100), "most tasks of the flood still wait");
}

#[tokio::test]
async fn long_tasks_of_one_tenant_leave_workers_to_others() {
    let world = World::with(&["--concurrency", "16"]).await;
    let key = async |tenant: &str, by: &[(&str, &str)]| {
        let wanted = json!({"tenant": tenant, "scopes": ["tasks:write", "tasks:read", "admin"]});
        let made = world.post_with("/v1/keys", by, &wanted.to_string()).await.json();
        format!("Bearer {}", made["key"].as_str().unwrap())
    };
    let long = key("long", &[]).await;
    let as_long = [("authorization", long.as_str())];
    let short = key("short", &as_long).await;
    let as_short = [("authorization", short.as_str())];
    let submit = async |by: &[(&str, &str)], sleep: f64| {
        let task = json!({"kind": "noop", "payload": {"sleep": sleep}, "timeout": 120});
        world.post_with("/v1/tasks", by, &task.to_string()).await.json()
    };
    let ended =
        async |task: &Value| world.get_with(&format!("{}?wait=20", path(task)), &as_short).await.json();
    assert_eq!(ended(&submit(&as_short, 0.0).await).await["status"], "succeeded");
    let mut tasks = Vec::new();
    for _ in 0..40 {
        tasks.push(submit(&as_long, 60.0).await);
    }
    let running = async || {
        let page = world.get_with("/v1/tasks?status=running&limit=100", &as_long).await.json();
        page["data"].as_array().map_or(0, Vec::len)
    };
    let begun = std::time::Instant::now();
    while running().await < 14 {
        assert!(begun.elapsed() < PATIENCE, "fewer than 14 tasks run");
    }
    for _ in 0..5 {
        assert_eq!(ended(&submit(&as_short, 0.0).await).await["status"], "succeeded");
    }
    assert_eq!(running().await, 14, "one tenant has at most seven eighths of 16 workers");
    for task in &tasks {
        let path = format!("{}/cancel", path(task));
        assert!(world.post_with(&path, &as_long, "").await.status < 300);
    }
}

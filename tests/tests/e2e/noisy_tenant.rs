use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nobat_tests::harness::World;
use nobat_tests::harness::exchange::{Answer, exchange};
use serde_json::{Value, json};

/// Connections on which the noisy tenant lists at the same time.
const CONNECTIONS: usize = 100;
/// Batches of 100 tasks of the noisy tenant. A page scans 1,000 tasks.
const BATCHES: usize = 10;
/// Number of quiet tenants. Each brings a key that the server has not seen, so that its submission looks up
/// key, tenant and configuration. The test compares medians, so that a single stall of the disk does not fail
/// it.
const QUIET: usize = 3;

/// Creates a key with the key `admin`, or without one if `admin` is empty. Returns the `authorization`
/// header.
async fn create_key(world: &World, admin: &str, tenant: &str, scopes: &[&str]) -> String {
    let key = json!({"tenant": tenant, "scopes": scopes});
    let headers = [("authorization", admin)];
    let created =
        world.post_with("/v1/keys", if admin.is_empty() { &[] } else { &headers }, &key.to_string()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    format!("Bearer {}", created.json()["key"].as_str().unwrap())
}

/// Sends a request with this key, and returns its duration and its answer.
async fn timed(world: &World, key: &str, method: &str, path: &str, body: &Value) -> (Duration, Answer) {
    let (begun, body) = (Instant::now(), if body.is_null() { String::new() } else { body.to_string() });
    let answer = exchange(world.address(), method, path, &[("authorization", key)], &body).await;
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    (begun.elapsed(), answer)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_a_tenant_do_not_delay_requests_of_another() {
    let world = World::start().await;
    let admin = create_key(&world, "", "default", &["admin", "tasks:read"]).await;
    let noisy = create_key(&world, &admin, "noisy", &["tasks:write", "tasks:read"]).await;
    let mut quiet = Vec::new();
    for number in 0..QUIET {
        quiet.push(
            create_key(&world, &admin, &format!("quiet-{number}"), &["tasks:write", "tasks:read"]).await,
        );
    }
    // Labels make rows slow to read, so that lists wait for the store and not for the clients of this test.
    let labels: serde_json::Map<_, _> =
        (0..10).map(|number| (format!("label-{number}"), json!("x".repeat(60)))).collect();
    let batch = json!({"tasks": vec![json!({"kind": "noop", "labels": labels}); 100]});
    for _ in 0..BATCHES {
        assert_eq!(timed(&world, &noisy, "POST", "/v1/tasks/batch", &batch).await.1.status, 202);
    }

    let (is_over, answered, address) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), world.address());
    let flood = (0..CONNECTIONS).map(|_| {
        let (is_over, answered, noisy) = (Arc::clone(&is_over), Arc::clone(&answered), noisy.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let listed =
                    exchange(address, "GET", "/v1/tasks?kind=nosuch", &[("authorization", &noisy)], "").await;
                let status = listed.unwrap_or_else(|error| panic!("{error}")).status;
                assert!(matches!(status, 200 | 503), "{status}");
                times.push(begun.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
            }
            times
        })
    });
    let flood: Vec<_> = flood.collect();
    // From then on, every list waits behind those of all other connections.
    while answered.load(Ordering::Relaxed) < 2 * CONNECTIONS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let (mut posts, mut reads, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for quiet in &quiet {
        let (time, submitted) = timed(&world, quiet, "POST", "/v1/tasks", &json!({"kind": "noop"})).await;
        assert_eq!(submitted.status, 202, "{}", submitted.text());
        posts.push(time);
        let path = format!("/v1/tasks/{}", submitted.json()["id"].as_str().unwrap());
        for (path, times) in [(path.as_str(), &mut reads), ("/v1/tasks?limit=1", &mut lists)] {
            let (time, read) = timed(&world, quiet, "GET", path, &Value::Null).await;
            assert_eq!(read.status, 200, "{}", read.text());
            times.push(time);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let mut noisy = Vec::new();
    for connection in flood {
        noisy.extend(connection.await.unwrap());
    }
    let count = noisy.len();
    let [noisy, post, read, list] = [noisy, posts, reads, lists].map(|mut times| median(&mut times));
    println!(
        "median of {count} lists of the noisy tenant {noisy:?}; of the quiet ones: POST {post:?}, GET {read:?}, list {list:?}"
    );
    for (what, time) in [("submission", post), ("read", read), ("list", list)] {
        assert!(
            time < (noisy / 2).max(Duration::from_secs(1)),
            "a {what} of a quiet tenant takes {time:?} behind lists that take {noisy:?}"
        );
    }
    world.end().await;
}

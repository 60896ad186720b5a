use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nobat_tests::world::World;
use nobat_tests::world::exchange::{Answer, exchange};
use serde_json::{Value, json};

/// Connections on which the noisy tenant lists at the same time.
const CONNECTIONS: usize = 300;
/// Tasks of the noisy tenant, in batches of 100. A page looks at 1,000 of them.
const BATCHES: usize = 20;
/// Submissions of the quiet tenant.
const SUBMISSIONS: usize = 20;

/// Creates a key, with `admin` if the server asks for one already. Returns the header's value.
async fn create_key(world: &World, admin: &str, tenant: &str, scopes: &[&str]) -> String {
    let key = json!({"tenant": tenant, "scopes": scopes});
    let headers = [("authorization", admin)];
    let created = world.post_with("/v1/keys", if admin.is_empty() { &[] } else { &headers }, &key.to_string()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    format!("Bearer {}", created.json()["key"].as_str().unwrap())
}

/// Sends a request with that key, and returns the time it took beside the answer.
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
    let quiet = create_key(&world, &admin, "quiet", &["tasks:write", "tasks:read"]).await;
    let batch = json!({"tasks": vec![json!({"kind": "noop"}); 100]});
    for _ in 0..BATCHES {
        assert_eq!(timed(&world, &noisy, "POST", "/v1/tasks/batch", &batch).await.1.status, 202);
    }

    let (is_over, answered, address) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), world.address());
    let flood = (0..CONNECTIONS).map(|_| {
        let (is_over, answered, noisy) = (Arc::clone(&is_over), Arc::clone(&answered), noisy.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let listed = exchange(address, "GET", "/v1/tasks?kind=nosuch", &[("authorization", &noisy)], "").await;
                let status = listed.unwrap_or_else(|error| panic!("{error}")).status;
                assert!(matches!(status, 200 | 503), "{status}");
                times.push(begun.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
            }
            times
        })
    });
    let flood: Vec<_> = flood.collect();
    // By then every list waits behind those of all other connections.
    while answered.load(Ordering::Relaxed) < 2 * CONNECTIONS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let (mut posts, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..SUBMISSIONS {
        let (time, submitted) = timed(&world, &quiet, "POST", "/v1/tasks", &json!({"kind": "noop"})).await;
        assert_eq!(submitted.status, 202, "{}", submitted.text());
        posts.push(time);
        let path = format!("/v1/tasks/{}", submitted.json()["id"].as_str().unwrap());
        let (time, read) = timed(&world, &quiet, "GET", &path, &Value::Null).await;
        assert_eq!(read.status, 200, "{}", read.text());
        reads.push(time);
    }
    let (list, listed) = timed(&world, &quiet, "GET", "/v1/tasks?limit=1", &Value::Null).await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    is_over.store(true, Ordering::Relaxed);
    let mut lists = Vec::new();
    for connection in flood {
        lists.extend(connection.await.unwrap());
    }
    let (count, noisy_list) = (lists.len(), median(&mut lists));
    let slowest = |times: &[Duration]| times.iter().max().copied().unwrap();
    println!(
        "quiet POST {:?} median, {:?} slowest; GET {:?} median, {:?} slowest; list {list:?}; {count} noisy lists, {noisy_list:?} median",
        median(&mut posts.clone()),
        slowest(&posts),
        median(&mut reads.clone()),
        slowest(&reads),
    );
    for (what, time) in [("a submission", slowest(&posts)), ("a read", slowest(&reads)), ("a list", list)] {
        assert!(time < noisy_list / 2, "{what} of the quiet tenant waited {time:?} behind lists that take {noisy_list:?}");
    }
    world.end().await;
}

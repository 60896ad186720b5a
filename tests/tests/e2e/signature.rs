use bytes::Bytes;
use nobat_tests::harness::receiver::{Received, Reply};
use nobat_tests::harness::{World, moment};
use nobat_tests::size::size;
use nobat_tests::verifiers::Library;
use serde_json::{Value, json};

const ENDPOINT: &str = "/v1/endpoints/billing";
const CALLBACK_SECRET: &str = "/v1/callback-secret";
/// Maximum number of tasks in one submission.
const MANY: usize = 100;

async fn endpoint(world: &World) -> String {
    secret(
        world,
        "PUT",
        ENDPOINT,
        json!({"url": world.receiver.url("/api"), "circuit_breaker": {"enabled": false}}),
    )
    .await
}

async fn secret(world: &World, method: &str, path: &str, body: Value) -> String {
    let answer = world.ask(method, path, &body).await;
    assert!([200, 201].contains(&answer.status), "{}", answer.text());
    answer.json()["secret"].as_str().unwrap_or_else(|| panic!("no secret in {}", answer.text())).to_owned()
}

/// Submits `count` tasks.
async fn submit(world: &World, task: &Value, count: usize) -> Vec<Value> {
    let mut submitted = Vec::new();
    while submitted.len() < count {
        let tasks = vec![task; MANY.min(count - submitted.len())];
        let answer = world.post("/v1/tasks/batch", &json!({"tasks": tasks})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        submitted.extend(answer.json()["data"].as_array().unwrap().iter().cloned());
    }
    submitted
}

/// Waits until all tasks have succeeded, including callbacks.
async fn all_ended(world: &World) {
    for task in world.tasks("").await {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
}

/// Checks that every library accepts exactly those requests for which `is_signed` returns true.
fn check(secret: &str, requests: &[Received], is_signed: impl Fn(usize) -> bool) {
    let expected: Vec<bool> = (0..requests.len()).map(is_signed).collect();
    for library in Library::ALL {
        let taken = library.takes(secret, requests);
        assert_eq!(taken.len(), expected.len(), "{library:?}");
        let wrong: Vec<_> = (0..taken.len())
            .filter(|place| taken[*place] != expected[*place])
            .map(|place| &requests[place])
            .collect();
        assert!(wrong.is_empty(), "{library:?} on {} of {}: {:?}", wrong.len(), requests.len(), wrong[0]);
    }
}

/// Checks that every library notices any change of a request.
fn check_changes(secret: &str, request: &Received) {
    let with = |name: &'static str, value: &str| {
        let mut changed = request.clone();
        changed.headers.insert(name, value.parse().unwrap());
        changed
    };
    let later = request.header("webhook-timestamp").parse::<i64>().unwrap() + 1;
    let changed = [
        Received { body: Bytes::from([&request.body[..], b" "].concat()), ..request.clone() },
        Received { body: request.body.slice(1..), ..request.clone() },
        Received { body: Bytes::new(), ..request.clone() },
        with("webhook-id", "another"),
        with("webhook-timestamp", &later.to_string()),
        with("webhook-signature", "v1,"),
    ];
    check(secret, &changed, |_| false);
    check(secret, std::slice::from_ref(request), |_| true);
}

/// Returns the number of secrets that signed a request.
fn signatures(request: &Received) -> usize {
    request.header("webhook-signature").split(' ').count()
}

#[tokio::test]
async fn official_libraries_verify_calls_during_secret_rotation() {
    Library::ALL.into_iter().for_each(Library::install);
    let world = World::start().await;
    let old = endpoint(&world).await;
    let half = size(100, 5_000);
    let task = json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/charge", "body": {"order": 7, "name": "Zoë \u{1f600}"}}});
    let before = submit(&world, &task, half).await;
    // The rotation comes while calls are in progress.
    world.receiver.wait_for("/api/charge", half / 2).await;
    let rotate = format!("{ENDPOINT}/rotate");
    let (new, after) = tokio::join!(
        secret(&world, "POST", &rotate, json!({"grace_period": 3600})),
        submit(&world, &task, half)
    );
    for task in before.iter().chain(&after) {
        assert_eq!(world.ended(task).await["status"], "succeeded");
    }
    let received = world.receiver.received("/api/charge");
    assert_eq!(received.len(), 2 * half);
    assert!(
        received.iter().any(|request| signatures(request) == 1)
            && received.iter().any(|request| signatures(request) == 2)
    );
    check(&old, &received, |_| true);
    check(&new, &received, |place| signatures(&received[place]) == 2);
    check_changes(&old, received.last().unwrap());
    check_changes(&new, received.last().unwrap());

    let newest = secret(&world, "POST", &rotate, json!({"grace_period": 0})).await;
    let mut alone = task;
    alone["payload"]["path"] = json!("/alone");
    for task in submit(&world, &alone, size(10, 1_000)).await {
        assert_eq!(world.ended(&task).await["status"], "succeeded");
    }
    let received = world.receiver.received("/api/alone");
    check(&newest, &received, |_| true);
    for gone in [&old, &new] {
        check(gone, &received, |_| false);
    }
    world.end().await;
}

#[tokio::test]
async fn official_libraries_verify_callbacks_during_rotation() {
    Library::ALL.into_iter().for_each(Library::install);
    let mut world = World::start().await;
    let count = size(20, 1_000);
    let task =
        |place: &str, world: &World| json!({"kind": "noop", "callback": {"url": world.receiver.url(place)}});
    let old = secret(&world, "PUT", CALLBACK_SECRET, json!({})).await;
    submit(&world, &task("/old", &world), count).await;
    all_ended(&world).await;
    let new =
        secret(&world, "POST", &format!("{CALLBACK_SECRET}/rotate"), json!({"grace_period": 3600})).await;
    // A process trusts what it has read of secrets for 10 seconds; a new process reads them at once.
    restart(&mut world).await;
    submit(&world, &task("/both", &world), count).await;
    all_ended(&world).await;
    let newest =
        secret(&world, "POST", &format!("{CALLBACK_SECRET}/rotate"), json!({"grace_period": 0})).await;
    restart(&mut world).await;
    submit(&world, &task("/new", &world), count).await;
    all_ended(&world).await;
    let secrets = [&old, &new, &newest];
    for (place, signing) in [("/old", &secrets[..1]), ("/both", &secrets[..2]), ("/new", &secrets[2..])] {
        let received = world.receiver.received(place);
        assert_eq!(received.len(), count, "{place}");
        for secret in secrets {
            check(secret, &received, |_| signing.contains(&secret));
        }
        check_changes(signing[0], &received[0]);
    }
    world.end().await;
}

#[tokio::test]
async fn each_attempt_is_signed_anew_under_the_same_id() {
    Library::ALL.into_iter().for_each(Library::install);
    let world = World::start().await;
    let secret = endpoint(&world).await;
    world.receiver.script("/api/charge", [500, 500, 200].map(Reply::status));
    // More than one second apart, the resolution of the signed timestamp.
    let retry = json!({"delays": [1.1, 1.1]});
    let task = world
        .submit(
            &json!({"kind": "http", "endpoint": "billing", "payload": {"path": "/charge"}, "retry": retry}),
        )
        .await;
    let task = world.ended(&task).await;
    let received = world.receiver.received("/api/charge");
    assert_eq!((&task["status"], received.len()), (&json!("succeeded"), 3));
    check(&secret, &received, |_| true);
    let seconds = |attempt: &Value, field| moment(attempt, field).millis() / 1_000;
    let mut moments = Vec::new();
    for (request, attempt) in received.iter().zip(task["attempts"].as_array().unwrap()) {
        assert_eq!(request.header("webhook-id"), task["id"].as_str().unwrap());
        let at: i64 = request.header("webhook-timestamp").parse().unwrap();
        assert!(
            (seconds(attempt, "started_at")..=seconds(attempt, "finished_at")).contains(&at),
            "{at} for {attempt:#}"
        );
        moments.push(at);
    }
    assert!(moments.is_sorted_by(|one, next| one < next), "{moments:?}");
    world.end().await;
}

async fn restart(world: &mut World) {
    world.stop().await;
    world.go_on().await;
}

//! Sources: webhooks of providers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use nobat_tests::harness::World;
use nobat_tests::harness::exchange::exchange;
use nobat_tests::size::size;
use nobat_tests::verifiers::{OutgoingWebhook, signed_headers};
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

const SECRET: &str = "whsec_correct-horse-battery";
const PATH: &str = "/v1/in/default/stripe";

fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns the header with which Stripe signs a body.
fn signature(secret: &str, seconds_ago: u64, body: &str) -> String {
    let time = unix_time() - seconds_ago;
    let key = Key::new(HMAC_SHA256, secret.as_bytes());
    let signature = sign(&key, format!("{time}.{body}").as_bytes());
    format!("t={time},v1={}", data_encoding::HEXLOWER.encode(signature.as_ref()))
}

async fn put_source(world: &World, name: &str, secret: &str, target: &Value) {
    let mut source = json!({"verify": {"preset": "stripe", "secrets": [secret]}});
    source.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    let answer = world.ask("PUT", &format!("/v1/sources/{name}"), &source).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn webhook_is_passed_on_as_the_provider_sent_it() {
    let world = World::start().await;
    let task = json!({"kind": "http", "payload": {"url": world.receiver.url("/paid")}});
    put_source(&world, "stripe", SECRET, &json!({"task": task})).await;
    let body = r#"{"id":"evt_1", "type":"payment_intent.succeeded","amount":12.50}"#;
    let headers = [("stripe-signature", &signature(SECRET, 0, body)[..])];
    assert_eq!(world.post_with(PATH, &headers, body).await.status, 200);
    let request = world.receiver.wait_for("/paid", 1).await.remove(0);
    assert_eq!((&request.body[..], request.header("content-type")), (body.as_bytes(), "application/json"));
    assert_eq!((request.header("ce-type"), request.header("ce-id")), ("payment_intent.succeeded", "evt_1"));
    assert_eq!(request.header("ce-source"), "/in/stripe");
    let task = world.tasks("").await.remove(0);
    assert_eq!(world.ended(&task).await["source"], "stripe");
    world.end().await;
}

#[tokio::test]
async fn webhook_becomes_an_event_for_each_subscription() {
    let world = World::start().await;
    put_source(&world, "stripe", SECRET, &json!({"event": {"subject": "/data/order"}})).await;
    for name in ["ledger", "mail"] {
        let task = json!({"kind": "http", "payload": {"url": world.receiver.url(&format!("/{name}"))}});
        let subscription = json!({"topic": "payment_intent.*", "task": task});
        world.ask("PUT", &format!("/v1/subscriptions/{name}"), &subscription).await;
    }
    let body = r#"{"id":"evt_1","type":"payment_intent.succeeded","data":{"order":"o-7"}}"#;
    for _ in 0..3 {
        let headers = [("stripe-signature", &signature(SECRET, 0, body)[..])];
        assert_eq!(world.post_with(PATH, &headers, body).await.status, 200);
    }
    for path in ["/ledger", "/mail"] {
        let event = world.receiver.wait_for(path, 1).await.remove(0).json();
        assert_eq!((&event["subject"], &event["data"]["id"]), (&json!("o-7"), &json!("evt_1")));
        assert_eq!(world.receiver.received(path).len(), 1);
    }
    let source = world.get("/v1/sources/stripe").await.json();
    assert_eq!((&source["accepted"], &source["repeated"]), (&json!(1), &json!(2)), "{source}");
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}

/// The official npm libraries of the providers sign webhooks. Their sources accept these webhooks, and no
/// changed one.
#[tokio::test]
async fn webhooks_signed_by_official_libraries_are_accepted() {
    let world = World::start().await;
    let secrets = [
        ("stripe", "whsec_correct-horse-battery"),
        ("github", "It's a secret to nobody \u{e9}"),
        ("standard_webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    for (provider, secret) in secrets {
        let source = json!({"verify": {"preset": provider, "secrets": [secret]}, "event": {}});
        assert_eq!(world.ask("PUT", &format!("/v1/sources/{provider}"), &source).await.status, 201);
    }
    let bodies: Vec<String> = (0..5)
        .map(|number| {
            json!({"id": format!("evt_{number}"), "type": "paid", "name": "Zoë \u{1f600}"}).to_string()
        })
        .collect();
    let ids: Vec<String> = (0..5).map(|number| format!("delivery-{number}")).collect();
    let webhooks: Vec<_> = secrets
        .iter()
        .flat_map(|(provider, secret)| {
            let of = |(id, body)| OutgoingWebhook { provider, secret, id, body };
            ids.iter().map(String::as_str).zip(bodies.iter().map(String::as_str)).map(of).collect::<Vec<_>>()
        })
        .collect();
    for (webhook, headers) in webhooks.iter().zip(signed_headers(&webhooks)) {
        let path = format!("/v1/in/default/{}", webhook.provider);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let changed = webhook.body.replace("paid", "Paid");
        assert_eq!(world.post_with(&path, &headers, &changed).await.status, 401, "{webhook:?}");
        let answer = world.post_with(&path, &headers, webhook.body).await;
        assert_eq!(answer.status, 200, "{webhook:?}: {}", answer.text());
    }
    for (provider, _) in secrets {
        let source = world.get(&format!("/v1/sources/{provider}")).await.json();
        assert_eq!(source["accepted"], 5, "{source}");
    }
    for task in world.tasks("").await {
        world.ended(&task).await;
    }
    world.end().await;
}

/// Sends a webhook until the program accepts it, as a provider does.
async fn send_until_accepted(mut address: watch::Receiver<std::net::SocketAddr>, body: String) {
    loop {
        let at = *address.borrow_and_update();
        let headers = [("stripe-signature", &signature(SECRET, 0, &body)[..])];
        match exchange(at, "POST", PATH, &headers, &body).await {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
            // The program was killed.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Sends webhooks that the source must refuse, until the test ends.
async fn forge(mut address: watch::Receiver<std::net::SocketAddr>, refused: Arc<AtomicUsize>) {
    for number in 0_usize.. {
        let at = *address.borrow_and_update();
        let body = format!(r#"{{"id":"forged_{number}","type":"paid"}}"#);
        let header = match number % 5 {
            0 => signature("another secret", 0, &body),
            1 => signature(SECRET, 301, &body),
            2 => signature(SECRET, 0, r#"{"id":"evt_1","type":"paid"}"#),
            3 => signature("whsec_of-another-source", 0, &body),
            _ => format!("t={},v1=", unix_time()),
        };
        if let Ok(answer) = exchange(at, "POST", PATH, &[("stripe-signature", &header)], &body).await {
            assert_eq!(answer.status, 401, "{}", answer.text());
            refused.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A provider sends each webhook one to five times at once, a fifth of them out of order, while the program is
/// killed again and again. Each webhook becomes one task, and no forged one does.
#[tokio::test]
async fn webhooks_survive_kills_and_become_one_task_each() {
    let (webhooks, kills) = (size(150, 1_000), size(5, 40));
    let mut world = World::start().await;
    put_source(&world, "stripe", SECRET, &json!({"task": {"kind": "noop"}})).await;
    put_source(&world, "other", "whsec_of-another-source", &json!({"task": {"kind": "noop"}})).await;
    let (sender, address) = watch::channel(world.address());
    let refused = Arc::new(AtomicUsize::new(0));
    let forger = tokio::spawn(forge(address.clone(), Arc::clone(&refused)));
    // Every fifth webhook trades places with one that comes much later.
    let mut order: Vec<usize> = (0..webhooks).collect();
    (0..webhooks / 2).step_by(5).for_each(|index| order.swap(index, webhooks - 1 - index));
    let accepted = Arc::new(AtomicUsize::new(0));
    let provider = {
        let (address, accepted) = (address.clone(), Arc::clone(&accepted));
        tokio::spawn(async move {
            for group in order.chunks(8) {
                let mut sending = JoinSet::new();
                for &number in group {
                    let body = format!(r#"{{"id":"evt_{number}","type":"paid","amount":{number}}}"#);
                    for _ in 0..=number % 5 {
                        sending.spawn(send_until_accepted(address.clone(), body.clone()));
                    }
                }
                while let Some(sent) = sending.join_next().await {
                    sent.unwrap();
                }
                accepted.fetch_add(group.len(), Ordering::Relaxed);
            }
        })
    };
    for kill in 1..=kills {
        while accepted.load(Ordering::Relaxed) < webhooks * kill / (kills + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        world.kill().await;
        world.go_on().await;
        sender.send(world.address()).unwrap();
    }
    provider.await.unwrap();
    forger.abort();
    assert!(refused.load(Ordering::Relaxed) > 0);
    let source = world.get("/v1/sources/stripe").await.json();
    assert!(source["rejected"]["signature_wrong"].as_u64() > Some(0), "{source}");
    world.stop().await;
    let file = world.file();
    let count =
        |sql: &str| usize::try_from(file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap();
    // The id of a task derives from the id of its webhook, and each webhook got a 200.
    assert_eq!(count("SELECT count(*) FROM tasks"), webhooks);
    assert_eq!(count("SELECT count(*) FROM tasks WHERE options ->> 'source' = 'stripe'"), webhooks);
}

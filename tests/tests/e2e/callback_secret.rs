use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nobat_core::secrets::webhook::{WebhookSecret, signature};
use nobat_core::types::time::Timestamp;
use nobat_tests::harness::World;
use nobat_tests::harness::receiver::Received;
use serde_json::{Value, json};

const PATH: &str = "/v1/callback-secret";

/// Submits a task with a callback to this path, and returns the callback's request.
async fn report(world: &World, place: &str) -> Received {
    let task = world.submit(&json!({"kind": "noop", "callback": {"url": world.receiver.url(place)}})).await;
    world.ended(&task).await;
    let report = world.receiver.wait_for(place, 1).await.remove(0);
    for callback in world.tasks("queue=callbacks&").await {
        world.ended(&callback).await;
    }
    report
}

/// Returns the `webhook-signature` header that these secrets make.
fn expected(report: &Received, secrets: &[&str]) -> String {
    let secrets: Vec<WebhookSecret> = secrets.iter().map(|secret| secret.parse().unwrap()).collect();
    let seconds: i64 = report.header("webhook-timestamp").parse().unwrap();
    signature(&secrets, report.header("webhook-id"), Timestamp::from_millis(seconds * 1_000), &report.body)
}

async fn set_secret(world: &World) -> String {
    let set = world.ask("PUT", PATH, &json!({})).await;
    assert_eq!(set.status, 200, "{}", set.text());
    set.json()["secret"].as_str().unwrap().to_owned()
}

/// A change made through a process takes effect there at once, without the 10 seconds for which a process
/// trusts what it has read.
#[tokio::test]
async fn changed_callback_secret_applies_at_once_in_its_process() {
    let world = World::start().await;
    assert_eq!(report(&world, "/unsigned").await.header("webhook-signature"), "");
    let first = set_secret(&world).await;
    let signed = report(&world, "/set").await;
    assert_eq!(signed.header("webhook-signature"), expected(&signed, &[&first]));
    let rotated = world.post("/v1/callback-secret/rotate", &json!({"grace_period": 60})).await;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let second = rotated.json()["secret"].as_str().unwrap().to_owned();
    let both = report(&world, "/rotated").await;
    assert_eq!(both.header("webhook-signature"), expected(&both, &[&second, &first]));
    let third = set_secret(&world).await;
    let signed = report(&world, "/replaced").await;
    assert_eq!(signed.header("webhook-signature"), expected(&signed, &[&third]));
    assert_eq!(world.ask("DELETE", PATH, &Value::Null).await.status, 200);
    assert_eq!(report(&world, "/removed").await.header("webhook-signature"), "");
    world.end().await;
}

fn key_file(world: &World) -> PathBuf {
    world.data().with_extension("db.key")
}

#[tokio::test]
async fn callbacks_are_signed_with_every_valid_secret() {
    let mut world = World::start().await;
    let unsigned = report(&world, "/unsigned").await;
    assert_eq!((unsigned.header("webhook-id"), unsigned.header("webhook-signature")), ("", ""));
    // A process trusts what it has read of secrets for 10 seconds; a new process reads them at once.
    let first = set_secret(&world).await;
    restart(&mut world).await;
    let signed = report(&world, "/one").await;
    assert_eq!(signed.header("webhook-signature"), expected(&signed, &[&first]));
    assert_eq!(signed.header("webhook-id"), signed.header("nobat-task-id"));
    let rotated = world.post("/v1/callback-secret/rotate", &json!({})).await;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let second = rotated.json()["secret"].as_str().unwrap().to_owned();
    restart(&mut world).await;
    let both = report(&world, "/both").await;
    assert_eq!(both.header("webhook-signature"), expected(&both, &[&second, &first]));
    let task = world.submit(&json!({"kind": "http", "payload": {"url": world.receiver.url("/call")}})).await;
    world.ended(&task).await;
    assert_eq!(
        world.receiver.received("/call")[0].header("webhook-signature"),
        "",
        "only callbacks are signed with the callback secret"
    );
    assert_eq!(world.ask("DELETE", PATH, &Value::Null).await.status, 200);
    restart(&mut world).await;
    assert_eq!(report(&world, "/none").await.header("webhook-signature"), "");
    let log = world.log();
    let folder = world.folder().to_owned();
    for secret in [&first, &second] {
        let text = secret.strip_prefix("whsec_").unwrap();
        assert!(!log.contains(text), "a secret is in the log");
        for file in std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
        {
            let bytes = std::fs::read(&file).unwrap();
            assert!(
                !bytes.windows(text.len()).any(|window| window == text.as_bytes()),
                "a secret is in {}",
                file.display()
            );
        }
    }
    world.end().await;
}

#[tokio::test]
async fn secrets_are_encrypted_with_the_stored_or_given_master_key() {
    let mut world = World::start().await;
    let file = key_file(&world);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = set_secret(&world).await;
    world.stop().await;
    let hidden = file.with_extension("elsewhere");
    std::fs::rename(&file, &hidden).unwrap();
    let data = world.data();
    let refused = world.run(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]).await;
    assert!(refused.code != 0 && refused.stderr.contains("put it back") && !file.exists(), "{refused:?}");
    // The same key in the environment variable.
    let key = std::fs::read_to_string(&hidden).unwrap();
    world.set_variable("NOBAT_MASTER_KEY", key.trim());
    world.go_on().await;
    let signed = report(&world, "/given").await;
    assert_eq!(signed.header("webhook-signature"), expected(&signed, &[&secret]));
    assert!(!file.exists(), "no key file is created if a master key is given");
    world.end().await;
}

#[tokio::test]
async fn a_callback_is_not_sent_without_its_signature() {
    let mut world = World::start().await;
    let secret = set_secret(&world).await;
    world.stop().await;
    world.set_variable("NOBAT_MASTER_KEY", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=");
    world.go_on().await;
    let task = world.submit(&json!({"kind": "noop", "callback": {"url": world.receiver.url("/done")}})).await;
    world.ended(&task).await;
    let callback = world.tasks("queue=callbacks&").await.remove(0);
    let callback = world.until(&callback, |callback| callback["status"] == "held").await;
    assert_eq!(
        (&callback["held"]["reason"], &callback["attempt"]),
        (&json!("secret_unavailable"), &json!(0)),
        "{callback:#}"
    );
    assert!(
        !callback.to_string().contains("sealed"),
        "the API does not show the problem of the master key: {callback:#}"
    );
    assert_eq!(world.receiver.received("/done").len(), 0);
    world.stop().await;
    assert!(
        world.log().contains("a callback secret cannot be decrypted with the configured master key"),
        "the program logs it at the start"
    );
    // The hold lasts a minute. The test ends it in the file.
    assert_eq!(
        world.file().execute("UPDATE tasks SET wake_at = 0, due_at = 0 WHERE held IS NOT NULL", []).unwrap(),
        1
    );
    world.set_variable("NOBAT_MASTER_KEY", "");
    world.go_on().await;
    let sent = world.receiver.wait_for("/done", 1).await.remove(0);
    assert_eq!(
        sent.header("webhook-signature"),
        expected(&sent, &[&secret]),
        "the callback is signed once the master key is back"
    );
    world.ended(&callback).await;
    world.end().await;
}

async fn restart(world: &mut World) {
    world.stop().await;
    world.go_on().await;
}

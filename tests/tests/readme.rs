//! The README's tour, run as it stands there: only the ports, and `cargo run` for the program that is there already, are
//! put in their places.

use std::process::Stdio;

use nobat_tests::world::World;
use nobat_tests::world::program::{Program, workspace};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

const RUN: &str = "cargo run --release -- ";
const MARK: &str = "--- the next block";

/// The blocks of shell commands below a heading.
fn blocks(heading: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("there is no {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// Runs commands as one session of a shell, and returns what each block of them printed.
async fn paste(blocks: &[String], world: &World) -> Vec<String> {
    let blocks = blocks.join(&format!("echo '{MARK}'\n"));
    // Whatever goes wrong, what was started in the background is not left there.
    let script = format!("trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{blocks}");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]).current_dir(world.folder()).kill_on_drop(true);
    shell.env("NOBAT_URL", format!("http://{}", world.address()));
    let output = shell.stdin(Stdio::null()).output().await.expect("bash");
    let (printed, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {printed}\n{complaints}", output.status);
    printed.split(MARK).map(|printed| printed.trim().to_owned()).collect()
}

/// The last line that was printed, as JSON.
fn last(printed: &str) -> Value {
    let line = printed.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[tokio::test]
async fn reports_are_signed_as_it_says() {
    let world = World::start().await;
    let block = blocks("Reports").remove(0).replace("127.0.0.1:8080", &world.address().to_string());
    let printed = paste(&[block], &world).await.remove(0);
    let (set, rotated) = printed.split_once('\n').unwrap();
    for (answer, signing) in [(set, 1), (rotated, 2)] {
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert!(answer["secret"].as_str().unwrap().starts_with("whsec_"), "{answer}");
        assert_eq!(answer["secrets"].as_array().unwrap().len(), signing, "{answer}");
    }
    world.end().await;
}

#[tokio::test]
async fn endpoints_are_called_as_it_says() {
    let world = World::start().await;
    let block = blocks("Calls to other people's APIs").remove(0).replace("127.0.0.1:8080", &world.address().to_string());
    let printed = paste(&[block.replace("https://billing.example", &world.receiver.url(""))], &world).await.remove(0);
    let answers: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [endpoint, task, paused, resumed, flow] = answers.try_into().expect("five answers");
    assert!(endpoint["secret"].as_str().unwrap().starts_with("whsec_"), "{endpoint}");
    assert_eq!((&paused["paused"], &resumed["paused"], &flow["rate"]), (&json!(true), &json!(false), &json!(5)));
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    assert_eq!(world.receiver.received("/api/charge")[0].header("authorization"), "Bearer s3cret");
    world.end().await;
}

#[tokio::test]
async fn the_tour_works_when_it_is_pasted() {
    let mut tour = blocks("A tour with curl");
    let serve = tour.remove(0);
    let flags: Vec<&str> = serve.trim().strip_prefix(RUN).and_then(|rest| rest.strip_prefix("serve ")).unwrap().split(' ').collect();
    let world = World::with(&flags).await;
    // A port that was free a moment ago, for the server that the tour starts itself.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // Where a reader waits for a second, the test waits for what the reader waits for.
    let ready = format!("until curl -s -o there http://127.0.0.1:{port}/; do :; done");
    for block in &mut tour {
        *block = block
            .replace("127.0.0.1:8080", &world.address().to_string())
            .replace("9000", &port.to_string())
            .replace("sleep 1\n", &format!("{ready}\n"));
        *block = block.replace(RUN, &format!("{} ", Program::Nobat.path().display()));
    }
    let printed = paste(&tour, &world).await;
    let [noop, call, replay, key, cancel, client] = printed.try_into().expect("six blocks");

    assert_eq!(last(&noop)["status"], "succeeded");
    let dead = last(&call);
    assert_eq!((&dead["status"], &dead["attempt"], &dead["error"]["code"]), (&json!("failed"), &json!(3), &json!("connection_refused")));
    let replayed = last(&replay);
    assert_eq!((&replayed["id"], &replayed["status"], &replayed["generation"]), (&dead["id"], &json!("succeeded"), &json!(2)));
    assert!(replay.lines().any(|line| line.contains(r#""next_cursor":null"#)), "the list is shown: {replay}");
    let headers: Vec<String> = key.lines().map(|line| line.trim().to_lowercase()).collect();
    let [first, second, mark] = match headers.as_slice() {
        [first, one, other] if one.starts_with("location") => [first, one, other],
        [first, one, other] => [first, other, one],
        other => panic!("{other:?}"),
    };
    assert_eq!((first, mark.as_str()), (second, "idempotency-replayed: true"));
    assert_eq!(last(&cancel)["status"], "canceled");
    assert!(client.contains("succeeded") && client.contains("STATUS"), "{client}");
    world.end().await;
}

#[test]
fn the_first_two_commands_are_what_they_say() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let first = readme.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    assert_eq!(first, "cargo run --release\ncargo test --workspace\n");
}

//! The README's tour and every call of nobat in the docs, run as written. Only the ports are replaced, and
//! `cargo run` by the program that is already built.

use std::process::Stdio;

use nobat_tests::harness::World;
use nobat_tests::harness::program::{Program, workspace};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

const RUN: &str = "cargo run --release -- ";
const MARK: &str = "--- the next block";

/// Pages and headings below which curl calls nobat. Each has a test of its own.
const SECTIONS: [(&str, &str); 4] = [
    ("README.md", "A tour with curl"),
    ("docs/getting-started.md", "Call an API"),
    ("docs/getting-started.md", "Report the end of a task"),
    ("docs/getting-started.md", "Create API keys"),
];
/// Pages with calls by curl. One test runs all of them.
const PAGES: [&str; 6] = [
    "docs/tasks.md",
    "docs/delivery.md",
    "docs/security.md",
    "docs/events.md",
    "docs/schedules.md",
    "docs/sources.md",
];

/// Returns the text of a file of the repository.
fn page(name: &str) -> String {
    std::fs::read_to_string(workspace().join(name)).unwrap()
}

/// Returns the blocks of shell commands below a heading of [`SECTIONS`].
fn blocks(heading: &str) -> Vec<String> {
    let (name, _) = SECTIONS
        .iter()
        .find(|(_, known)| *known == heading)
        .unwrap_or_else(|| panic!("{heading} is not in SECTIONS"));
    let page = page(name);
    let (_, section) =
        page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{name} has no {heading}"));
    blocks_of(section.split("\n## ").next().unwrap_or_default())
}

/// Returns the blocks of shell commands in a text.
fn blocks_of(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// Returns the blocks in which curl calls nobat.
fn calls_of(text: &str) -> Vec<String> {
    blocks_of(text).into_iter().filter(|block| block.contains("curl ") && block.contains(":8080")).collect()
}

/// Makes curl fail if the answer is an error.
const STRICT: &str = "curl() { command curl --fail-with-body \"$@\"; }\n";

/// Runs blocks as one shell session, and returns the output of each.
async fn paste(blocks: &[String], world: &World) -> Vec<String> {
    paste_with(blocks, world, "").await
}

/// Runs blocks as one shell session with this key in `NOBAT_KEY`, and returns the output of each.
async fn paste_with(blocks: &[String], world: &World, key: &str) -> Vec<String> {
    let blocks = blocks.join(&format!("echo '{MARK}'\n"));
    // Ends background processes even after a failure.
    let script = format!("trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{blocks}");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]).current_dir(world.folder()).kill_on_drop(true);
    shell.env("NOBAT_URL", format!("http://{}", world.address())).env_remove("NOBAT_KEY");
    if !key.is_empty() {
        shell.env("NOBAT_KEY", key);
    }
    let output = shell.stdin(Stdio::null()).output().await.expect("bash");
    let (printed, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {printed}\n{complaints}", output.status);
    printed.split(MARK).map(|printed| printed.trim().to_owned()).collect()
}

/// Returns the last line of the output, as JSON.
fn last(printed: &str) -> Value {
    let line = printed.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[tokio::test]
async fn documented_callback_secret_calls_succeed() {
    let world = World::start().await;
    let block =
        blocks("Report the end of a task").remove(0).replace("127.0.0.1:8080", &world.address().to_string());
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
async fn documented_endpoint_calls_succeed() {
    let world = World::start().await;
    let block = blocks("Call an API").remove(0).replace("127.0.0.1:8080", &world.address().to_string());
    let printed =
        paste(&[block.replace("https://billing.example", &world.receiver.url(""))], &world).await.remove(0);
    let answers: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [endpoint, task, paused, resumed, limiter] = answers.try_into().expect("five responses");
    assert!(endpoint["secret"].as_str().unwrap().starts_with("whsec_"), "{endpoint}");
    assert_eq!(
        (&paused["paused"], &resumed["paused"], &limiter["rate"]),
        (&json!(true), &json!(false), &json!(5))
    );
    assert_eq!(world.ended(&task).await["status"], "succeeded");
    assert_eq!(world.receiver.received("/api/charge")[0].header("authorization"), "Bearer s3cret");
    world.end().await;
}

#[tokio::test]
async fn readme_tour_works_when_pasted() {
    let mut tour = blocks("A tour with curl");
    let serve = tour.remove(0);
    let flags: Vec<&str> = serve
        .trim()
        .strip_prefix(RUN)
        .and_then(|rest| rest.strip_prefix("serve "))
        .unwrap()
        .split(' ')
        .collect();
    let world = World::with(&flags).await;
    // A free port for the server that the tour starts itself.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // Where the tour sleeps for a second, the test waits until the server listens.
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
    assert_eq!(
        (&dead["status"], &dead["attempt"], &dead["error"]["code"]),
        (&json!("failed"), &json!(3), &json!("connection_refused"))
    );
    let replayed = last(&replay);
    assert_eq!(
        (&replayed["id"], &replayed["status"], &replayed["generation"]),
        (&dead["id"], &json!("succeeded"), &json!(2))
    );
    assert!(
        replay.lines().any(|line| line.contains(r#""next_cursor":null"#)),
        "the list is printed: {replay}"
    );
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

/// Stops the program, creates keys with these command lines, starts it again, and returns the first key.
async fn make_keys(world: &mut World, lines: &[&str]) -> String {
    let mut keys = Vec::new();
    world.stop().await;
    for line in lines {
        let data = world.data().display().to_string();
        let ran = world.run(&line.split(' ').chain(["--data", &data]).collect::<Vec<_>>()).await;
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        keys.push(ran.stdout.trim().to_owned());
    }
    world.go_on().await;
    assert!(keys.iter().all(|key| key.starts_with("nb_live_")), "{keys:?}");
    keys.remove(0)
}

#[tokio::test]
async fn documented_key_and_tenant_calls_succeed() {
    let mut world = World::start().await;
    let lines = blocks("Create API keys").remove(0);
    let lines: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.strip_prefix(RUN))
        .filter(|line| line.starts_with("keys "))
        .collect();
    let key = make_keys(&mut world, &lines).await;
    let block = blocks("Create API keys").remove(1).replace("127.0.0.1:8080", &world.address().to_string());
    let printed = paste_with(&[STRICT.to_owned() + &block], &world, &key).await.remove(0);
    assert_eq!(last(&printed)["request_rate"]["rate"], 100, "{printed}");
    // `World::end` would list tasks without a key, which is refused. No task was submitted.
    world.stop().await;
}

#[tokio::test]
async fn every_call_in_the_docs_succeeds() {
    for name in PAGES {
        let mut world = World::start().await;
        let calls = calls_of(&page(name));
        assert!(!calls.is_empty(), "{name} has no calls");
        let wants_key = calls.concat().contains("$NOBAT_KEY");
        let key = if wants_key {
            make_keys(&mut world, &["keys create --scopes admin,config:write"]).await
        } else {
            String::new()
        };
        let calls = calls.concat().replace("127.0.0.1:8080", &world.address().to_string());
        let calls = calls.replace("https://billing.example", &world.receiver.url(""));
        let calls = calls.replace("https://stock.example", &world.receiver.url(""));
        let printed = paste_with(&[STRICT.to_owned() + &calls], &world, &key).await.remove(0);
        // A call whose answer is assigned to a variable prints nothing.
        let count = calls.lines().filter(|line| line.starts_with("curl ")).count();
        assert_eq!(printed.lines().count(), count, "{name}: {printed}");
        for line in printed.lines() {
            let answer: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            assert!(answer["status"] != "failed", "{name}: {answer}");
        }
        world.stop().await;
    }
}

#[test]
fn every_documented_call_is_tested() {
    for name in ["README.md", "docs/getting-started.md"] {
        for section in page(name).split("\n## ").filter(|section| !calls_of(section).is_empty()) {
            let heading = section.lines().next().unwrap_or_default();
            assert!(SECTIONS.contains(&(name, heading)), "no test runs the calls of {name} below {heading}");
        }
    }
    let docs = std::fs::read_dir(workspace().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    for name in docs.chain(["SECURITY.md", "ARCHITECTURE.md", "infra/nginx/README.md"].map(str::to_owned)) {
        let is_run = PAGES.contains(&name.as_str()) || SECTIONS.iter().any(|(page, _)| *page == name);
        assert!(is_run || calls_of(&page(&name)).is_empty(), "no test runs the calls of {name}");
    }
}

#[test]
fn readme_begins_with_the_run_and_test_commands() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let first = readme.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    assert_eq!(first, "cargo run --release\ncargo test --workspace\n");
}

//! nginx in front of four nobats, tested by the script that users can run, too, and nginx as an endpoint.
//! Only `.ci/run` runs these tests, because not every machine has nginx.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::harness::program::{Program, workspace};
use nobat_tests::harness::{PATIENCE, World, moment};
use nobat_tests::size::size;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Visibility timeout: a hint that a killed nobat received reappears after 30 seconds.
const VISIBILITY: Duration = Duration::from_secs(30);

async fn run(variables: &[(&str, String)]) {
    let mut script = Command::new(workspace().join("infra/nginx/test"));
    script.arg(Program::Nobat.path()).envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    let output = script.kill_on_drop(true).output().await.expect("bash");
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complaints}");
    println!("{said}");
    assert!(said.contains("ok: no request failed during a rolling restart"), "{said}");
}

#[tokio::test]
#[ignore = "needs nginx and openssl"]
async fn rolling_restart_behind_nginx_succeeds_on_four_files() {
    run(&[]).await;
}

#[tokio::test]
#[ignore = "needs nginx and openssl"]
async fn rolling_restart_behind_nginx_succeeds_on_one_table() {
    let emulator = Emulator::shared();
    let (table, queues) =
        (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
    let own = [("NOBAT_BACKEND", "aws"), ("NOBAT_TABLE", table.name()), ("NOBAT_QUEUE_URL", queues.hints())];
    let own = own.map(|(name, value)| (name, value.to_owned()));
    run(&[&emulator.variables()[..], &own].concat()).await;
}

/// Starts an nginx that answers 503 with `Retry-After` in seconds, as long as the folder holds a file `busy`.
async fn start_busy_nginx(folder: &Path, seconds: u32) -> (Child, String) {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let place = folder.display();
    let configuration = format!(
        "daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/error.log; events {{}}\n\
         http {{\n\
         log_format short '$status'; access_log {place}/access.log short;\n\
         client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
         uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
         server {{ listen {address}; location / {{\n\
         if (-f {place}/busy) {{ add_header Retry-After {seconds} always; return 503; }}\n\
         return 200; }} }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
    std::fs::write(folder.join("busy"), "").unwrap();
    let mut nginx = Command::new("nginx");
    nginx
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-p")
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let nginx = nginx.spawn().expect("nginx");
    let listens = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, listens).await.expect("nginx listens");
    (nginx, format!("http://{address}"))
}

async fn held(world: &World, task: &Value) -> Value {
    world.until(task, |task| task["held"]["reason"] == "retry_after").await
}

#[tokio::test]
#[ignore = "needs nginx and openssl"]
async fn retry_after_of_nginx_holds_all_tasks_and_costs_no_attempt() {
    let world = World::start().await;
    let (_nginx, url) = start_busy_nginx(world.folder(), 5).await;
    assert_eq!(world.ask("PUT", "/v1/endpoints/busy", &json!({"url": url})).await.status, 201);
    let task = json!({"kind": "http", "endpoint": "busy", "payload": {}, "retry": {"max_attempts": 1}});
    let first = world.submit(&task).await;
    let first = held(&world, &first).await;
    // nginx is well again at once, but nobat must not call it before the requested time.
    std::fs::remove_file(world.folder().join("busy")).unwrap();
    let (until, told) = (moment(&first["held"], "until"), moment(&first["attempts"][0], "finished_at"));
    assert!(until.since(told) >= Duration::from_millis(4_900), "{first:#}");
    assert_eq!(first["attempt"], 0);
    let many = vec![&task; size(20, 100)];
    let rest = world.post("/v1/tasks/batch", &json!({"tasks": many})).await.json();
    let rest: Vec<Value> = rest["data"].as_array().unwrap().clone();
    held(&world, &rest[0]).await;
    for task in rest.iter().chain([&first]) {
        let task = world.ended(task).await;
        assert_eq!(
            (&task["status"], &task["attempt"]),
            (&json!("succeeded"), &json!(1)),
            "the only attempt succeeds"
        );
        let last = task["attempts"].as_array().unwrap().last().unwrap();
        assert!(
            moment(last, "started_at") >= until,
            "the attempt starts after the requested pause: {task:#}"
        );
    }
    let log = std::fs::read_to_string(world.folder().join("access.log")).unwrap();
    let statuses: Vec<&str> = log.lines().collect();
    assert_eq!((statuses[0], statuses.len()), ("503", rest.len() + 2));
    assert!(statuses[1..].iter().all(|status| *status == "200"), "{statuses:?}");
    world.end().await;
}

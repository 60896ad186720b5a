//! Emulator of AWS on which the AWS tests depend.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nobat_tests::aws::client::{Client, Service};
use nobat_tests::aws::emulator::{Emulator, Iam};
use nobat_tests::aws::fault_proxy::{Flow, Tap};
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::harness::PATIENCE;
use nobat_tests::harness::exchange::exchange;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn is_gone(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn emulator_ends_with_its_parent_process() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emulator"));
    let mut parent = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("a line with the address");
    let address =
        line.strip_prefix("export AWS_ENDPOINT_URL=http://").and_then(|address| address.parse().ok());
    let address = address.unwrap_or_else(|| panic!("no address: {line}"));
    assert_eq!(Client::new(address).sqs("ListQueues", &json!({})).await["QueueUrls"], json!([]));
    parent.kill().await.unwrap();
    let begun = Instant::now();
    while !is_gone(address).await {
        assert!(begun.elapsed() < PATIENCE, "the emulator outlives its parent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_emulator_ends_when_it_is_dropped() {
    let emulator = Emulator::start(Iam::Ignored);
    let address = emulator.address();
    assert!(!is_gone(address).await);
    drop(emulator);
    assert!(is_gone(address).await);
}

#[tokio::test]
async fn shared_emulator_is_one_and_separates_tables() {
    let emulator = Emulator::shared();
    assert_eq!(emulator.address(), Emulator::shared().address());
    let (one, other) = (Table::create(emulator.client()).await, Table::create(emulator.client()).await);
    let item = json!({ "PK": { "S": "a" }, "SK": { "S": "b" } });
    emulator.client().dynamodb("PutItem", &json!({ "TableName": one.name(), "Item": item })).await;
    assert_eq!((one.items().await, other.items().await), (vec![item], vec![]));
}

#[tokio::test]
async fn queue_redelivers_a_message_before_dead_lettering_it() {
    let client = Emulator::shared().client();
    let queues = Queues::create(client, Duration::ZERO).await;
    queues.send("one").await;
    assert_eq!((queues.depth().await, queues.dead().await), (1, 0));
    for _ in 0..10 {
        let received = client.sqs("ReceiveMessage", &json!({ "QueueUrl": queues.hints() })).await;
        assert_eq!(received["Messages"][0]["Body"], "one");
    }
    let received = client.sqs("ReceiveMessage", &json!({ "QueueUrl": queues.hints() })).await;
    assert_eq!(received["Messages"][0], json!(null));
    assert_eq!((queues.depth().await, queues.dead().await), (0, 1));
}

#[tokio::test]
async fn unknown_key_is_refused_only_where_iam_is_enforced() {
    let ask = async |emulator: &Emulator| {
        let stranger = emulator.client().with_key("AKIAIOSFODNN7EXAMPLE");
        stranger.call(Service::Sqs, "ListQueues", &json!({})).await
    };
    assert_eq!(ask(&Emulator::start(Iam::Enforced)).await.unwrap_err().status, 403);
    ask(Emulator::shared()).await.unwrap();
}

#[tokio::test]
async fn table_behind_a_closed_tap_is_unreachable_until_it_opens() {
    let tap = Tap::new().await.unwrap();
    let emulator = Emulator::with_table_behind(&tap, Iam::Ignored);
    let table = Table::create(Client::new(tap.address())).await;
    tap.set(Flow::Refused);
    assert!(exchange(tap.address(), "GET", "/_ministack/health", &[], "").await.is_err());
    assert_eq!(exchange(emulator.address(), "GET", "/_ministack/health", &[], "").await.unwrap().status, 200);
    tap.set(Flow::Open);
    assert!(table.items().await.is_empty());
}

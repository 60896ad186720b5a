//! nginx in front of four nobats, by the script that is there for users as well. Left to `.ci/run`, since not everybody has nginx.

use std::time::Duration;

use nobat_tests::aws::emulator::Emulator;
use nobat_tests::aws::queues::Queues;
use nobat_tests::aws::table::Table;
use nobat_tests::world::program::{Program, workspace};
use tokio::process::Command;

/// How long a hint stays out of sight that a nobat has taken and died with.
const VISIBILITY: Duration = Duration::from_secs(30);

async fn run(variables: &[(&str, String)]) {
    let mut script = Command::new(workspace().join("infra/nginx/test"));
    script.arg(Program::Nobat.path()).envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    let output = script.kill_on_drop(true).output().await.expect("bash");
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complaints}");
    println!("{said}");
    assert!(said.contains("ok: no request failed during a rolling restart"), "{said}");
}

#[tokio::test]
#[ignore = "needs nginx and openssl"]
async fn four_nobats_with_a_file_each_stand_behind_nginx() {
    run(&[]).await;
}

#[tokio::test]
#[ignore = "needs nginx and openssl"]
async fn four_nobats_on_one_table_stand_behind_nginx() {
    let emulator = Emulator::shared();
    let (table, queues) = (Table::create(emulator.client()).await, Queues::create(emulator.client(), VISIBILITY).await);
    let own = [("NOBAT_BACKEND", "aws"), ("NOBAT_TABLE", table.name()), ("NOBAT_QUEUE_URL", queues.hints())];
    let own = own.map(|(name, value)| (name, value.to_owned()));
    run(&[&emulator.variables()[..], &own].concat()).await;
}

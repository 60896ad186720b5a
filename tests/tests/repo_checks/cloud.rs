use std::collections::BTreeSet;
use std::process::Command;

use nobat_tests::harness::program::workspace;
use nobat_tests::tools::Tools;
use serde_json::{Value, json};

use super::settings::words;
use super::source::{text, texts};

/// Runs a program in `infra/`, which must succeed, and returns its standard output.
fn run(tools: Tools, program: &str, arguments: &[&str]) -> String {
    let programs = tools.programs();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs.clone()).chain(std::env::split_paths(&path)))
        .expect("a PATH");
    let mut command = Command::new(programs.join(program));
    command.args(arguments).current_dir(workspace().join("infra")).env("PATH", path);
    // Checking a template makes no call to AWS, but needs a region.
    command.env("AWS_DEFAULT_REGION", "us-east-1").env("SAM_CLI_TELEMETRY", "0");
    let output = command.output().expect("an installed program");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?} failed\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn resources() -> Value {
    let template = run(Tools::Emulator, "python", &["expand.py", "template.yaml"]);
    let mut template: Value = serde_json::from_str(&template).expect("JSON");
    template["Resources"].take()
}

#[test]
fn template_passes_sam_validate_and_cfn_lint() {
    run(Tools::Deployment, "sam", &["validate", "--lint", "--template-file", "template.yaml"]);
    run(Tools::Deployment, "cfn-lint", &["template.yaml"]);
}

#[test]
fn sam_and_cdk_deploy_the_same() {
    Tools::Cdk.programs();
    assert_eq!(run(Tools::Emulator, "python", &["compare.py"]), "");
}

#[test]
fn each_function_has_exactly_the_permissions_it_needs() {
    let allowed: Value =
        serde_json::from_str(&run(Tools::Emulator, "python", &["policies.py"])).expect("JSON");
    let log = json!(["logs:CreateLogStream", "logs:PutLogEvents"]);
    let change = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"];
    let look_and_change = json!([&["dynamodb:BatchGetItem"], &change[..]].concat());
    let look_change_and_query =
        json!([&["dynamodb:BatchGetItem"], &change[..2], &["dynamodb:Query"], &change[2..]].concat());
    let change_and_query = [&change[..2], &["dynamodb:Query"], &change[2..]].concat();
    let take = ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"];
    let take_and_send = [&take[..], &["sqs:SendMessage"]].concat();
    let expected = json!({
        "api": {
            "ApiLog": log, "Table": look_change_and_query, "Table where C#?*": ["dynamodb:DeleteItem"], "Table/index/recent": ["dynamodb:Query"], "Table/index/sweep": ["dynamodb:Query"],
            "Queue": ["sqs:GetQueueAttributes", "sqs:SendMessage"],
            "SecretsKey": ["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"],
        },
        "worker": { "WorkerLog": log, "Table": change_and_query, "Queue": take_and_send, "SecretsKey": ["kms:Decrypt"] },
        "sweeper": {
            "SweeperLog": log, "Table": look_and_change, "Table/index/sweep": ["dynamodb:Query"], "Queue": ["sqs:SendMessage"],
        },
        "dead_letter": { "DeadLetterLog": log, "Table": change, "Queue": ["sqs:SendMessage"], "DeadLetterQueue": take },
    });
    assert_eq!(allowed, expected);
}

/// The tests of every push deploy functions of the dev profile, so they would not notice that a release
/// aborts at a panic.
#[test]
fn release_profile_unwinds_at_a_panic() {
    let manifest = text("Cargo.toml");
    let (_, profile) = manifest.split_once("\n[profile.release]\n").expect("a release profile");
    let (profile, _) = profile.split_once("\n[").expect("another section");
    assert!(profile.lines().any(|line| line == r#"panic = "unwind""#), "{profile}");
}

#[test]
fn template_sets_exactly_the_variables_the_functions_read() {
    let read: BTreeSet<String> =
        texts(&["functions"], "rs").iter().flat_map(|(_, text)| words(text)).collect();
    let resources = resources();
    let variables = resources
        .as_object()
        .expect("resources")
        .values()
        .filter_map(|one| one["Properties"]["Environment"]["Variables"].as_object());
    let set: BTreeSet<String> = variables.flat_map(|variables| variables.keys().cloned()).collect();
    assert_eq!(set, read);
}

#[test]
fn template_table_matches_the_backend() {
    let sources: String = texts(&["crates/aws/src"], "rs").into_iter().map(|(_, text)| text).collect();
    let table = &resources()["Table"]["Properties"];
    let ttl = &table["TimeToLiveSpecification"];
    assert_eq!(ttl["Enabled"], true);
    let indexes =
        table["GlobalSecondaryIndexes"].as_array().expect("indexes").iter().map(|index| &index["IndexName"]);
    let attributes = table["AttributeDefinitions"]
        .as_array()
        .expect("attributes")
        .iter()
        .map(|attribute| &attribute["AttributeName"]);
    for name in indexes.chain(attributes).chain([&ttl["AttributeName"]]) {
        assert!(sources.contains(&format!("{name}")), "the backend does not use {name}");
    }
}

use std::collections::{BTreeMap, BTreeSet};

use nobat_tests::harness::program::cargo;
use serde_json::Value;

use super::source::{first_cells, quoted, section, text};

/// Imports that each crate may have, tests aside. Every crate must be listed.
const IMPORTS: [(&str, &[&str]); 11] = [
    ("nobat-core", &[]),
    ("nobat-sqlite", &["nobat-core"]),
    ("nobat-aws", &["nobat-core"]),
    ("nobat-delivery", &["nobat-core"]),
    ("nobat-api", &["nobat-core"]),
    ("nobat-worker", &["nobat-core", "nobat-delivery"]),
    ("nobat", &["nobat-api", "nobat-aws", "nobat-core", "nobat-delivery", "nobat-sqlite", "nobat-worker"]),
    ("nobat-functions", &["nobat-api", "nobat-aws", "nobat-core", "nobat-delivery", "nobat-worker"]),
    ("nobat-bench", &["nobat"]),
    // The test suites have to name every backend.
    ("nobat-orders", &["nobat"]),
    ("nobat-tests", &["nobat-api", "nobat-aws", "nobat-core", "nobat-sqlite", "nobat-worker"]),
];

/// Crates that the core must not use: a runtime, a disk, a network.
const NOT_IN_THE_CORE: [&str; 8] =
    ["axum", "http", "hyper", "reqwest", "rusqlite", "tokio", "tokio-util", "tower"];

/// Crates that may use the SDKs of AWS.
const OF_THE_CLOUD: [&str; 2] = ["nobat-aws", "nobat-functions"];

struct Dependency {
    name: String,
    is_for_tests: bool,
    is_ours: bool,
}

/// Returns the crates of the workspace and their dependencies.
fn crates() -> BTreeMap<String, Vec<Dependency>> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(|package| (name(package), dependencies(package))).collect()
}

fn dependencies(package: &Value) -> Vec<Dependency> {
    let dependency = |found: &Value| Dependency {
        name: name(found),
        is_for_tests: found["kind"] == "dev",
        is_ours: found["source"].is_null(),
    };
    package["dependencies"].as_array().expect("dependencies").iter().map(dependency).collect()
}

fn name(value: &Value) -> String {
    value["name"].as_str().expect("a name").to_owned()
}

/// Returns the crates that depend on `name`, tests aside.
pub(super) fn users_of(name: &str) -> Vec<String> {
    let uses = |dependencies: &[Dependency]| {
        dependencies.iter().any(|import| import.name == name && !import.is_for_tests)
    };
    crates().into_iter().filter(|(_, dependencies)| uses(dependencies)).map(|(name, _)| name).collect()
}

#[test]
fn crates_import_only_allowed_crates() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        IMPORTS.into_iter().map(|(name, may)| (name, may.iter().copied().collect())).collect();
    for (name, dependencies) in crates() {
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("IMPORTS does not list {name}: add its allowed imports"));
        for import in dependencies.iter().filter(|import| import.is_ours && !import.is_for_tests) {
            assert!(may.contains(import.name.as_str()), "{name} imports {}", import.name);
        }
    }
}

#[test]
fn core_depends_on_no_runtime_disk_or_network() {
    for import in crates()["nobat-core"].iter().filter(|import| !import.is_for_tests) {
        assert!(!NOT_IN_THE_CORE.contains(&import.name.as_str()), "the core imports {}", import.name);
    }
}

#[test]
fn only_aws_crates_depend_on_an_aws_sdk() {
    let is_aws = |name: &str| name.starts_with("aws") || name.starts_with("lambda");
    for (name, dependencies) in
        crates().into_iter().filter(|(name, _)| !OF_THE_CLOUD.contains(&name.as_str()))
    {
        assert!(!dependencies.iter().any(|import| is_aws(&import.name)), "{name} imports an SDK of AWS");
    }
}

#[test]
fn architecture_page_lists_exactly_the_dependencies() {
    let table = section(&text("ARCHITECTURE.md"), "## Dependencies");
    let told: BTreeSet<String> = first_cells(&table).into_iter().flat_map(quoted).collect();
    let crates = crates();
    let used: BTreeSet<String> = crates
        .values()
        .flatten()
        .filter(|import| !import.is_ours)
        .map(|import| import.name.clone())
        .collect();
    let unlisted: Vec<_> = used.difference(&told).collect();
    assert!(unlisted.is_empty(), "ARCHITECTURE.md does not list these dependencies: {unlisted:?}");
    let unused: Vec<_> = told.difference(&used).collect();
    assert!(unused.is_empty(), "ARCHITECTURE.md lists these, but no crate uses them: {unused:?}");
}

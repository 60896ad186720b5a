use std::collections::BTreeSet;

use nobat_tests::harness::program::cargo;
use serde_json::Value;

use super::source::text;

/// Returns the texts of a list in `deny.toml`. The lists are in that file because cargo-deny checks more.
/// This test checks, on every push, what it can check without cargo-deny.
fn list(section: &str, key: &str) -> Vec<String> {
    let deny = text("deny.toml");
    let section = deny
        .split("\n[")
        .find_map(|part| part.strip_prefix(section)?.strip_prefix("]\n"))
        .expect("the section");
    let (_, list) = section.split_once(&format!("\n{key} = [")).expect("the list");
    let list: String = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .take_while(|line| *line != "]")
        .collect();
    let list = list.split(']').next().unwrap_or_default();
    let list: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!list.is_empty(), "{key} is empty");
    list
}

/// Returns every foreign crate that is built for any platform.
fn external_crates() -> Vec<Value> {
    let output = cargo()
        .args(["metadata", "--locked", "--all-features", "--format-version", "1"])
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    packages.into_iter().filter(|package| !package["source"].is_null()).collect()
}

/// Returns true if allowed licences satisfy a licence expression. Every part between two `AND`s has to offer
/// one; brackets are ignored. So it may refuse an acceptable expression, but never accepts an unacceptable
/// one.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    expression
        .split(" AND ")
        .all(|part| part.split(" OR ").any(|licence| allowed.iter().any(|allowed| allowed == licence.trim())))
}

#[test]
fn crate_licences_match_the_allowed_list() {
    let allowed = list("licenses", "allow");
    let foreign = external_crates();
    let under = |package: &Value, licences: &[String]| {
        is_allowed(package["license"].as_str().unwrap_or_default(), licences)
    };
    for package in &foreign {
        assert!(
            under(package, &allowed),
            "{} {}: {}",
            package["name"],
            package["version"],
            package["license"]
        );
    }
    for licence in &allowed {
        let others: Vec<String> = allowed.iter().filter(|other| *other != licence).cloned().collect();
        assert!(foreign.iter().any(|package| !under(package, &others)), "no crate needs {licence}");
    }
}

#[test]
fn every_crate_comes_from_crates_io() {
    let sources: BTreeSet<String> = external_crates()
        .iter()
        .filter_map(|package| package["source"].as_str().map(str::to_owned))
        .collect();
    let registries = list("sources", "allow-registry")
        .into_iter()
        .map(|registry| format!("registry+{registry}"))
        .collect();
    assert_eq!(sources, registries);
}

#[test]
fn only_one_tls_and_one_cryptographic_library_is_used() {
    let banned = list("bans", "deny");
    for package in external_crates() {
        assert!(
            !banned.iter().any(|banned| package["name"] == **banned),
            "{} is a dependency",
            package["name"]
        );
    }
}

#[test]
fn licence_expressions_with_brackets_are_read_strictly() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for (expression, is_so) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND ISC", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("GPL-3.0 OR (MIT AND ISC)", true),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), is_so, "{expression}");
    }
}

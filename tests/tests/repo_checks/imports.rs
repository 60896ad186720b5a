use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nobat_tests::harness::program::workspace;

use super::source::{is_test, own_code, texts};

/// Folders of the core. Each imports only from itself and from the folders before it.
const CORE: [&str; 15] = [
    "types",
    "collections",
    "json",
    "auth",
    "limits",
    "task",
    "secrets",
    "events",
    "schedules",
    "sources",
    "config",
    "submission",
    "ports",
    "policy",
    "service",
];

/// Crates whose modules must not import each other in a circle.
const CRATES: [&str; 7] = ["core", "worker", "api", "sqlite", "aws", "delivery", "nobat"];

/// Modules of a crate, with the modules that each imports. A module and its submodules may import each other.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns the modules of a crate with their code, without tests and comments.
fn modules(name: &str) -> BTreeMap<String, String> {
    let source = format!("crates/{name}/src");
    let root = workspace().join(&source);
    let module = |file: &Path| {
        let path = file.strip_prefix(&root).unwrap().with_extension("").to_string_lossy().replace('/', "::");
        (path != "lib" && path != "main" && !is_test(file)).then_some(path)
    };
    let code = |text: &str| {
        own_code(text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    texts(&[&source], "rs")
        .into_iter()
        .filter_map(|(file, text)| Some((module(&file)?, code(&text))))
        .collect()
}

/// Returns the paths in a module's code, from the root of the crate: `crate::a::{b, c}` is `a::b` and `a::c`.
fn paths(module: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, base) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
        {
            continue;
        }
        let mut rest = &code[start + base.len()..];
        let mut above: Vec<&str> = if base == "super::" { module.split("::").collect() } else { Vec::new() };
        above.pop();
        while let Some(further) = rest.strip_prefix("super::") {
            above.pop();
            rest = further;
        }
        let length = rest
            .find(|next: char| !next.is_alphanumeric() && next != '_' && next != ':')
            .unwrap_or(rest.len());
        let (path, after) = rest.split_at(length);
        let path: Vec<&str> =
            above.into_iter().chain(path.split("::").filter(|part| !part.is_empty())).collect();
        let path = path.join("::");
        let group = after.strip_prefix('{').and_then(|group| group.split(';').next()).unwrap_or_default();
        let names =
            group.split(|next: char| !next.is_alphanumeric() && next != '_').filter(|name| !name.is_empty());
        found.extend(names.map(|name| format!("{path}::{name}")));
        found.push(path);
    }
    found
}

/// Returns the names that modules re-export from their submodules, with these submodules: for `pub use b::C`
/// in `a`, `a::C` comes from `a::b`.
fn reexports(modules: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (module, code) in modules {
        for statement in code.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
            let Some((child, names)) = statement.split_once("::") else { continue };
            let child = format!("{module}::{}", child.trim());
            if modules.contains_key(&child) {
                let names = names.split(|next: char| !next.is_alphanumeric() && next != '_');
                found.extend(names.map(|name| (format!("{module}::{name}"), child.clone())));
            }
        }
    }
    found
}

fn imports(name: &str) -> Imports {
    let modules = modules(name);
    let reexports = reexports(&modules);
    let module_of = |path: &str| {
        let mut path = path;
        loop {
            if let Some(child) = reexports.get(path) {
                return Some(child.clone());
            }
            if modules.contains_key(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    let of = |(module, code): (&String, &String)| {
        let targets = paths(module, code).iter().filter_map(|path| module_of(path)).collect::<BTreeSet<_>>();
        let is_other = |target: &String| target != module && !target.starts_with(&format!("{module}::"));
        (module.clone(), targets.into_iter().filter(is_other).collect())
    };
    modules.iter().map(of).collect()
}

/// Returns the first circle that starts and ends at a module.
fn circle(imports: &Imports, module: &str) -> Option<Vec<String>> {
    let mut known = BTreeSet::new();
    let mut waiting = vec![vec![module.to_owned()]];
    while let Some(way) = waiting.pop() {
        for next in &imports[way.last()?] {
            let further = [&way[..], std::slice::from_ref(next)].concat();
            if next == module {
                return Some(further);
            }
            if known.insert(next.clone()) {
                waiting.push(further);
            }
        }
    }
    None
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    for name in CRATES {
        let imports = imports(name);
        assert!(imports.len() > 3, "{name}: {imports:?}");
        let circles: Vec<String> = imports
            .keys()
            .filter_map(|module| circle(&imports, module))
            .map(|circle| circle.join(" -> "))
            .collect();
        assert!(
            circles.is_empty(),
            "crates/{name}: move the shared item into a module that imports neither:\n{}",
            circles.join("\n")
        );
    }
}

#[test]
fn core_folders_import_only_from_folders_before_them() {
    let place = |module: &str| {
        let folder = module.split("::").next().unwrap_or_default();
        CORE.iter()
            .position(|known| *known == folder)
            .unwrap_or_else(|| panic!("{folder} is missing in the list of folders"))
    };
    let mut upward = Vec::new();
    for (module, targets) in imports("core") {
        let targets = targets.iter().filter(|target| place(target) > place(&module));
        upward.extend(targets.map(|target| format!("{module} imports {target}")));
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn paths_of_groups_and_parents_are_found() {
    let code = "use crate::a::{B, c::D};\nuse super::e::F;\nlet x = crate::g::h();";
    let mut found = paths("m::n", code);
    found.sort();
    assert_eq!(found, ["a", "a::B", "a::D", "a::c", "g::h", "m::e::F"]);
}

#[test]
fn reexported_name_belongs_to_its_submodule() {
    let modules = [("a", "pub use b::{C, D};\npub use e::F;"), ("a::b", ""), ("a::e", "")];
    let found = reexports(&modules.map(|(module, code)| (module.to_owned(), code.to_owned())).into());
    assert_eq!(
        (found["a::C"].as_str(), found["a::D"].as_str(), found["a::F"].as_str()),
        ("a::b", "a::b", "a::e")
    );
}

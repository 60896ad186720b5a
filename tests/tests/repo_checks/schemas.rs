use std::collections::BTreeMap;

use super::source::texts;

/// utoipa collects schemas by name. If two have the same name, the last one silently replaces the first.
#[test]
fn every_openapi_schema_has_a_unique_name() {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in texts(&["crates"], "rs") {
        for (line, name) in schemas(&text) {
            named.entry(name).or_default().push(format!("{}:{line}", file.display()));
        }
    }
    assert!(named.contains_key("Task") && named.contains_key("Endpoint") && named.len() > 40, "{named:?}");
    named.retain(|_, places| places.len() > 1);
    assert!(named.is_empty(), "several schemas have the same name: {named:#?}");
}

/// Returns line and name of each schema that a file derives. The name is that of the type, unless an
/// attribute sets another.
fn schemas(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let derives =
        (0..lines.len()).filter(|line| lines[*line].starts_with("#[") && lines[*line].contains("ToSchema)"));
    derives.filter_map(|line| Some((line + 1, name(&lines[line..])?))).collect()
}

fn name(lines: &[&str]) -> Option<String> {
    let attributes = lines.iter().take_while(|line| line.starts_with("#["));
    let said = attributes.filter_map(|line| line.split_once("schema(as = ")).map(|(_, name)| name).next();
    let of_type = || {
        lines
            .iter()
            .find_map(|line| line.split_once("struct ").or_else(|| line.split_once("enum ")))
            .map(|(_, name)| name)
    };
    let name = said.or_else(of_type)?;
    name.split(|character: char| !character.is_alphanumeric()).next().map(str::to_owned)
}

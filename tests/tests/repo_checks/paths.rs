use nobat_tests::harness::program::workspace;

use super::source::{files, text, texts};

/// Returns home folders of users and machines. They are assembled here, so that this file does not break its
/// own rule.
fn homes() -> Vec<String> {
    ["root", "home", "Users", "work"].map(|home| format!("/{home}/")).into()
}

#[test]
fn no_file_contains_a_local_absolute_path() {
    for file in files() {
        let name = file.strip_prefix(workspace()).expect("a file of the repository").display().to_string();
        let text = text(&name);
        for (number, line) in text.lines().enumerate() {
            // After a letter or a dot, the text is part of a URL or of a path inside the repository.
            let is_absolute = |home: &str| {
                line.match_indices(home).any(|(place, _)| {
                    !line[..place]
                        .ends_with(|before: char| before.is_alphanumeric() || ".}>".contains(before))
                })
            };
            for home in homes() {
                assert!(!is_absolute(&home), "{name}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn every_file_ends_with_a_newline() {
    for file in files() {
        let bytes = std::fs::read(&file).expect("a file");
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "{} does not end with a newline", file.display());
    }
}

#[test]
fn links_in_pages_lead_to_files() {
    let mut broken = Vec::new();
    for (file, text) in texts(&[""], "md") {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let is_outside = path.is_empty() || path.contains(':');
            if !is_outside && !file.parent().expect("a folder").join(path).exists() {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

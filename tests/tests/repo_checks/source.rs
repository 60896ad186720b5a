use std::path::{Path, PathBuf};

use nobat_tests::harness::program::workspace;

/// Returns the files of the repository, without build output, git's files and databases.
pub(super) fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(workspace(), &mut files);
    files
}

/// Returns the files with this extension in these folders, with their texts.
pub(super) fn texts(folders: &[&str], ending: &str) -> Vec<(PathBuf, String)> {
    let is_there = |file: &Path| folders.iter().any(|folder| file.starts_with(workspace().join(folder)));
    let is_so =
        |file: &PathBuf| is_there(file) && file.extension().is_some_and(|extension| extension == ending);
    files().into_iter().filter(is_so).map(|file| (file.clone(), read(&file))).collect()
}

/// Returns the text of a file of the repository.
pub(super) fn text(name: &str) -> String {
    read(&workspace().join(name))
}

/// Returns a file's own code: the text before its inline tests.
///
/// A line `mod tests;` declares a file of tests and ends nothing: such a file is found by its name.
pub(super) fn own_code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Returns true for files that contain only tests.
pub(super) fn is_test(file: &Path) -> bool {
    let file = file.strip_prefix(workspace()).unwrap_or(file);
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

/// Returns the text below a heading of a Markdown file, up to the next heading of level 2.
pub(super) fn section(text: &str, heading: &str) -> String {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let section: Vec<&str> = below.take_while(|line| !line.starts_with("## ")).collect();
    assert!(!section.is_empty(), "no text below {heading}");
    section.join("\n")
}

/// Returns the first cells of a Markdown table's rows.
pub(super) fn first_cells(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    rows.skip(2).collect()
}

/// Returns the texts between backticks.
pub(super) fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !["target", ".git", "node_modules", "dist", "cdk.out", ".aws-sam", "__pycache__"]
                .contains(&name.as_ref())
            {
                collect(&path, files);
            }
        // In a worktree of git, `.git` is a file.
        } else if !name.contains(".db") && name != ".git" {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

//! Paths of the programs under test, which are built at first use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `nobat`.
    Nobat,
    /// `examples/greet.rs`, a program with its own kind.
    Greet,
    /// `tests/examples/poison.rs`, a program with kinds that end or block it.
    Poison,
}

impl Program {
    /// Returns the path of the built program.
    pub fn path(self) -> PathBuf {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        let folder =
            FOLDER.get_or_init(|| build(&["--bin", "nobat", "--example", "greet", "--example", "poison"]));
        match self {
            Self::Nobat => folder.join("nobat"),
            Self::Greet => folder.join("examples/greet"),
            Self::Poison => folder.join("examples/poison"),
        }
    }
}

/// Returns the root folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace")
}

/// Returns a Cargo command. It is the Cargo that runs the tests, if any.
///
/// Its variables about the package under test are removed. Build scripts of some crates (ring) run again
/// whenever these change, and all dependents are recompiled.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds programs beside the running one, and returns their folder. `targets` are arguments of `cargo
/// build`.
///
/// Cargo does not build programs of other packages for a test. The build covers the whole workspace, as
/// `cargo test --workspace`, with the AWS backend, as in releases. So little is left to compile. `targets`
/// must contain an example: otherwise Cargo ignores the features that development dependencies enable, and
/// compiles many crates again.
pub fn build(targets: &[&str]) -> PathBuf {
    let this = std::env::current_exe().expect("the path of the running program is known");
    let folder = this
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("the program is in a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let target = folder.parent().expect("the folder is in a target folder");
    let status = cargo()
        .args(["build", "--quiet", "--workspace", "--features", "nobat/aws"])
        .args(targets)
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "the programs under test cannot be built");
    folder.to_owned()
}

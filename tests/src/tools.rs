//! Tools that Cargo does not provide. They are installed once, at their first use.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::program::workspace;

/// Set of programs from a registry other than crates.io.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// Emulator of AWS, for Python.
    Emulator,
    /// Tools that build the functions and deploy SAM's template, for Python: `sam`, `cargo-lambda`,
    /// `cfn-lint`.
    Deployment,
    /// Tool that deploys the CDK app: `cdk`, from npm.
    Cdk,
    /// Official library of Standard Webhooks for Python.
    WebhooksPython,
    /// Official library of Standard Webhooks for JavaScript, from npm.
    WebhooksNode,
}

impl Tools {
    /// Installs the programs if necessary, and returns their folder.
    ///
    /// Concurrent test binaries wait for the first one. A failure names the missing requirement: no test is
    /// skipped.
    pub fn programs(self) -> PathBuf {
        fs::create_dir_all(folder())
            .unwrap_or_else(|error| panic!("{} cannot be created: {error}", folder().display()));
        let lock = File::create(folder().join(format!("{self:?}.lock").to_lowercase()))
            .expect("the lock file can be created");
        lock.lock().expect("the lock file can be locked");
        if !self.is_installed() {
            self.install();
            fs::copy(self.recipe(), self.stamp()).expect("the recipe can be copied");
        }
        match self {
            Self::Emulator | Self::Deployment | Self::WebhooksPython => self.home().join("bin"),
            Self::Cdk | Self::WebhooksNode => self.home().join(".bin"),
        }
    }

    /// Returns true if the installation matches the present recipe. The stamp is written last, after a
    /// successful installation.
    fn is_installed(self) -> bool {
        let recipe = fs::read(self.recipe())
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", self.recipe().display()));
        fs::read(self.stamp()).is_ok_and(|stamp| stamp == recipe)
    }

    fn install(self) {
        match self {
            Self::Emulator | Self::Deployment | Self::WebhooksPython => {
                self.run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(self.home()));
                self.run(
                    Command::new(self.home().join("bin/pip"))
                        .args(["install", "--requirement"])
                        .arg(self.recipe()),
                );
            }
            Self::Cdk | Self::WebhooksNode => {
                let package = self.recipe().with_file_name("");
                self.run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(package));
            }
        }
    }

    /// Returns the file that pins the versions.
    fn recipe(self) -> PathBuf {
        workspace().join(match self {
            Self::Emulator => "tests/aws/emulator.txt",
            Self::Deployment => "tests/aws/deployment.txt",
            Self::Cdk => "infra/cdk/package-lock.json",
            Self::WebhooksPython => "tests/webhooks/requirements.txt",
            Self::WebhooksNode => "tests/webhooks/package-lock.json",
        })
    }

    fn home(self) -> PathBuf {
        match self {
            Self::Emulator => folder().join("emulator"),
            Self::Deployment => folder().join("deployment"),
            Self::Cdk | Self::WebhooksNode => self.recipe().with_file_name("node_modules"),
            Self::WebhooksPython => workspace().join("target/webhooks"),
        }
    }

    /// Returns the path of the stamp. It is inside the installation, so that both are removed together.
    fn stamp(self) -> PathBuf {
        self.home().join(".installed")
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Emulator | Self::Deployment => {
                "the tests of the AWS side need Python 3.10 or newer with its venv module (Debian: python3-venv), and PyPI"
            }
            Self::Cdk => "the tests of the CDK app need Node.js 20 or newer with npm, and npm's registry",
            Self::WebhooksPython => {
                "the tests of signatures need Python 3.10 or newer with its venv module (Debian: python3-venv), and PyPI"
            }
            Self::WebhooksNode => {
                "the tests of signatures need Node.js 20 or newer with npm, and npm's registry"
            }
        }
    }

    fn run(self, command: &mut Command) {
        let output = command
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{}: {command:?}: {error}", self.needs()));
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}: {command:?} failed:\n{}",
            self.needs(),
            String::from_utf8_lossy(&said)
        );
    }
}

/// Returns the folder of all temporary files of the AWS tests.
pub fn folder() -> &'static Path {
    static FOLDER: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| workspace().join("target/aws"));
    &FOLDER
}

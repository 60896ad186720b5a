//! How nobat gets to AWS: its functions built, and a stack made of them, by the tools that its users use.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::aws::emulator::Emulator;
use crate::tools::{Tools, folder};
use crate::world::program::workspace;

/// What a stack is deployed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `infra/template.yaml`, by SAM.
    Sam,
    /// The same without `ReportBatchItemFailures`.
    SamWithoutReport,
    /// `infra/cdk`, by CDK.
    Cdk,
}

/// The name of every stack: each has an emulator of its own.
pub const STACK: &str = "nobat";

/// What a stack here is told besides its defaults: its tasks may call this machine.
const PRIVATE_NETWORKS: &str = "127.0.0.0/8";

/// Lines of the built template that make the worker and `dead_letter` say which records failed.
const REPORT: &str = "      FunctionResponseTypes:\n      - ReportBatchItemFailures\n";

impl Source {
    /// Deploys it to an emulator, as the commands in the documentation do.
    pub fn deploy(self, emulator: &Emulator) {
        let functions = Functions::built();
        match self {
            Self::Sam => sam_deploy(&functions.template, emulator),
            Self::SamWithoutReport => sam_deploy(&functions.template_without_report(), emulator),
            Self::Cdk => cdk_deploy(&functions.binaries, emulator),
        }
    }
}

/// What `sam build` left: for both kinds of stack the same programs.
struct Functions {
    /// The template that names them.
    template: PathBuf,
    /// Where each of them has a folder.
    binaries: PathBuf,
}

impl Functions {
    /// Builds them, once in a process; what is up to date already is not compiled again.
    fn built() -> &'static Self {
        static BUILT: OnceLock<Functions> = OnceLock::new();
        BUILT.get_or_init(|| {
            let home = folder().join("functions");
            fs::create_dir_all(&home).expect("a folder for the functions");
            let lock = File::create(home.join("build.lock")).expect("a file to lock");
            lock.lock().expect("a file that can be locked");
            sam_build(&home);
            Self { template: home.join("sam/template.yaml"), binaries: home.join("lambda") }
        })
    }

    /// A copy of the template beside the first, since it names the programs by their place.
    fn template_without_report(&self) -> PathBuf {
        let template = fs::read_to_string(&self.template).expect("the built template");
        let without = template.replace(REPORT, "");
        assert!(!without.contains("ReportBatchItemFailures") && without != template, "the setting is not where it was:\n{template}");
        let path = self.template.with_file_name("without-report.yaml");
        fs::write(&path, without).expect("a template");
        path
    }
}

/// Optimized a little: that takes half the time, and nobody measures here. In a folder of their own, so that what people build and
/// deploy is never one of these.
fn sam_build(home: &Path) {
    let mut sam = tool(Tools::Deployment, "sam");
    sam.args(["build", "--template-file", "template.yaml", "--build-dir"]).arg(home.join("sam"));
    sam.args(["--parameter-overrides", &format!("Architecture={}", architecture())]);
    sam.env("CARGO_TARGET_DIR", home).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    sam.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    sam.env("CARGO_LAMBDA_GLOBAL", workspace().join("tests/aws/cargo-lambda.toml"));
    run(&mut sam);
}

fn sam_deploy(template: &Path, emulator: &Emulator) {
    let mut sam = tool(Tools::Deployment, "sam");
    sam.args(["deploy", "--stack-name", STACK, "--config-file"]).arg(workspace().join("infra/samconfig.toml"));
    sam.arg("--template-file").arg(template).arg("--parameter-overrides");
    sam.args([format!("Architecture={}", architecture()), format!("PrivateNetworks={PRIVATE_NETWORKS}")]);
    run(sam.envs(emulator.variables()));
}

fn cdk_deploy(binaries: &Path, emulator: &Emulator) {
    let code = binaries.display().to_string();
    let cdk = || {
        let mut cdk = tool(Tools::Cdk, "cdk");
        cdk.current_dir(workspace().join("infra/cdk")).envs(emulator.variables());
        for (name, value) in [("code", code.as_str()), ("architecture", &architecture()), ("privateNetworks", PRIVATE_NETWORKS)] {
            cdk.arg("--context").arg(format!("{name}={value}"));
        }
        cdk
    };
    // To bootstrap takes the app as well, though it deploys nothing of it.
    run(cdk().arg("bootstrap").arg(format!("aws://000000000000/{}", crate::aws::client::REGION)));
    run(cdk().args(["deploy", "--require-approval", "never", "--output"]).arg(folder().join("cdk.out")));
}

/// What both kinds of stack call the kind of processor that this machine has.
fn architecture() -> String {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }.to_owned()
}

/// A program that finds the others of its set, and knows of no account but the emulator's.
fn tool(tools: Tools, program: &str) -> Command {
    let programs = tools.programs();
    let mut command = Command::new(programs.join(program));
    command.current_dir(workspace().join("infra")).env("PATH", first_in_path(programs)).env("SAM_CLI_TELEMETRY", "0");
    command.env("NO_PROXY", "127.0.0.1,localhost");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // What Cargo says of the package under test would have ring's build script run again, and what stands on it compiled anew.
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"].iter().any(|of| text.starts_with(of)) {
            command.env_remove(&name);
        }
    }
    command
}

fn first_in_path(programs: PathBuf) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).expect("a PATH")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?} said\n{}", String::from_utf8_lossy(&said));
}

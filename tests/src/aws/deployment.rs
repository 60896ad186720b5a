//! Deployment of nobat to AWS: builds the functions and deploys a stack of them, with the tools that users use.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::aws::emulator::Emulator;
use crate::harness::program::workspace;
use crate::tools::{Tools, folder};

/// Template or app that a stack is deployed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `infra/template.yaml`, by SAM.
    Sam,
    /// `infra/cdk`, by CDK.
    Cdk,
}

/// Name of every stack. Each stack has its own emulator.
pub const STACK: &str = "nobat";

/// Value of `PrivateNetworks`: tasks may call this machine. All other parameters keep their defaults.
const PRIVATE_NETWORKS: &str = "127.0.0.0/8";

impl Source {
    /// Deploys the stack to an emulator with the commands of the documentation.
    pub fn deploy(self, emulator: &Emulator) {
        let functions = Functions::built();
        match self {
            Self::Sam => sam_deploy(&functions.template, emulator),
            Self::Cdk => cdk_deploy(&functions.binaries, emulator),
        }
    }
}

/// Output of `sam build`. Both kinds of stack use the same programs.
struct Functions {
    /// Built template, which names the programs.
    template: PathBuf,
    /// Folder with one subfolder for each function.
    binaries: PathBuf,
}

impl Functions {
    /// Builds the functions once in a process. The tools do not recompile what is up to date.
    fn built() -> &'static Self {
        static BUILT: OnceLock<Functions> = OnceLock::new();
        BUILT.get_or_init(|| {
            let home = folder().join("functions");
            fs::create_dir_all(&home).expect("the functions' folder can be created");
            let lock = File::create(home.join("build.lock")).expect("the lock file can be created");
            lock.lock().expect("the lock file can be locked");
            sam_build(&home);
            Self { template: home.join("sam/template.yaml"), binaries: home.join("lambda") }
        })
    }
}

/// Builds with a low optimization level: the build takes half the time, and no test measures these programs. They have their own target
/// folder, so that no user deploys one of them by mistake.
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
    // `cdk bootstrap` needs the app as well, although it deploys nothing of it.
    run(cdk().arg("bootstrap").arg(format!("aws://000000000000/{}", crate::aws::client::REGION)));
    run(cdk().args(["deploy", "--require-approval", "never", "--output"]).arg(folder().join("cdk.out")));
}

/// Returns this machine's processor architecture, as both kinds of stack name it.
fn architecture() -> String {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }.to_owned()
}

/// Returns a command that finds the other programs of its set and knows no account but the emulator's.
fn tool(tools: Tools, program: &str) -> Command {
    let programs = tools.programs();
    let mut command = Command::new(programs.join(program));
    command.current_dir(workspace().join("infra")).env("PATH", first_in_path(programs)).env("SAM_CLI_TELEMETRY", "0");
    command.env("NO_PROXY", "127.0.0.1,localhost");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // Cargo's variables of the package under test would make ring's build script run again and recompile its dependents.
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"].iter().any(|of| text.starts_with(of)) {
            command.env_remove(&name);
        }
    }
    command
}

fn first_in_path(programs: PathBuf) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path))).expect("PATH can be joined")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&said));
}

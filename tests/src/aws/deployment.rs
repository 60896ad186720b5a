//! Deployment of nobat to AWS: builds the functions and deploys a stack of them, with the tools that users
//! use.
//!
//! Only [`Source::SamBuild`] builds the functions with `sam build`, which takes many minutes. The other
//! sources deploy functions that Cargo compiles for this machine with the profile of the tests.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::aws::emulator::Emulator;
use crate::aws::template::template;
use crate::harness::program::{build, workspace};
use crate::tools::{Tools, folder};

/// Template or app that a stack is deployed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `infra/template.yaml`, by SAM.
    Sam,
    /// `infra/cdk`, by CDK.
    Cdk,
    /// Output of `sam build`, by SAM. The functions are those of a release.
    SamBuild,
}

/// Name of every stack. Each stack has its own emulator.
pub const STACK: &str = "nobat";

/// Value of `PrivateNetworks`: tasks may call this machine. All other parameters keep their defaults.
const PRIVATE_NETWORKS: &str = "127.0.0.0/8";

/// Name of the assembled template.
const TEMPLATE: &str = "template.json";

impl Source {
    /// Deploys the stack to an emulator with the commands of the documentation.
    pub fn deploy(self, emulator: &Emulator) {
        match self {
            Self::Sam => sam_deploy(&assembled().join(TEMPLATE), emulator),
            Self::Cdk => cdk_deploy(assembled(), emulator),
            Self::SamBuild => sam_deploy(&sam_build(), emulator),
        }
    }
}

/// Assembles what `sam build` makes, once in a process. Returns the folder, which has a subfolder with
/// `bootstrap` for each function.
fn assembled() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let home = folder().join("functions");
        fs::create_dir_all(&home).expect("the functions' folder can be created");
        let lock = File::create(home.join("assembly.lock")).expect("the lock file can be created");
        lock.lock().expect("the lock file can be locked");
        let mut template = template().clone();
        let programs = point_to_programs(&mut template);
        let built = built(&programs);
        for program in &programs {
            install(&built.join(program), &home.join(program));
        }
        fs::write(home.join(TEMPLATE), template.to_string()).expect("the template can be written");
        home
    })
}

/// Makes each function of a template take its code from a folder beside the template, as `sam build` does.
/// The folder has the name of the function's program. Returns these names.
fn point_to_programs(template: &mut Value) -> Vec<String> {
    let resources = template["Resources"].as_object_mut().expect("the template has resources");
    let functions = resources.values_mut().filter(|resource| resource["Type"] == "AWS::Serverless::Function");
    let point = |function: &mut Value| {
        let program = function["Metadata"]["BuildProperties"]["Binary"]
            .as_str()
            .expect("the function names its program")
            .to_owned();
        function["Properties"]["CodeUri"] = json!(program);
        function.as_object_mut().expect("a resource is an object").remove("Metadata");
        program
    };
    let programs = functions.map(point).collect();
    template["Globals"]["Function"]
        .as_object_mut()
        .expect("the template has settings of all functions")
        .remove("CodeUri");
    programs
}

fn built(programs: &[String]) -> PathBuf {
    let mut targets: Vec<&str> = programs.iter().flat_map(|program| ["--bin", program]).collect();
    targets.extend(["--example", "greet_worker"]);
    build(&targets)
}

/// Copies a program to a function's folder, without its symbols if `strip` is installed: the smaller copy is
/// packed faster.
fn install(program: &Path, function: &Path) {
    fs::create_dir_all(function).expect("the function's folder can be created");
    let copy = function.with_extension("new");
    let stripped = Command::new("strip").arg("-o").arg(&copy).arg(program).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(program, &copy)
            .unwrap_or_else(|error| panic!("{} cannot be copied: {error}", program.display()));
    }
    // Another test binary may be reading the present copy.
    fs::rename(copy, function.join("bootstrap")).expect("the program can be renamed");
}

/// Runs `sam build` with the documented settings, for this machine's processor, and returns the template. The
/// folders are not the default ones, so that no user deploys these functions by mistake.
fn sam_build() -> PathBuf {
    let home = folder().join("sam-build");
    let output = home.join("build");
    let mut sam = tool(Tools::Deployment, "sam");
    sam.arg("build").arg("--build-dir").arg(&output);
    sam.args(["--parameter-overrides", &format!("Architecture={}", architecture())]);
    run(sam.env("CARGO_TARGET_DIR", home));
    output.join("template.yaml")
}

fn sam_deploy(template: &Path, emulator: &Emulator) {
    let mut sam = tool(Tools::Deployment, "sam");
    sam.args(["deploy", "--stack-name", STACK, "--config-file"])
        .arg(workspace().join("infra/samconfig.toml"));
    sam.arg("--template-file").arg(template).arg("--parameter-overrides");
    sam.args([format!("Architecture={}", architecture()), format!("PrivateNetworks={PRIVATE_NETWORKS}")]);
    run(sam.envs(emulator.variables()));
}

fn cdk_deploy(binaries: &Path, emulator: &Emulator) {
    let code = binaries.display().to_string();
    let mut cdk = tool(Tools::Cdk, "cdk");
    cdk.current_dir(workspace().join("infra/cdk")).envs(emulator.variables());
    for (name, value) in
        [("code", code.as_str()), ("architecture", &architecture()), ("privateNetworks", PRIVATE_NETWORKS)]
    {
        cdk.arg("--context").arg(format!("{name}={value}"));
    }
    // Not in the app's folder: there, this command would compile the app and synthesize its stack, although
    // it deploys nothing of it.
    let mut bootstrap = tool(Tools::Cdk, "cdk");
    bootstrap
        .current_dir(folder())
        .arg("bootstrap")
        .arg(format!("aws://000000000000/{}", crate::aws::client::REGION));
    run(bootstrap.envs(emulator.variables()));
    run(cdk.args(["deploy", "--require-approval", "never", "--output"]).arg(folder().join("cdk.out")));
}

/// Returns this machine's processor architecture, as both kinds of stack name it.
fn architecture() -> String {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }.to_owned()
}

/// Returns a command that finds the other programs of its set and knows no account but the emulator's.
fn tool(tools: Tools, program: &str) -> Command {
    let programs = tools.programs();
    let mut command = Command::new(programs.join(program));
    command
        .current_dir(workspace().join("infra"))
        .env("PATH", first_in_path(programs))
        .env("SAM_CLI_TELEMETRY", "0");
    command.env("NO_PROXY", "127.0.0.1,localhost");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // Cargo's variables of the package under test would make ring's build script run again and recompile
        // its dependents.
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"]
            .iter()
            .any(|of| text.starts_with(of))
        {
            command.env_remove(&name);
        }
    }
    command
}

fn first_in_path(programs: PathBuf) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&path)))
        .expect("PATH can be joined")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&said));
}

//! Process of the emulator.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::aws::client::{ACCESS_KEY, Client, REGION, SECRET_KEY};
use crate::aws::fault_proxy::Tap;
use crate::harness::program::workspace;
use crate::tools::{Tools, folder};

/// Emulator of AWS. It ends when this value is dropped, or when the process that started it ends in any way.
pub struct Emulator {
    address: SocketAddr,
    /// `None` if the emulator was started elsewhere (see [`ENDPOINT`]).
    child: Option<Child>,
}

/// Enforcement of IAM roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iam {
    /// Every caller may do everything.
    Ignored,
    /// A function may do what its role allows. A caller with [`ACCESS_KEY`] is the owner of the account.
    Enforced,
}

/// Environment variable with the URL of a running emulator to share instead of a new one, as in
/// `http://127.0.0.1:4566`.
pub const ENDPOINT: &str = "NOBAT_TEST_AWS_ENDPOINT";

/// Lines of the log that are shown if the emulator does not start.
const TAIL: usize = 30;

impl Emulator {
    /// Returns the emulator that the tests of a binary share. The first call starts it. IAM is ignored.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Emulator> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(ENDPOINT) {
            Ok(url) => Self { address: resolve(&url), child: None },
            Err(_) => Self::start(Iam::Ignored),
        })
    }

    /// Starts an emulator for one test.
    pub fn start(iam: Iam) -> Self {
        Self::launch(iam, &[])
    }

    /// Starts an emulator for one test. Its functions reach the table through a tap, and the queues directly.
    pub fn with_table_behind(tap: &Tap, iam: Iam) -> Self {
        // The functions inherit this variable, and every AWS SDK reads it.
        let emulator = Self::launch(iam, &[("AWS_ENDPOINT_URL_DYNAMODB", tap.url())]);
        tap.aim_at(emulator.address);
        emulator
    }

    /// Returns the address on which the emulator listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the emulator's URL, which every service shares.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a client of the emulator.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Returns the environment variables that make a program use this emulator as AWS.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    fn launch(iam: Iam, variables: &[(&str, String)]) -> Self {
        let log = log_file();
        let mut child = command(iam)
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("the log file can be created"))
            .spawn()
            .expect("the installed Python can be started");
        let port = announced(&mut child)
            .unwrap_or_else(|| panic!("the emulator does not start; the end of its log:\n{}", tail(&log)));
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), child: Some(child) }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The emulator ends when its standard input ends.
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

/// Returns the command of the launcher. It passes its environment on to the functions, so the environment is
/// cleared.
fn command(iam: Iam) -> Command {
    let home = folder().join("run");
    fs::create_dir_all(&home).expect("the emulator's folder can be created");
    let mut command = Command::new(Tools::Emulator.programs().join("python"));
    command.arg(workspace().join("tests/aws/emulator.py")).arg(home).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if iam == Iam::Enforced {
        command.env("AUTH", "true");
    }
    command
}

/// Returns the port that the emulator prints. The launcher prints it within a minute, or ends.
fn announced(child: &mut Child) -> Option<u16> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// Returns the log file of the next emulator of this test binary. The next run of the binary overwrites it.
fn log_file() -> PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let program = std::env::current_exe().expect("the path of the running program is known");
    let stem = program.file_stem().unwrap_or_default().to_string_lossy();
    let logs = folder().join("log");
    fs::create_dir_all(&logs).expect("the log folder can be created");
    logs.join(format!("{stem}-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}\n(full log: {})", lines[lines.len().saturating_sub(TAIL)..].join("\n"), log.display())
}

fn resolve(url: &str) -> SocketAddr {
    let authority = url
        .strip_prefix("http://")
        .unwrap_or_else(|| panic!("{ENDPOINT} is {url}; it must begin with http://"));
    let addresses = authority.trim_end_matches('/').to_socket_addrs();
    addresses
        .ok()
        .and_then(|mut found| found.next())
        .unwrap_or_else(|| panic!("{ENDPOINT} is {url}; it must name a host and a port"))
}

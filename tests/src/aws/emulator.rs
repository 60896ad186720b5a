//! The emulator as a process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::aws::client::{ACCESS_KEY, Client, REGION, SECRET_KEY};
use crate::aws::tap::Tap;
use crate::tools::{Tools, folder};
use crate::world::program::workspace;

/// An emulator of AWS. It ends when this is dropped, or when the process that started it is gone, however it went.
pub struct Emulator {
    address: SocketAddr,
    /// Not there if somebody else started it.
    child: Option<Child>,
}

/// Whether the emulator looks at who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iam {
    /// Everybody may do everything.
    Ignored,
    /// A function may do what its role says. Whoever comes with [`ACCESS_KEY`] is the owner of the account.
    Enforced,
}

/// Names an emulator that is running already, as in `http://127.0.0.1:4566`, to be shared instead of a new one.
pub const ENDPOINT: &str = "NOBAT_TEST_AWS_ENDPOINT";

/// How much of the log is shown when it does not start.
const TAIL: usize = 30;

impl Emulator {
    /// The one that the tests of a binary share, started when it is first asked for. IAM is ignored.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Emulator> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(ENDPOINT) {
            Ok(url) => Self { address: resolve(&url), child: None },
            Err(_) => Self::start(Iam::Ignored),
        })
    }

    /// One of the test's own.
    pub fn start(iam: Iam) -> Self {
        Self::launch(iam, &[])
    }

    /// One of the test's own, whose functions reach the table through a tap, and the queues without one.
    pub fn with_table_behind(tap: &Tap, iam: Iam) -> Self {
        // It is the functions that inherit this: they read it as everything does that is made of an AWS SDK.
        let emulator = Self::launch(iam, &[("AWS_ENDPOINT_URL_DYNAMODB", tap.url())]);
        tap.aim_at(emulator.address);
        emulator
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, which is that of every service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Somebody to speak to it with.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// What a program must find in its environment to take this for AWS.
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
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("Python, which has just been installed");
        let port = announced(&mut child).unwrap_or_else(|| panic!("the emulator does not start; its log ends so:\n{}", tail(&log)));
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), child: Some(child) }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The end of its standard input is what it takes for the end of everything.
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

/// The launcher, which passes its environment on to the functions. Nothing of ours is to get there.
fn command(iam: Iam) -> Command {
    let home = folder().join("run");
    fs::create_dir_all(&home).expect("a folder for what it unpacks");
    let mut command = Command::new(Tools::Emulator.programs().join("python"));
    command.arg(workspace().join("tests/aws/emulator.py")).arg(home).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    if iam == Iam::Enforced {
        command.env("AUTH", "true");
    }
    command
}

/// The port it says it listens on. It says so within a minute, or ends.
fn announced(child: &mut Child) -> Option<u16> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// One for each emulator of a test binary; those of its next run take their place.
fn log_file() -> PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let program = std::env::current_exe().expect("a program that is running");
    let stem = program.file_stem().unwrap_or_default().to_string_lossy();
    let logs = folder().join("log");
    fs::create_dir_all(&logs).expect("a folder for logs");
    logs.join(format!("{stem}-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{}\n(the whole of it: {})", lines[lines.len().saturating_sub(TAIL)..].join("\n"), log.display())
}

fn resolve(url: &str) -> SocketAddr {
    let authority = url.strip_prefix("http://").unwrap_or_else(|| panic!("{ENDPOINT} must begin with http://, and is {url}"));
    let addresses = authority.trim_end_matches('/').to_socket_addrs();
    addresses.ok().and_then(|mut found| found.next()).unwrap_or_else(|| panic!("{ENDPOINT} must name a host and a port, and is {url}"))
}

//! Noisy neighbour: the latencies of a quiet tenant while a stranger or another tenant attacks.
//!
//! Three processes: the server, which is the real program; the attacker; and this one, with the quiet tenant
//! and its endpoint. The quiet tenant submits, reads and receives at a steady rate, first alone and then
//! under one attack, on the same server. The attacker runs at the lowest scheduling priority, so that the
//! server does not pay for the attacker's processor time.

pub mod attack;
pub mod attacks;
pub mod quiet;
pub mod wire;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use nobat_aws::Settings;
use nobat_core::auth::api_key::KeyText;
use nobat_core::auth::scope::Scopes;
use nobat_core::ports::Clock;
use nobat_core::service::backend::Backend;
use nobat_core::types::name::Tenant;
use nobat_sqlite::Sqlite;
use nobat_worker::system::SystemClock;

use crate::aws::emulator::Emulator;
use crate::aws::queues::Queues;
use crate::aws::table::Table;
use crate::conformance::RETENTION;
use crate::harness::complaints;
use crate::harness::names::Names;
use crate::harness::process::Process;
use crate::harness::program::Program;
use crate::keys;
use crate::noisy::attack::{Attack, Attacker, Order, Report};
use crate::noisy::quiet::{Figures, Quiet};
use crate::scratch::Scratch;

/// One attack and its measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The attack.
    pub attack: Attack,
    /// Backend of the server.
    pub store: Store,
    /// True if the attack has its full size.
    pub is_full: bool,
    /// Duration of each measurement, before the attack and during it.
    pub measured: Duration,
    /// Time between the start of the attack and its measurement.
    pub lead: Duration,
}

/// Backend of a server.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// SQLite file
    Sqlite,
    /// DynamoDB and SQS, on an emulator
    Aws,
}

impl Store {
    /// Returns the attacks for this backend. Attacks on connections and bodies do not reach the store, so
    /// they run on a file only.
    pub fn attacks(self) -> Vec<Attack> {
        match self {
            Self::Sqlite => Attack::value_variants().to_vec(),
            Self::Aws => vec![
                Attack::FilteredLists,
                Attack::BadKeys,
                Attack::LimitKeys,
                Attack::DrippingEndpoint,
                Attack::Submissions,
            ],
        }
    }
}

/// The result of one attack.
pub struct Outcome {
    /// Latencies before the attack.
    pub quiet: Figures,
    /// Latencies during the attack.
    pub noisy: Figures,
    /// Quiet tasks that did not succeed at their first attempt.
    pub harmed: Vec<String>,
    /// The server's peak memory, in MiB.
    pub memory: u64,
    /// Counts of the attacker: its actions and their answers.
    pub report: Report,
}

/// Visibility timeout: an unsettled hint reappears some time after the lease has expired.
const VISIBILITY: Duration = Duration::from_secs(65);
/// Name server during [`Attack::SilentNames`].
const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 53, 53));
/// Name of the quiet tenant's endpoint at that name server.
const QUIET_NAME: &str = "quiet.test";

/// Runs one attack on a new server. The attacker is this program again, started with `arguments`.
pub async fn run(plan: Plan, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new()?;
    let place = Place::new(plan.store, scratch.path()).await?;
    let [quiet_key, loud_key] = make_keys(&place.backend).await?;
    let names = if plan.attack == Attack::SilentNames { Some(name_server().await?) } else { None };
    let Place { backend, mut flags, variables } = place;
    // A file has one owner at a time.
    drop(backend);
    flags.extend(["--allow-private-networks", "127.0.0.0/8"].map(str::to_owned));
    let server = Process::start_after(
        &setup(plan.attack, scratch.path())?,
        &Program::Nobat.path(),
        &flags,
        &variables,
    )
    .await?;
    let host = if names.is_some() { QUIET_NAME } else { "127.0.0.1" };
    let quiet = Quiet::start(server.address(), quiet_key.as_str(), host, scratch.path()).await?;
    let order = Order {
        attack: plan.attack,
        is_full: plan.is_full,
        server: server.address(),
        key: loud_key.as_str().to_owned(),
    };
    attacks::prepare(&order).await?;
    // The first requests open the file's pages and the connections.
    quiet.measure(Duration::from_secs(1)).await?;
    let calm = quiet.measure(plan.measured).await?;
    let attacker = Attacker::start(&order, arguments)?;
    tokio::time::sleep(plan.lead).await;
    let noisy = quiet.measure(plan.measured).await?;
    let report = attacker.stop().await?;
    let harmed = quiet.harmed().await;
    let memory = server.peak_memory()? / 1024;
    let log = server.kill().await?;
    let complaints = complaints(&log);
    ensure!(complaints.is_empty(), "the log contains errors:\n{}", complaints.join("\n"));
    Ok(Outcome { quiet: calm, noisy, harmed, memory, report })
}

/// Backend, and the server's flags and variables for it.
struct Place {
    backend: Backend,
    flags: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    async fn new(store: Store, folder: &Path) -> anyhow::Result<Self> {
        match store {
            Store::Sqlite => {
                let data = folder.join("nobat.db");
                let backend = Sqlite::open(&data, RETENTION, Arc::new(SystemClock))?.backend();
                Ok(Self {
                    backend,
                    flags: vec!["--data".to_owned(), data.display().to_string()],
                    variables: Vec::new(),
                })
            }
            Store::Aws => {
                let emulator = Emulator::shared();
                let (table, queues) = (
                    Table::create(emulator.client()).await,
                    Queues::create(emulator.client(), VISIBILITY).await,
                );
                let settings = Settings {
                    table: table.name().to_owned(),
                    queue_url: queues.hints().to_owned(),
                    retention: RETENTION,
                };
                let backend = nobat_aws::connect_to_emulator(&settings, &emulator.url()).await;
                let flags = ["--backend", "aws", "--table", table.name(), "--queue-url", queues.hints()]
                    .map(str::to_owned)
                    .to_vec();
                Ok(Self { backend, flags, variables: emulator.variables().to_vec() })
            }
        }
    }
}

/// Creates keys of a quiet and of a loud tenant before the server starts, so that the server has no cache of
/// them.
async fn make_keys(backend: &Backend) -> anyhow::Result<[KeyText; 2]> {
    let mut made = Vec::new();
    for tenant in ["quiet", "loud"] {
        made.push(keys::make(backend, &Tenant::new(tenant)?, Scopes::all(), SystemClock.now()).await);
    }
    made.try_into().ok().context("the number of keys is not two")
}

/// Starts a name server that knows the quiet tenant's endpoint and never answers for other names.
async fn name_server() -> anyhow::Result<Names> {
    let answer = |name: &str, sort| match (name, sort) {
        (QUIET_NAME, crate::harness::names::Sort::A) => Some(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        (QUIET_NAME, _) => Some(Vec::new()),
        _ => None,
    };
    Names::start(NAME_SERVER, answer).await.context("the name server needs port 53 of a loopback address")
}

/// Returns the commands that the server's shell runs before the server.
fn setup(attack: Attack, folder: &Path) -> anyhow::Result<String> {
    Ok(match attack {
        Attack::IdleConnections => "ulimit -n 1024".to_owned(),
        Attack::SilentNames => {
            let file = folder.join("resolv.conf");
            std::fs::write(&file, format!("nameserver {NAME_SERVER}\n"))?;
            // In its own mount namespace. `exec` keeps the process id, whose memory is measured.
            let mount = format!("mount --bind \"{}\" /etc/resolv.conf && exec \"$0\" \"$@\"", file.display());
            format!("exec unshare --mount sh -c '{mount}' \"$0\" \"$@\"")
        }
        _ => "true".to_owned(),
    })
}

impl Outcome {
    /// Returns the requests and deliveries of the quiet tenant that failed or took too long.
    pub fn failures(&self) -> Vec<&str> {
        [&self.quiet.failures, &self.noisy.failures, &self.harmed]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }
}

/// Head of a table with a row for each [`Outcome`].
pub const HEAD: &str = "| attack | submit, p99 quiet → attacked | read | delivery | a thread's wake-up | a sync of the disk | failures | peak memory | attacker |\n|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |part: fn(&Figures) -> Duration| {
            let [quiet, noisy] = [part(&self.quiet), part(&self.noisy)].map(|time| time.as_secs_f64() * 1e3);
            format!("{quiet:.1} → {noisy:.1} ms ({:.1} ×)", noisy / quiet)
        };
        let parts: [fn(&Figures) -> Duration; 5] = [
            |figures| figures.submit,
            |figures| figures.read,
            |figures| figures.delivery,
            |figures| figures.wake_up,
            |figures| figures.disk,
        ];
        let cells = parts.map(cell).join(" | ");
        write!(
            f,
            "| {cells} | {} of {} | {} MiB | {} |",
            self.failures().len(),
            self.noisy.rounds,
            self.memory,
            self.report
        )
    }
}

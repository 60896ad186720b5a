//! `nobat serve`: API, worker, sweeper and pruner in one process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use clap::builder::RangedI64ValueParser;
use ipnet::IpNet;
use nobat_api::{AccessPolicy, App, AppConfig, AuthMode, Limits, router};
use nobat_core::auth::network::Network;
use nobat_core::ports::{Clock, Random};
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_delivery::{Client, Guard};
use nobat_worker::execution::runner::Runner;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;
use nobat_worker::handlers::noop::Noop;
use nobat_worker::maintenance::pruner::Pruner;
use nobat_worker::maintenance::sweeper::Sweeper;
use nobat_worker::signing::Signer;
use nobat_worker::system::{SystemClock, SystemRandom};
use nobat_worker::worker::{Worker, every};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::backend::{self, BackendKind, Opened, Settings};
use crate::handler_runtime::HandlerRuntime;
use crate::vault::{MasterKeyArgs, Vaults};
use crate::{exit, handles, in_use};

/// Settings of a server. Each setting has a flag and an environment variable.
#[derive(Parser, Clone, Debug)]
pub struct Serve {
    /// Address to listen on
    #[arg(long, env = "NOBAT_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Storage.
    #[command(flatten)]
    pub place: Settings,
    /// Master key that encrypts secrets.
    #[command(flatten)]
    pub sealing: MasterKeyArgs,
    /// Maximum number of tasks that run at a time. With 0, the server accepts tasks and does not run them
    #[arg(long, env = "NOBAT_CONCURRENCY", default_value_t = 128, value_parser = RangedI64ValueParser::<usize>::new().range(0..=1_000_000))]
    pub concurrency: usize,
    /// Non-public networks that tasks may call (CIDRs, separated by commas). Default: none
    #[arg(long, env = "NOBAT_ALLOW_PRIVATE_NETWORKS", value_delimiter = ',')]
    pub allow_private_networks: Vec<IpNet>,
    /// Networks from which requests are accepted (CIDRs, separated by commas). Default: any
    #[arg(long, env = "NOBAT_ALLOW_FROM", value_delimiter = ',')]
    pub allow_from: Vec<Network>,
    /// Proxies in front of the server whose X-Forwarded-For is trusted (CIDRs, separated by commas)
    #[arg(long, env = "NOBAT_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// Maximum number of open connections of one client address (of one /64 network for IPv6), trusted
    /// proxies excepted. Default: half of all connections
    #[arg(long, env = "NOBAT_MAX_CONNECTIONS_PER_ADDRESS")]
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// Maximum time in seconds for which a request waits for a task to end (`?wait=`)
    #[arg(long, env = "NOBAT_MAX_WAIT", default_value_t = 25)]
    pub max_wait: u32,
    /// Maximum timeout of a task in seconds
    #[arg(long, env = "NOBAT_MAX_TIMEOUT", default_value_t = 12 * 60 * 60)]
    pub max_timeout: u32,
    /// Seconds that running tasks have to finish on SIGTERM. The server gives tasks that run longer back
    /// within 8 more seconds
    #[arg(long, env = "NOBAT_DRAIN_TIMEOUT", default_value_t = 20)]
    pub drain_timeout: u32,
    /// Log filter: error, warn, info, debug, or `target=level` pairs
    #[arg(long, env = "NOBAT_LOG", default_value = "info")]
    pub log: String,
}

/// Time between two removals of tasks whose retention has ended.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum time for the last writes before the process exits.
const LAST_WRITES: Duration = Duration::from_secs(3);
/// Maximum time to answer requests after shutdown has begun.
const REQUEST_GRACE: Duration = Duration::from_secs(5);

impl Serve {
    /// Serves until SIGTERM or SIGINT.
    pub(crate) async fn run(self, handlers: Handlers) -> anyhow::Result<()> {
        log_to_stderr(&self.log)?;
        let stop = CancellationToken::new();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Binds the port before it opens the file: a start that fails because the port is in use must not
        // create a file.
        let listener = listen(self.listen).with_context(|| format!("cannot listen on {}", self.listen))?;
        tokio::spawn(stop_on_signal(terminate, interrupt, stop.clone()));
        serve(self, listener, handlers, stop).await
    }
}

/// Maximum number of connections that wait for the server to accept them. The operating system may allow
/// fewer (`net.core.somaxconn`, 4,096 on Linux). A connection beyond this number waits for a second or more,
/// until the client tries again.
const BACKLOG: u32 = 4_096;

/// Binds the address. Clients can connect from here on, but get no response before the server accepts
/// connections.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // `TcpListener::bind` sets this option too. Without it, a restart fails until the connections of the
    // previous server have expired.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("nobat is stopping; no more tasks start");
    stop.cancel();
    // A second signal ends the process at once. No task is lost, since its lease expires and nobat runs it
    // again.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    std::process::exit(exit::FAILURE.into());
}

/// Accepts tasks on `listener` and runs them until `stop` fires. Then returns when running tasks have
/// finished or are given back.
///
/// The server runs `handlers` in addition to `http` and `noop`.
pub async fn serve(
    settings: Serve,
    listener: TcpListener,
    handlers: Handlers,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    settings.sealing.check(&settings.place)?;
    let (clock, address): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), listener.local_addr()?);
    let opened = backend::open(&settings.place, &clock)
        .await
        .map_err(|error| in_use::advise(error, in_use::choose_another))?;
    if let Some(file) = &opened.file {
        file.announce(address);
    }
    // The server must not accept connections before this check has passed.
    let keys = keys(&opened.backend, address, &settings).await?;
    let vaults = settings.sealing.open(&settings.place, &opened.backend).await?;
    serve_from(opened, keys, vaults, settings, listener, handlers, stop).await
}

async fn serve_from(
    opened: Opened,
    keys: AuthMode,
    vaults: Vaults,
    settings: Serve,
    listener: TcpListener,
    handlers: Handlers,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let Opened { backend, for_handlers, cursor_key, sweep_interval, recount, name, file: _file } = opened;
    let access_policy = AccessPolicy {
        keys,
        admitted: settings.allow_from.clone(),
        proxies: settings.trusted_proxies.clone(),
    };
    let guard =
        Guard::new(settings.allow_private_networks.clone()).refusing(own_addresses(listener.local_addr()?));
    // The API's endpoint tester needs its own connections, since handlers run on another Tokio runtime.
    let epoch = ConfigEpoch::default();
    let calls = |registry, vault| {
        Http::new(Client::new(guard.clone())).signing(Signer::new(
            registry,
            vault,
            Arc::clone(&clock),
            epoch.clone(),
        ))
    };
    let tester = calls(Arc::clone(&backend.config), Arc::clone(&vaults.of_api));
    let handlers = handlers.with(calls(Arc::clone(&for_handlers.config), vaults.of_handlers)).with(Noop);
    let app = App::new(AppConfig {
        epoch: epoch.clone(),
        backend: backend.clone(),
        clock: Arc::clone(&clock),
        kinds: Arc::new(handlers.clone()),
        access_policy,
        recount,
        max_timeout: seconds(settings.max_timeout),
        max_wait: seconds(settings.max_wait),
        tester: Arc::new(tester),
        vault: vaults.of_api,
        cursor_key,
        shutdown: stop.clone(),
    });
    let runner = Runner::new(for_handlers, handlers, Arc::clone(&clock), Arc::clone(&random), epoch);
    let worker = Worker {
        runner: Arc::new(runner),
        concurrency: settings.concurrency,
        drain: seconds(settings.drain_timeout),
    };
    let sweeper = Sweeper { backend: backend.clone(), random };
    let (pruner, last) = (Pruner { backend: backend.clone() }, backend);
    tracing::info!(address = %listener.local_addr()?, data = name, concurrency = settings.concurrency, "nobat is listening");
    let handler_runtime = HandlerRuntime::open()?;
    let working = async {
        let outcome = handler_runtime.run(worker, stop.clone()).await;
        // Without a worker, the rest of the process must stop too.
        stop.cancel();
        outcome
    };
    let ((), outcome, (), ()) = tokio::join!(
        nobat_api::serve_within(listener, router(app), stop.clone(), limits(&settings)),
        working,
        every(sweep_interval, Arc::clone(&clock), stop.clone(), "sweep", |now| sweeper
            .run_until(&SystemClock, now + sweep_interval)),
        every(PRUNE_INTERVAL, Arc::clone(&clock), stop.clone(), "prune", |now| pruner.run_once(now)),
    );
    // SQLite makes writes in order. After this write, the writes that give tasks back are done too.
    if settings.place.backend == BackendKind::Sqlite
        && tokio::time::timeout(LAST_WRITES, last.ready(SystemClock.now())).await.is_err()
    {
        tracing::error!("the last writes took too long; unfinished tasks run again after the next start");
    }
    if outcome.is_ok() {
        tracing::info!("nobat has stopped");
    }
    outcome
}

/// Raises the limit of open files. Returns the limits of client connections, which follow from the limit of
/// open files.
fn limits(settings: &Serve) -> Limits {
    let files = handles::raise_limit();
    let connections = handles::connections(files, settings.concurrency);
    tracing::info!(files, connections, "limits of open files and of client connections are set");
    Limits {
        connections,
        connections_per_address: settings.max_connections_per_address,
        trusted_proxies: settings.trusted_proxies.clone(),
        grace: REQUEST_GRACE,
        ..Limits::default()
    }
}

/// Returns the rule for API keys. Fails if other machines can reach the server and no key exists, since
/// anyone could then use the server.
async fn keys(backend: &Backend, address: SocketAddr, settings: &Serve) -> anyhow::Result<AuthMode> {
    if backend.config.has_keys().await.context("cannot read the API keys")? {
        return Ok(AuthMode::Required);
    }
    let make_one = "create a key first: `nobat keys create --scopes admin`";
    ensure!(
        address.ip().is_loopback(),
        "other machines can reach {address}, and no API key exists; {make_one}"
    );
    ensure!(
        settings.trusted_proxies.is_empty(),
        "the trusted proxies let other machines reach the server, and no API key exists; {make_one}"
    );
    Ok(AuthMode::NotYet)
}

/// Returns the addresses of this server on this machine. Tasks must not call these addresses, since a task
/// could submit a copy of itself without end. The guard treats an unspecified address as all addresses of the
/// machine.
fn own_addresses(listens: SocketAddr) -> Vec<SocketAddr> {
    let port = listens.port();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    loopback.map(|address| SocketAddr::new(address, port)).into_iter().chain([listens]).collect()
}

/// Returns false for trace lines of libraries, which show requests and responses with their payloads.
fn is_harmless(line: &Metadata<'_>) -> bool {
    line.target().starts_with("nobat") || *line.level() != Level::TRACE
}

/// Logs to standard error: lines for people on a terminal, otherwise one JSON object a line.
fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter: Targets = filter
        .parse()
        .context("NOBAT_LOG is not a log filter; use a level such as info, or target=level pairs")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        lines.boxed()
    } else {
        lines.json().boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(filter.and(filter_fn(is_harmless)))).init();
    std::panic::set_hook(Box::new(|panic| {
        // Only the location: the message may quote a payload.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic occurred; the attempt or the request that caused it fails");
    }));
    Ok(())
}

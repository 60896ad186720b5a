//! Settings from environment variables.

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use nobat_core::secrets::vault::{VaultSource, Without};
use nobat_core::service::backend::Backend;
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_delivery::{Client, Guard};
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;
use nobat_worker::handlers::noop::Noop;
use nobat_worker::signing::Signer;
use nobat_worker::system::SystemClock;

/// Default retention of ended tasks, in days.
const RETENTION: u32 = 30;

/// Returns the name of the table.
pub(crate) fn table() -> anyhow::Result<String> {
    required("NOBAT_TABLE")
}

/// Returns the backend for the table and the queue.
pub(crate) async fn backend() -> anyhow::Result<Backend> {
    let days: u32 = number("NOBAT_RETENTION_DAYS", RETENTION)?;
    let settings = nobat_aws::Settings {
        table: table()?,
        queue_url: required("NOBAT_QUEUE_URL")?,
        retention: Duration::from_hours(24 * u64::from(days)),
    };
    Ok(nobat_aws::connect(&settings).await?)
}

/// Returns the source of the key to secrets.
pub(crate) async fn vault() -> anyhow::Result<Arc<dyn VaultSource>> {
    match env::var("NOBAT_KMS_KEY") {
        Ok(key) if !key.is_empty() => Ok(nobat_aws::vault(&table()?, &key).await?),
        _ => Ok(Arc::new(Without)),
    }
}

/// Adds the built-in handlers.
pub(crate) fn with_ours(handlers: Handlers) -> anyhow::Result<Handlers> {
    Ok(handlers.with(http()?).with(Noop))
}

/// Adds the built-in handlers, with signed requests.
pub(crate) async fn with_ours_signing(handlers: Handlers, backend: &Backend) -> anyhow::Result<Handlers> {
    Ok(handlers.with(http_signing(backend, vault().await?)?).with(Noop))
}

/// Returns the handler of kind `http`, with signed requests.
pub(crate) fn http_signing(backend: &Backend, vault: Arc<dyn VaultSource>) -> anyhow::Result<Http> {
    Ok(http()?.signing(Signer::new(
        Arc::clone(&backend.config),
        vault,
        Arc::new(SystemClock),
        ConfigEpoch::default(),
    )))
}

fn http() -> anyhow::Result<Http> {
    // Lambda's Runtime API listens on loopback, which tests allow. A task that could call it could answer for
    // the function.
    let runtime = env::var("AWS_LAMBDA_RUNTIME_API").ok().and_then(|address| address.parse().ok());
    let guard = Guard::new(allowed_networks()?).refusing(runtime.into_iter().collect());
    Ok(Http::new(Client::new(guard)))
}

/// Returns the private networks that tasks may call.
fn allowed_networks() -> anyhow::Result<Vec<IpNet>> {
    list("NOBAT_ALLOW_PRIVATE_NETWORKS")
}

/// Reads a list of networks, separated by commas.
pub(crate) fn list<N: FromStr>(name: &str) -> anyhow::Result<Vec<N>> {
    let text = env::var(name).unwrap_or_default();
    let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
    networks
        .map(|network| {
            network
                .parse()
                .ok()
                .with_context(|| format!("{name} is not valid; give CIDRs, separated by commas"))
        })
        .collect()
}

/// Reads a number of seconds.
pub(crate) fn seconds(name: &str, default: u32) -> anyhow::Result<Duration> {
    number(name, default).map(|seconds: u32| Duration::from_secs(seconds.into()))
}

fn number<N: FromStr>(name: &str, default: N) -> anyhow::Result<N> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name} is not a whole number: {text}")),
        Err(_) => Ok(default),
    }
}

fn required(name: &str) -> anyhow::Result<String> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => Ok(text),
        _ => bail!("the variable {name} is missing or empty"),
    }
}

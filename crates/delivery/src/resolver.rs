//! Name resolver that uses the operating system's configuration and no threads.
//!
//! `getaddrinfo` occupies a thread until the name server answers, even if the caller is gone. A look-up of
//! this resolver is a future. Dropping it closes its sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Looks up the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Returns all addresses of the name, in the order to try.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Maximum time for one query to one name server. A lower `timeout` in `resolv.conf` is respected.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of repetitions of a query that failed. Lower `attempts` in `resolv.conf` are respected.
const QUERY_RETRIES: usize = 1;

/// Maximum number of cached answers.
const CACHE_SIZE: u64 = 1_024;

/// Maximum time for which an answer is cached. A lower TTL is respected. With a TTL of 0 the answer is not
/// cached.
const MAX_TTL: Duration = Duration::from_secs(30);

/// Minimum and maximum time for which a missing name is cached.
const NEGATIVE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Interval at which the configuration files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The files that configure the resolver.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Resolves names with `/etc/hosts` and `/etc/resolv.conf`. Changes of these files apply within 10 seconds.
///
/// Returns IPv4 addresses before IPv6 addresses.
pub struct SystemResolver(Mutex<Loaded>);

struct Loaded {
    resolver: TokioResolver,
    /// Modification times of the files. `None` if the configuration does not come from files.
    modified: Option<[Option<SystemTime>; 2]>,
    checked_at: Instant,
}

impl SystemResolver {
    /// Returns a resolver with the configuration of the operating system.
    pub fn new() -> io::Result<Self> {
        let resolver = from_system()?;
        Ok(Self(Mutex::new(Loaded { resolver, modified: Some(modified()), checked_at: Instant::now() })))
    }

    /// Returns a resolver that asks only these name servers, over UDP, and reads no files.
    pub fn with_name_servers(servers: &[SocketAddr]) -> io::Result<Self> {
        let server = |server: &SocketAddr| {
            let mut config = NameServerConfig::udp(server.ip());
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut options = ResolverOpts::default();
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        let resolver = build(config, options)?;
        Ok(Self(Mutex::new(Loaded { resolver, modified: None, checked_at: Instant::now() })))
    }

    /// Returns the resolver for the current configuration.
    fn current(&self) -> TokioResolver {
        let mut loaded = self.0.lock();
        if let Some(known) = loaded.modified
            && loaded.checked_at.elapsed() >= CHECK_INTERVAL
        {
            loaded.checked_at = Instant::now();
            let modified = modified();
            if modified != known {
                match from_system() {
                    Ok(resolver) => loaded.resolver = resolver,
                    Err(error) => {
                        tracing::warn!(%error, "the changed resolver configuration is not usable; the previous configuration stays in effect");
                    }
                }
                loaded.modified = Some(modified);
            }
        }
        loaded.resolver.clone()
    }
}

fn modified() -> [Option<SystemTime>; 2] {
    FILES.map(|file| Path::new(file).metadata().and_then(|metadata| metadata.modified()).ok())
}

/// Loads the system's configuration. Without a usable `resolv.conf`, the resolver asks a name server on
/// 127.0.0.1, like the C library.
fn from_system() -> io::Result<TokioResolver> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, options)) => build(config, options),
        Err(error) => {
            tracing::warn!(%error, "/etc/resolv.conf is not usable; names are resolved by a name server on 127.0.0.1");
            let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            build(ResolverConfig::from_name_servers(vec![server]), ResolverOpts::default())
        }
    }
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> io::Result<TokioResolver> {
    options.timeout = options.timeout.min(QUERY_TIMEOUT);
    options.attempts = options.attempts.min(QUERY_RETRIES);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = CACHE_SIZE;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_min_ttl = Some(NEGATIVE_TTL.0);
    options.negative_max_ttl = Some(NEGATIVE_TTL.1);
    let builder =
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    builder.build().map_err(io::Error::other)
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.current().lookup_ip(name).await.map_err(failed)?;
        Ok(found.iter().collect())
    }
}

/// Keeps the operating system's error code, so that a lack of local resources is recognized.
fn failed(error: NetError) -> io::Error {
    match &error {
        NetError::Io(inner) => {
            inner.raw_os_error().map_or_else(|| io::Error::other(error.clone()), io::Error::from_raw_os_error)
        }
        _ => io::Error::new(io::ErrorKind::NotFound, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_file_is_read() {
        let addresses = SystemResolver::new().unwrap().resolve("localhost").await.unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }
}

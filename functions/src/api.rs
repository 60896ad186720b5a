//! The function that accepts requests: the router of `nobat serve` behind an HTTP API.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::map_request;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use lambda_runtime::Error;
use nobat_api::{AccessPolicy, App, AppConfig, AuthMode, Peer, router};
use nobat_core::service::config_cache::ConfigEpoch;
use nobat_worker::handler::registry::Handlers;
use nobat_worker::system::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::{log, settings};

/// Default maximum time that a request waits for a task's end, in seconds. Lambda bills the waiting time.
const MAX_WAIT: u32 = 5;
/// Default maximum timeout of a task, in seconds. It must fit into the worker function's timeout.
const MAX_TIMEOUT: u32 = 50;

/// Handles requests. `handlers` are the kinds that the worker runs besides `http` and `noop`.
pub async fn run(handlers: Handlers) -> Result<(), Error> {
    log::start()?;
    let backend = settings::backend().await?;
    let vault = settings::vault().await?;
    let app = App::new(AppConfig {
        epoch: ConfigEpoch::default(),
        tester: Arc::new(settings::http_signing(&backend, Arc::clone(&vault))?),
        backend,
        clock: Arc::new(SystemClock),
        kinds: Arc::new(settings::with_ours(handlers)?),
        // The API is public. API Gateway itself reports each client's address, so no proxy is trusted.
        access_policy: AccessPolicy {
            keys: AuthMode::Required,
            admitted: settings::list("NOBAT_ALLOW_FROM")?,
            proxies: Vec::new(),
        },
        recount: nobat_aws::RECOUNT,
        max_timeout: settings::seconds("NOBAT_MAX_TIMEOUT", MAX_TIMEOUT)?,
        max_wait: settings::seconds("NOBAT_MAX_WAIT", MAX_WAIT)?,
        vault,
        cursor_key: nobat_aws::cursor_key(&settings::table()?),
        shutdown: CancellationToken::new(),
    });
    lambda_http::run(router(app).layer(map_request(name_the_peer))).await
}

/// Sets the client's address to the one that API Gateway reports, never to a header's, which clients can
/// forge. Without a reported address, requests are refused where an allow-list or a key's networks apply.
async fn name_the_peer(mut request: Request) -> Request {
    let address = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            context.http.source_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok())
        }
        _ => None,
    };
    if let Some(address) = address {
        request.extensions_mut().insert(Peer(address));
    }
    request
}

//! The function that accepts requests: the router of `nobat serve`, behind an HTTP API.

use std::sync::Arc;

use lambda_runtime::Error;
use nobat_api::{App, Parts, router};
use nobat_worker::handler::Handlers;
use nobat_worker::system::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::{log, settings};

/// How many seconds a request can wait for a task's end, unless said otherwise: Lambda is paid by the millisecond.
const MAX_WAIT: u32 = 5;
/// The longest timeout of a task in seconds, unless said otherwise: it must fit into the worker function's own.
const MAX_TIMEOUT: u32 = 50;

/// Answers requests for as long as Lambda wants it to. `handlers` are what the worker runs besides `http` and `noop`.
pub async fn run(handlers: Handlers) -> Result<(), Error> {
    log::start()?;
    let app = App::new(Parts {
        backend: settings::backend().await?,
        clock: Arc::new(SystemClock),
        kinds: Arc::new(settings::with_ours(handlers)?),
        max_timeout: settings::seconds("NOBAT_MAX_TIMEOUT", MAX_TIMEOUT)?,
        max_wait: settings::seconds("NOBAT_MAX_WAIT", MAX_WAIT)?,
        cursor_key: nobat_aws::cursor_key(&settings::table()?),
        shutdown: CancellationToken::new(),
    });
    lambda_http::run(router(app)).await
}

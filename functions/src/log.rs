//! Logs: one JSON object per line, as `CloudWatch` Logs Insights reads it.

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Excludes the TRACE level of the SDK and the runtime, which contains payloads.
fn is_harmless(line: &Metadata<'_>) -> bool {
    line.target().starts_with("nobat") || *line.level() != Level::TRACE
}

/// Starts logging with the filter in `NOBAT_LOG`. Default `info`.
pub(crate) fn start() -> anyhow::Result<()> {
    let filter = std::env::var("NOBAT_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter: Targets = filter
        .parse()
        .context("NOBAT_LOG is not a log filter; use a level such as info, or target=level pairs")?;
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_filter(filter.and(filter_fn(is_harmless)));
    tracing_subscriber::registry().with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        // Logs the location only: the message may quote a payload.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic occurred; the attempt or the request that caused it fails");
    }));
    Ok(())
}

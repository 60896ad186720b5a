//! Tasks of an event.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use nobat_core::json::Json;
use nobat_core::ports::StoreError;
use nobat_core::service::fan_out::{FanOut, FanOutProgress, task_key};
use nobat_core::task::Task;
use nobat_core::types::name::Name;
use nobat_core::types::time::Timestamp;

use crate::app::App;

/// Number of tasks of an event that are read at the same time.
const MAX_IN_FLIGHT: usize = 16;

/// Returns a fan-out that uses the stores, the kinds and the limits of this process.
pub(crate) fn fan_out(app: &App, now: Timestamp) -> FanOut<'_> {
    FanOut {
        backend: &app.backend,
        config_cache: app.config_cache(),
        kinds: &*app.kinds,
        max_timeout: app.max_timeout,
        now,
    }
}

/// Returns the event's tasks that still exist, each with the name of its subscription. The fan-out or
/// [`replay`] created these tasks.
pub(crate) async fn of_event(
    app: &App,
    event: &Task,
    now: Timestamp,
) -> Result<Vec<(Name, Task)>, StoreError> {
    let current = app.backend.config.subscriptions(&event.tenant).await?;
    let names: BTreeSet<Name> = FanOutProgress::of(event)
        .subscriptions
        .into_iter()
        .chain(current.into_iter().map(|(name, _)| name))
        .collect();
    let reads = names.into_iter().map(async |name| {
        let found = app.backend.store.get(&task_key(event, &name), now).await?;
        // An event can have many tasks, each with a copy of the event, so the copies would fill the memory.
        let without_bodies = |task| Task { payload: Json::null(), result: None, ..task };
        Ok::<_, StoreError>(found.map(|task| (name, without_bodies(task))))
    });
    let found: Vec<Option<_>> = stream::iter(reads).buffered(MAX_IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

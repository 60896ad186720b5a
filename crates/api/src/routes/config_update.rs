//! Compare-and-swap updates of configuration records.

use nobat_core::auth::audit::Entry;
use nobat_core::config::record::{Record, RecordName};
use nobat_core::ports::StoreError;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::service::config_cache::SubmissionConfig;
use nobat_core::submission::SubmissionContext;
use nobat_core::task::Task;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::problem::Problem;

/// Maximum number of tries to write a change when other clients change the same record.
const MAX_TRIES: usize = 5;

/// Maximum size of a record with a client's configuration, in bytes. The stores accept larger records, so that
/// a record of this size can still be paused, or get a new secret.
const MAX_RECORD: usize = 32 * 1024;

/// Refuses the record of a client's new configuration if it is too large.
pub(crate) fn check_size(record: &Record) -> Result<(), Vec<FieldError>> {
    if record.body.len() <= MAX_RECORD {
        return Ok(());
    }
    let detail = format!("the configuration is too large; expected at most {MAX_RECORD} bytes in total");
    Err(vec![FieldError::new("", detail)])
}

/// Returns the data with which the template of a task is checked before it is stored. The payload may have any
/// length.
pub(crate) fn template_context<'a>(
    app: &'a App,
    tenant: &'a Tenant,
    config: &'a SubmissionConfig,
    now: Timestamp,
) -> SubmissionContext<'a> {
    SubmissionContext {
        tenant,
        id: TaskId::new(now, 0),
        fingerprint: None,
        submitted_by: None,
        max_payload: None,
        max_timeout: app.max_timeout,
        kinds: &*app.kinds,
        endpoint: config.endpoint.as_deref(),
        then_endpoint: config.then_endpoint.as_deref(),
        queue: config.queue(),
        hops: 0,
        now,
    }
}

/// Change of configuration records.
pub(crate) enum Change {
    /// Writes records. Each record's version is one more than the version of the record that it replaces.
    Write(Vec<Record>),
    /// Writes records together with new tasks.
    WriteWithTasks(Vec<Record>, Vec<Task>),
    /// Removes the record if it has this version.
    Remove(RecordName, u64),
}

/// Writes a change and its audit entry, and drops the tenant's configuration from the cache. A failed write
/// also drops the configuration, because the store may have made the change before its reply was lost.
///
/// `read` reads the current record. `change` returns the change, the audit entry, and the result of this
/// function. If another client wrote the record in between, `read` and `change` run again. After
/// [`MAX_TRIES`] tries, the error is 503 `overloaded`, and its text names the object as `what`.
pub(crate) async fn update<C, T, F: Future<Output = Result<C, StoreError>>>(
    app: &App,
    what: &str,
    read: impl Fn() -> F,
    change: impl Fn(C) -> Result<(Change, Entry, T), Problem>,
) -> Result<T, Problem> {
    for _ in 0..MAX_TRIES {
        let (change, entry, value) = change(read().await?)?;
        let tenant = entry.tenant.clone();
        let result = match change {
            Change::Write(records) => app.backend.config.write(records, entry).await,
            Change::WriteWithTasks(records, tasks) => {
                let now = entry.at;
                app.backend.configure(records, tasks, entry, now).await
            }
            Change::Remove(name, version) => app.backend.config.remove(&name, version, entry).await,
        };
        app.config_cache().forget(&tenant);
        if result? == RecordResult::Done {
            return Ok(value);
        }
    }
    Err(Problem::new(
        Code::Overloaded,
        format!(
            "other requests changed {what} at the same time, so this request changed nothing; try again after the time in Retry-After"
        ),
    ))
}

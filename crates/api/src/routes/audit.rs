//! Audit trail. Requires the scope `admin`. No route changes it.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::{Action, Entry};
use nobat_core::ports::config_store::AuditQuery;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Admin, Authorized};
use crate::http::cursor::List;
use crate::http::page::{EXPECTED_NAME, PageRequest};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{cursor, response};

/// Approximate size of an entry in a response, in bytes.
const ENTRY_BYTES: usize = 200;

/// Entry of the audit trail.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct EntryView {
    /// Time of the action.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Tenant whose data the action changed.
    #[schema(value_type = String)]
    tenant: Tenant,
    /// Id of the API key that was used. `anonymous`: a client of a server that requires no keys. `operator`:
    /// a program that changed the store directly, without the API. `worker`: nobat itself, after an
    /// endpoint's response.
    actor: String,
    /// Action: `task.canceled`, `task.replayed`, `key.created`, `key.rotated`, `key.revoked`,
    /// `tenant.changed`, `callback_secret.set`, `callback_secret.rotated`, `callback_secret.removed`,
    /// `endpoint.changed`, `endpoint.secret_rotated`, `endpoint.paused`, `endpoint.resumed`, `endpoint.gone`,
    /// `endpoint.removed`, `queue.changed`, `kind.changed`, `limits.changed`, `subscription.changed` or
    /// `subscription.removed`. `other`: an action of a later version, which this version does not know.
    #[schema(value_type = String)]
    action: &'static str,
    /// Target of the action: id of a task or of a key, or name of a tenant, an endpoint, a queue, a kind, a
    /// limit key or a subscription. For a rotated key: the ids of the old key and of the new key.
    target: String,
}

/// One page of the audit trail.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub(crate) struct PageView {
    /// Entries, newest first.
    data: Vec<EntryView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Read the audit trail
///
/// Lists cancellations and replays of tasks, and changes of keys, tenants, callback secrets, endpoints,
/// queues, kinds, limit keys and subscriptions, newest first. Entries are kept as long as ended tasks. The
/// field `submitted_by` of a task names the key that submitted it.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "read_audit",
    tag = "audit",
    security(("key" = ["admin"])),
    params(
        ("tenant" = Option<String>, Query, description = "Tenant whose entries are listed. Default: the caller's own.", pattern = "^[A-Za-z0-9._-]{1,64}$"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of entries in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of the audit trail.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["tenant", "limit", "cursor"]);
    let tenant = query.get("tenant", EXPECTED_NAME, |text| Tenant::new(text).ok()).unwrap_or(caller.tenant);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::audit(&tenant);
    let after = page.after(&app, &list, Some)?;
    let page =
        app.backend.config.audit(&AuditQuery { tenant, limit: page.limit, after }, app.clock.now()).await?;
    let next_cursor = page.next.map(|next| cursor::seal(&app.cursor_key, &list, &next));
    let data: Vec<EntryView> = page.entries.into_iter().map(EntryView::from).collect();
    response::value(StatusCode::OK, ENTRY_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let Entry { tenant, at, actor, action, target, mark: _ } = entry;
        Self { at, tenant, actor: actor.to_string(), action: Action::as_str(action), target }
    }
}

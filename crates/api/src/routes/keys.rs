//! API keys: creating, showing, rotating and revoking them. Requires the scope `admin`.

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::api_key::{Key, KeyId, KeyText, MAX_LABEL, MAX_NETWORKS};
use nobat_core::auth::audit::Action;
use nobat_core::auth::network::Network;
use nobat_core::auth::scope::{Scope, Scopes};
use nobat_core::config::record::Record;
use nobat_core::json::decode::read_object;
use nobat_core::ports::Position;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::types::field_error::{FieldError, is_invisible};
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::extract::{Admin, Authorized};
use crate::auth::principal::Principal;
use crate::http::cursor::List;
use crate::http::error_code::Code;
use crate::http::idempotency::refuse_key;
use crate::http::options::{options, options_without_key};
use crate::http::page::{EXPECTED_NAME, PageRequest};
use crate::http::path::{Parameter, PathParam};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{body, cursor, response};
use crate::routes::config_update::{Change, update};
use crate::routes::rotation::overlap as overlap_of;

/// Maximum number of keys that the server reads for one page. With a filter, a page can be short or empty
/// although more pages follow.
const MAX_SCANNED: usize = 1_000;
/// Approximate size of a key in a response, in bytes.
const KEY_BYTES: usize = 400;

/// Key to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(crate) struct Create {
    /// Tenant that the key gives access to. Default: the caller's own.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    tenant: Option<Tenant>,
    /// Note on the purpose of the key. At most 200 bytes. Default: empty.
    #[serde(default)]
    #[schema(max_length = 200)]
    label: String,
    /// Scopes of the key.
    #[schema(value_type = Vec<ScopeWord>, min_items = 1)]
    scopes: Scopes,
    /// Time from which the key is no longer valid. Default: none.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Networks from which the key can be used, such as `203.0.113.0/24`. At most 50. Default: any.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 50)]
    networks: Vec<Network>,
}

/// Options of a rotation.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RotateKey)]
pub(crate) struct Rotate {
    /// Grace period: seconds for which the old key stays valid. Default 0. At most 2,592,000 (30 days).
    #[schema(minimum = 0, maximum = 2_592_000)]
    grace_period: f64,
}

/// Options of a revocation: none yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {}

/// Key, without its secret text.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    /// Id of the key. Lists, the audit trail and the tasks that the key submitted show this id.
    #[schema(value_type = String, pattern = "^key_[0-9a-z]{26}$")]
    id: KeyId,
    /// Tenant that the key gives access to.
    #[schema(value_type = String)]
    tenant: Tenant,
    /// Note on the purpose of the key.
    label: String,
    /// Scopes of the key.
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Scopes,
    /// Networks from which the key can be used. Empty: any.
    #[schema(value_type = Vec<String>)]
    networks: Vec<Network>,
    /// Time at which the key was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Time from which the key is no longer valid. `null`: none.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<Timestamp>,
    /// Time at which the key was revoked. `null`: not revoked.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    revoked_at: Option<Timestamp>,
    /// Secret text of the key. Only in the response to the request that created the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    key: Option<String>,
}

/// One page of keys.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyPage)]
pub(crate) struct PageView {
    /// Keys, in the order of their ids.
    data: Vec<KeyView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Scope, as a word.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the OpenAPI document uses it")]
pub(crate) enum ScopeWord {
    #[schema(rename = "tasks:write")]
    TasksWrite,
    #[schema(rename = "tasks:read")]
    TasksRead,
    #[schema(rename = "payload:view")]
    PayloadView,
    #[schema(rename = "tasks:replay")]
    TasksReplay,
    #[schema(rename = "config:write")]
    ConfigWrite,
    #[schema(rename = "work")]
    Work,
    #[schema(rename = "admin")]
    Admin,
}

/// Create a key
///
/// Only this response contains the key. Once the first key exists, the server requires a key for every
/// request. Give the first key the scope `admin`.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_key",
    tag = "keys",
    security(("key" = ["admin"])),
    request_body(content = Create, example = json!({"tenant": "acme", "label": "the shop", "scopes": ["tasks:write", "tasks:read"]})),
    responses((status = 201, description = "The key is created.", body = KeyView)),
)]
pub(crate) async fn create(
    State(app): State<App>,
    Authorized(caller, _): Authorized<Admin>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let instead = "a key is shown only once; send the request without the header Idempotency-Key; if the response is lost, list the keys and revoke the new key";
    refuse_key(&head.headers, instead)?;
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let create: Create = read_object(&body)?;
    let now = app.clock.now();
    create.check(now)?;
    let text = KeyText::new(rand::random());
    let key = Key {
        digest: text.digest(),
        tenant: create.tenant.unwrap_or_else(|| caller.tenant.clone()),
        label: create.label,
        scopes: create.scopes,
        networks: create.networks,
        created_at: now,
        expires_at: create.expires_at,
        revoked_at: None,
        replaced: None,
        version: 1,
    };
    let entry = caller.entry(&key.tenant, Action::KeyCreated, &key.id(), now);
    if app.backend.config.write(vec![Record::from(&key)], entry).await? == RecordResult::Conflict {
        return Err(Problem::internal("a new key has the same id as an existing one"));
    }
    app.auth_cache().ask_for_keys();
    response::value(StatusCode::CREATED, KEY_BYTES, &KeyView::new(&key).with(&text))
}

impl Create {
    fn check(&self, now: Timestamp) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        if self.scopes.is_empty() {
            wrong.push(FieldError::new("/scopes", "expected at least one scope"));
        }
        if self.label.len() > MAX_LABEL || self.label.chars().any(is_invisible) {
            wrong.push(FieldError::new(
                "/label",
                format!("expected at most {MAX_LABEL} bytes of text without control characters"),
            ));
        }
        if self.networks.len() > MAX_NETWORKS {
            wrong.push(FieldError::new("/networks", format!("expected at most {MAX_NETWORKS} networks")));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            wrong.push(FieldError::new("/expires_at", "expected a time in the future"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
    }
}

/// List keys
///
/// Returns keys in the order of their ids, which is not chronological. A page may be shorter than `limit`, or
/// empty, although more pages follow.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "keys",
    security(("key" = ["admin"])),
    params(
        ("tenant" = Option<String>, Query, description = "Only keys of this tenant.", pattern = "^[A-Za-z0-9._-]{1,64}$"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of keys in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of keys.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    _: Authorized<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["tenant", "limit", "cursor"]);
    let tenant = query.get("tenant", EXPECTED_NAME, |text| Tenant::new(text).ok());
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::keys(tenant.as_ref());
    let mut after = page.after(&app, &list, |position| position.0.parse::<KeyId>().ok())?;
    let (mut data, mut scanned) = (Vec::new(), 0);
    let next_cursor = loop {
        let asked = (page.limit - data.len()).max(1);
        let found = app.backend.config.keys(after, asked).await?;
        let is_last = found.len() < asked;
        scanned += found.len();
        after = found.last().map(Key::id).or(after);
        data.extend(
            found
                .iter()
                .filter(|key| tenant.as_ref().is_none_or(|tenant| key.tenant == *tenant))
                .map(KeyView::new),
        );
        if is_last {
            break None;
        }
        if data.len() == page.limit || scanned >= MAX_SCANNED {
            break after.map(|id| cursor::seal(&app.cursor_key, &list, &Position(id.to_string())));
        }
    };
    response::value(StatusCode::OK, KEY_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

/// Get a key
///
/// Returns everything about the key except its secret text.
#[utoipa::path(
    get,
    path = "/v1/keys/{id}",
    operation_id = "get_key",
    tag = "keys",
    security(("key" = ["admin"])),
    params(("id" = String, Path, pattern = "^key_[0-9a-z]{26}$", description = "The key's id.", example = "key_01jd8rkz5m3q4v9x2y7w6t0abc")),
    responses((status = 200, description = "The key, without its secret text.", body = KeyView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    _: Authorized<Admin>,
    PathParam(id): PathParam<KeyId>,
) -> Result<Response, Problem> {
    let key = app.backend.config.key(id).await?.ok_or_else(KeyId::not_found)?;
    response::value(StatusCode::OK, KEY_BYTES, &KeyView::new(&key))
}

/// Replace a key
///
/// Creates a key with the same tenant, scopes, networks and expiry. The old key expires at once, or after
/// `grace_period` seconds.
#[utoipa::path(
    post,
    path = "/v1/keys/{id}/rotate",
    operation_id = "rotate_key",
    tag = "keys",
    security(("key" = ["admin"])),
    params(("id" = String, Path, pattern = "^key_[0-9a-z]{26}$", description = "The key's id.", example = "key_01jd8rkz5m3q4v9x2y7w6t0abc")),
    request_body(content = Rotate, description = "May be left out.", example = json!({"grace_period": 86400})),
    responses((status = 201, description = "The new key is created.", body = KeyView)),
)]
pub(crate) async fn rotate(
    State(app): State<App>,
    Authorized(caller, _): Authorized<Admin>,
    PathParam(id): PathParam<KeyId>,
    request: Request,
) -> Result<Response, Problem> {
    let instead = "a key is shown only once; send the request without the header Idempotency-Key; if the response is lost, list the keys, revoke the \
        new key and create another key";
    let Rotate { grace_period } = options_without_key(&app, &caller.tenant, request, instead).await?;
    let overlap = overlap_of(grace_period)?;
    let text = KeyText::new(rand::random());
    let now = app.clock.now();
    let new = change(&app, &caller, id, Action::KeyRotated, now, |old| {
        let (old, new) = old.rotate(text.digest(), overlap, now);
        (old, Some(new))
    })
    .await?;
    response::value(StatusCode::CREATED, KEY_BYTES, &KeyView::new(&new).with(&text))
}

/// Revoke a key
///
/// The process that handles the request refuses the key at once. Other processes with the same DynamoDB table
/// refuse the key within 10 seconds. The key stays in the list of keys.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revoke_key",
    tag = "keys",
    security(("key" = ["admin"])),
    params(("id" = String, Path, pattern = "^key_[0-9a-z]{26}$", description = "The key's id.", example = "key_01jd8rkz5m3q4v9x2y7w6t0abc")),
    responses((status = 200, description = "The key is revoked.", body = KeyView)),
)]
pub(crate) async fn revoke(
    State(app): State<App>,
    Authorized(caller, _): Authorized<Admin>,
    PathParam(id): PathParam<KeyId>,
    request: Request,
) -> Result<Response, Problem> {
    let _: Revoke = options(&app, &caller.tenant, request).await?;
    let now = app.clock.now();
    let key = change(&app, &caller, id, Action::KeyRevoked, now, |key| {
        (Key { revoked_at: Some(now), ..key }, None)
    })
    .await?;
    response::value(StatusCode::OK, KEY_BYTES, &KeyView::new(&key))
}

/// Changes an active key and stores the change. A rotation also stores a new key. Returns the new key if one
/// was created, otherwise the changed key.
async fn change(
    app: &App,
    caller: &Principal,
    id: KeyId,
    action: Action,
    now: Timestamp,
    make: impl Fn(Key) -> (Key, Option<Key>),
) -> Result<Key, Problem> {
    let updated = update(
        app,
        "the key",
        || app.backend.config.key(id),
        |old| {
            let old = old.ok_or_else(KeyId::not_found)?;
            if old.is_over(now) {
                return Err(Problem::new(
                    Code::KeyInactive,
                    "a revoked or expired key cannot be changed; create a new key",
                ));
            }
            let version = old.version + 1;
            let (changed, new) = make(old);
            let changed = Key { version, ..changed };
            let object = new.as_ref().map_or_else(|| id.to_string(), |new| format!("{id} {}", new.id()));
            let entry = caller.entry(&changed.tenant, action, &object, now);
            // Drops the key from the cache before the write too. If the client disconnects during the write,
            // this future is dropped, and the call after the write does not run.
            app.auth_cache().forget_key(id);
            let records = [&changed].into_iter().chain(&new).map(Record::from).collect();
            Ok((Change::Write(records), entry, new.unwrap_or(changed)))
        },
    )
    .await;
    app.auth_cache().forget_key(id);
    updated
}

impl Parameter for KeyId {
    fn not_found() -> Problem {
        Problem::new(Code::KeyNotFound, "no API key has this id; `GET /v1/keys` lists all keys")
    }
}

impl KeyView {
    fn new(key: &Key) -> Self {
        Self {
            id: key.id(),
            tenant: key.tenant.clone(),
            label: key.label.clone(),
            scopes: key.scopes,
            networks: key.networks.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            key: None,
        }
    }

    fn with(self, text: &KeyText) -> Self {
        Self { key: Some(text.as_str().to_owned()), ..self }
    }
}

const _: () = assert!(Scope::ALL.len() == 7, "ScopeWord describes every scope");

//! What a tenant's callbacks are signed with. It is set, replaced and removed, and never shown again.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::audit::Action;
use nobat_core::callback_secret::CallbackSecrets;
use nobat_core::registry::{Record, RecordName, Recorded};
use nobat_core::secrets::{Kept, MAX_LIVE};
use nobat_core::submit::Invalid;
use nobat_core::time::Timestamp;
use nobat_core::vault::Sealed;
use nobat_core::webhook::WebhookSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::change::{ROTATE_INSTEAD, grace_period, options, options_without_key};
use crate::code::Code;
use crate::door::{Allowed, Caller, ConfigWrite};
use crate::problem::Problem;
use crate::reply;

/// What the secrets are shown in, about.
const SECRETS_BYTES: usize = 300;
/// How often a change is tried that others are in the way of.
const MAX_CONFLICTS: usize = 5;
/// For how many seconds the one before goes on to sign, unless said otherwise: a day.
const OVERLAP: f64 = 86_400.0;

/// The secret to sign with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SetCallbackSecret)]
pub(crate) struct Set {
    /// `whsec_` and 24 to 64 random bytes in base64. One is made, and shown in the answer, unless it is given.
    #[schema(value_type = Option<String>, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|([A-Za-z0-9+/]{4})?[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    secret: Option<String>,
}

/// The secret to sign with from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RotateSecret)]
pub(crate) struct Rotate {
    /// `whsec_` and 24 to 64 random bytes in base64. One is made, and shown in the answer, unless it is given.
    #[schema(value_type = Option<String>, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|([A-Za-z0-9+/]{4})?[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    pub(crate) secret: Option<String>,
    /// Seconds for which the secrets before it sign as well. Default 86,400 (a day). 0, or at least 10: other processes sign with the new secret
    /// within 10 seconds. 0 ends the secrets before it at once, as `PUT` does.
    #[schema(minimum = 0, maximum = 2_592_000)]
    pub(crate) overlap: f64,
}

impl Default for Rotate {
    fn default() -> Self {
        Self { secret: None, overlap: OVERLAP }
    }
}

/// How to remove the secrets; there is nothing to choose yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {}

/// What callbacks are signed with: all but the secrets themselves.
#[derive(Serialize, ToSchema)]
#[schema(as = CallbackSecrets)]
pub(crate) struct SecretsView {
    /// Those that sign, the newest first; callbacks are not signed if there is none.
    secrets: Vec<SecretView>,
    /// The secret that was made just now. It is never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    secret: Option<String>,
}

/// One secret, but for what it is.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningSecret)]
pub(crate) struct SecretView {
    /// When it was set.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// From when it signs no more, because another has taken its place.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub(crate) expires_at: Option<Timestamp>,
}

/// Set the callback secret
///
/// Callbacks of the caller's tenant are signed with this secret and with no other, as Standard Webhooks 1.0.0 says. It is kept encrypted, and
/// cannot be read again. It holds at once in the process that answers, and within 10 seconds in other processes, which sign with the secrets
/// before it until then. To replace a secret without that gap, rotate it.
#[utoipa::path(
    put,
    path = "/v1/callback-secret",
    operation_id = "set_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    request_body(content = Set, description = "May be left out.", example = json!({})),
    responses((status = 200, description = "It signs.", body = SecretsView)),
)]
pub(crate) async fn set(State(app): State<App>, Allowed(caller, _): Allowed<ConfigWrite>, request: Request) -> Result<Response, Problem> {
    let Set { secret } = options(&app, &caller.tenant, request).await?;
    let change = Change { secret, overlap: Duration::ZERO, action: Action::CallbackSecretSet };
    reply::value(StatusCode::OK, SECRETS_BYTES, &change.make(&app, &caller).await?)
}

/// Replace the callback secret
///
/// The new secret signs at once in the process that answers, and within 10 seconds in other processes. The secrets before it sign as well for
/// `overlap` seconds, so that receivers can change over in the meantime; no process signs with them after that.
#[utoipa::path(
    post,
    path = "/v1/callback-secret/rotate",
    operation_id = "rotate_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    request_body(content = Rotate, description = "May be left out.", example = json!({"overlap": 86400})),
    responses((status = 201, description = "Both sign.", body = SecretsView)),
)]
pub(crate) async fn rotate(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let Rotate { secret, overlap } = options_without_key(&app, &caller.tenant, request, ROTATE_INSTEAD).await?;
    let overlap = grace_period(overlap)?;
    let change = Change { secret, overlap, action: Action::CallbackSecretRotated };
    reply::value(StatusCode::CREATED, SECRETS_BYTES, &change.make(&app, &caller).await?)
}

/// Get what is known of the callback secret
///
/// Since when it signs, and what signs beside it; never the secret itself.
#[utoipa::path(
    get,
    path = "/v1/callback-secret",
    operation_id = "get_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    responses((status = 200, description = "What signs.", body = SecretsView)),
)]
pub(crate) async fn one(State(app): State<App>, Allowed(caller, _): Allowed<ConfigWrite>) -> Result<Response, Problem> {
    let secrets = app.backend.registry.callback_secrets(&caller.tenant).await?;
    reply::value(StatusCode::OK, SECRETS_BYTES, &SecretsView::new(&secrets, app.clock.now()))
}

/// Remove the callback secret
///
/// Callbacks are not signed any more: at once in the process that answers, and within 10 seconds in other processes.
#[utoipa::path(
    delete,
    path = "/v1/callback-secret",
    operation_id = "remove_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    responses((status = 200, description = "Nothing signs.", body = SecretsView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Allowed(caller, _): Allowed<ConfigWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let _: Remove = options(&app, &caller.tenant, request).await?;
    let secrets = write(&app, &caller, Action::CallbackSecretRemoved, |secrets, _| Ok(secrets.none())).await?;
    reply::value(StatusCode::OK, SECRETS_BYTES, &secrets)
}

/// A new secret.
struct Change {
    secret: Option<String>,
    overlap: Duration,
    action: Action,
}

impl Change {
    async fn make(self, app: &App, caller: &Caller) -> Result<SecretsView, Problem> {
        let given = self.secret.map(|text| text.parse::<WebhookSecret>()).transpose();
        let given = given.map_err(|error| Problem::from(vec![Invalid::new("/secret", error.to_string())]))?;
        let is_given = given.is_some();
        let secret = given.unwrap_or_else(|| WebhookSecret::new(rand::random()));
        let (vault, place) = (app.vault.vault().await?, CallbackSecrets::place(&caller.tenant));
        let sealed: Sealed = vault.seal(&place, secret.as_bytes(), rand::random());
        let view = write(app, caller, self.action, |secrets, now| {
            // Whoever rotates every secret needs no older master key any more, overlaps or not.
            let changed = secrets.renewed(|sealed| vault.renew(&place, sealed, rand::random()));
            let changed = changed.with(sealed.clone(), self.overlap, now);
            changed.map_err(|_| {
                Problem::new(Code::TooManySecrets, format!("{MAX_LIVE} are still in use: wait for an overlap to end, or set one by PUT"))
            })
        })
        .await?;
        Ok(SecretsView { secret: (!is_given).then(|| secret.to_text()), ..view })
    }
}

/// Changes the secrets of the caller's tenant, on record.
async fn write(
    app: &App,
    caller: &Caller,
    action: Action,
    change: impl Fn(&CallbackSecrets, Timestamp) -> Result<CallbackSecrets, Problem>,
) -> Result<SecretsView, Problem> {
    let now = app.clock.now();
    for _ in 0..MAX_CONFLICTS {
        let changed = change(&app.backend.registry.callback_secrets(&caller.tenant).await?, now)?;
        let record = Record { name: RecordName::of_callback_secret(&caller.tenant), version: changed.version, body: changed.to_text() };
        let entry = caller.entry(&caller.tenant, action, &caller.tenant, now);
        if app.backend.registry.write(vec![record], entry).await? == Recorded::Done {
            app.directory().forget(&caller.tenant);
            return Ok(SecretsView::new(&changed, now));
        }
    }
    Err(Problem::new(Code::Overloaded, "the secret is being changed all the time"))
}

impl SecretsView {
    fn new(secrets: &CallbackSecrets, now: Timestamp) -> Self {
        let view = |kept: &Kept| SecretView { created_at: kept.created_at, expires_at: kept.expires_at };
        Self { secrets: secrets.secrets.live(now).map(view).collect(), secret: None }
    }
}

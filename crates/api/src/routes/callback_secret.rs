//! Secrets that sign a tenant's callbacks. Clients set, rotate and remove them. The API never shows a secret
//! again.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::callback_secret::CallbackSecrets;
use nobat_core::config::record::{Record, RecordName};
use nobat_core::secrets::secret_set::{MAX_LIVE, StoredSecret};
use nobat_core::secrets::vault::Sealed;
use nobat_core::secrets::webhook::WebhookSecret;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::auth::principal::Principal;
use crate::http::error_code::Code;
use crate::http::options::{options, options_without_key};
use crate::http::problem::Problem;
use crate::http::response;
use crate::routes::config_update::{self, update};
use crate::routes::rotation::{ROTATE_INSTEAD, grace_period};

/// Approximate size of the secrets in a response, in bytes.
const SECRETS_BYTES: usize = 300;
/// Default grace period of the older secrets, in seconds: a day.
const OVERLAP: f64 = 86_400.0;

/// Secret to set.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = SetCallbackSecret)]
pub(crate) struct Set {
    /// `whsec_` and 24 to 64 random bytes in base64. Default: nobat generates a secret and shows it in the
    /// response.
    #[schema(value_type = Option<String>, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|([A-Za-z0-9+/]{4})?[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    secret: Option<String>,
}

/// Options of a rotation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RotateSecret)]
pub(crate) struct Rotate {
    /// `whsec_` and 24 to 64 random bytes in base64. Default: nobat generates a secret and shows it in the
    /// response.
    #[schema(value_type = Option<String>, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|([A-Za-z0-9+/]{4})?[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    pub(crate) secret: Option<String>,
    /// Seconds for which the older secrets also sign.
    #[schema(schema_with = grace_period_schema)]
    pub(crate) grace_period: f64,
}

impl Default for Rotate {
    fn default() -> Self {
        Self { secret: None, grace_period: OVERLAP }
    }
}

/// Returns the schema of the numbers that [`grace_period`] accepts.
fn grace_period_schema() -> Schema {
    let seconds =
        |from, to| ObjectBuilder::new().schema_type(Type::Number).minimum(Some(from)).maximum(Some(to));
    OneOfBuilder::new()
        .item(seconds(10, 2_592_000))
        .item(seconds(0, 0))
        .description(Some(
            "Grace period: seconds for which the older secrets also sign. Default 86,400 (a day). 0, or 10 to 2,592,000 (30 days). 0 ends \
             the older secrets at once, as `PUT` does. Less than 10 is not allowed, because other processes take up to \
             10 seconds to sign with the new secret.",
        ))
        .into()
}

/// Options of a removal: none yet.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {}

/// Secrets that sign callbacks, without their texts.
#[derive(Serialize, ToSchema)]
#[schema(as = CallbackSecrets)]
pub(crate) struct SecretsView {
    /// Secrets that sign, newest first. Empty: callbacks are not signed.
    secrets: Vec<SecretView>,
    /// Generated secret. Only in the response to the request that generated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    secret: Option<String>,
}

/// Secret that signs, without its text.
#[derive(Serialize, ToSchema)]
#[schema(as = SigningSecret)]
pub(crate) struct SecretView {
    /// Time at which the secret was set.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) created_at: Timestamp,
    /// Time from which the secret no longer signs, because a newer secret replaces it. `null`: no newer
    /// secret exists.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub(crate) expires_at: Option<Timestamp>,
}

/// Set the callback secret
///
/// nobat signs callbacks of the caller's tenant with this secret only, as Standard Webhooks 1.0.0 specifies.
/// It stores the secret encrypted and never shows it again.
///
/// The process that handles the request signs with the new secret at once. Other processes sign with the
/// older secrets for up to 10 seconds. If receivers must be able to verify every callback in the meantime,
/// rotate the secret instead.
#[utoipa::path(
    put,
    path = "/v1/callback-secret",
    operation_id = "set_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    request_body(content = Set, description = "May be left out.", example = json!({})),
    responses((status = 200, description = "The secret is set.", body = SecretsView)),
)]
pub(crate) async fn set(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let Set { secret } = options(&app, &caller.tenant, request).await?;
    let change = Change { secret, overlap: Duration::ZERO, action: Action::CallbackSecretSet };
    response::value(StatusCode::OK, SECRETS_BYTES, &change.make(&app, &caller).await?)
}

/// Replace the callback secret
///
/// The process that handles the request signs with the new secret at once, other processes within 10 seconds.
/// The older secrets also sign for `grace_period` seconds, so that receivers can switch over in the meantime.
/// After that, no process signs with the older secrets.
#[utoipa::path(
    post,
    path = "/v1/callback-secret/rotate",
    operation_id = "rotate_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    request_body(content = Rotate, description = "May be left out.", example = json!({"grace_period": 86400})),
    responses((status = 201, description = "The secret is replaced. The older secrets sign until their grace period ends.", body = SecretsView)),
)]
pub(crate) async fn rotate(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let Rotate { secret, grace_period: seconds } =
        options_without_key(&app, &caller.tenant, request, ROTATE_INSTEAD).await?;
    let overlap = grace_period(seconds)?;
    let change = Change { secret, overlap, action: Action::CallbackSecretRotated };
    response::value(StatusCode::CREATED, SECRETS_BYTES, &change.make(&app, &caller).await?)
}

/// Get the callback secrets
///
/// Returns when each secret was set and when it expires, but never a secret itself.
#[utoipa::path(
    get,
    path = "/v1/callback-secret",
    operation_id = "get_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    responses((status = 200, description = "The secrets that sign callbacks.", body = SecretsView)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
) -> Result<Response, Problem> {
    let secrets = app.backend.config.callback_secrets(&caller.tenant).await?;
    response::value(StatusCode::OK, SECRETS_BYTES, &SecretsView::new(&secrets, app.clock.now()))
}

/// Remove the callback secret
///
/// The process that handles the request stops signing callbacks at once, other processes within 10 seconds.
#[utoipa::path(
    delete,
    path = "/v1/callback-secret",
    operation_id = "remove_callback_secret",
    tag = "callbacks",
    security(("key" = ["config:write"])),
    responses((status = 200, description = "All secrets are removed. Callbacks are not signed.", body = SecretsView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    request: Request,
) -> Result<Response, Problem> {
    let _: Remove = options(&app, &caller.tenant, request).await?;
    let secrets =
        write(&app, &caller, Action::CallbackSecretRemoved, |secrets, _| Ok(secrets.none())).await?;
    response::value(StatusCode::OK, SECRETS_BYTES, &secrets)
}

/// Setting or rotation of a secret.
struct Change {
    secret: Option<String>,
    overlap: Duration,
    action: Action,
}

impl Change {
    async fn make(self, app: &App, caller: &Principal) -> Result<SecretsView, Problem> {
        let given = self.secret.map(|text| text.parse::<WebhookSecret>()).transpose();
        let given =
            given.map_err(|error| Problem::from(vec![FieldError::new("/secret", error.to_string())]))?;
        let is_given = given.is_some();
        let secret = given.unwrap_or_else(|| WebhookSecret::new(rand::random()));
        let (vault, place) = (app.vault.vault().await?, CallbackSecrets::secret_context(&caller.tenant));
        let sealed: Sealed = vault.seal(&place, secret.as_bytes(), rand::random());
        let view = write(app, caller, self.action, |secrets, now| {
            // Encrypts the older secrets again, with the current master key. Once every secret is rotated,
            // the operator can remove an old master key, even during a grace period.
            let changed = secrets.renewed(|sealed| vault.renew(&place, sealed, rand::random()));
            let changed = changed.with(sealed.clone(), self.overlap, now);
            changed.map_err(|_| {
                Problem::new(
                    Code::TooManySecrets,
                    format!("{MAX_LIVE} secrets are in use, which is the maximum; wait until a secret expires, or replace all secrets by PUT"),
                )
            })
        })
        .await?;
        Ok(SecretsView { secret: (!is_given).then(|| secret.to_text()), ..view })
    }
}

/// Changes the secrets of the caller's tenant and writes an audit entry.
async fn write(
    app: &App,
    caller: &Principal,
    action: Action,
    change: impl Fn(&CallbackSecrets, Timestamp) -> Result<CallbackSecrets, Problem>,
) -> Result<SecretsView, Problem> {
    let now = app.clock.now();
    let read = || app.backend.config.callback_secrets(&caller.tenant);
    let changed = update(app, "the secret", read, |current| {
        let changed = change(&current, now)?;
        let record = Record {
            name: RecordName::of_callback_secret(&caller.tenant),
            version: changed.version,
            body: changed.to_text(),
        };
        Ok((
            config_update::Change::Write(vec![record]),
            caller.entry(&caller.tenant, action, &caller.tenant, now),
            changed,
        ))
    })
    .await?;
    Ok(SecretsView::new(&changed, now))
}

impl SecretsView {
    fn new(secrets: &CallbackSecrets, now: Timestamp) -> Self {
        let view =
            |kept: &StoredSecret| SecretView { created_at: kept.created_at, expires_at: kept.expires_at };
        Self { secrets: secrets.secrets.live(now).map(view).collect(), secret: None }
    }
}

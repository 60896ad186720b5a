//! Requests of providers. The proof in the request is the credential, so no API key is needed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use nobat_core::auth::network::admits;
use nobat_core::config::source::Source;
use nobat_core::config::source_counts::{Rejection, RejectionCause, SourceCounts};
use nobat_core::config::tenant::TenantSettings;
use nobat_core::ports::{InsertResult, StoreError};
use nobat_core::secrets::vault::Sealed;
use nobat_core::service::sources::SourceTasks;
use nobat_core::sources::preset::{Challenge, Respond};
use nobat_core::sources::request::InboundRequest;
use nobat_core::sources::verify::Unverified;
use nobat_core::task::Task;
use nobat_core::types::time::Timestamp;
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::auth::extract::admitted_origin;
use crate::http::body;
use crate::http::error_code::Code;
use crate::http::path::{PathParam, SourceKey};
use crate::http::problem::Problem;
use crate::routes::tasks::submit::{hops, may_wait, quota_exceeded};

/// Receive a webhook
///
/// For the provider. The source verifies the request over its bytes. The response has a status of 200 to 299
/// only after the task or event is stored. A request with the event id of a stored request gets the same
/// response and changes nothing.
#[utoipa::path(
    post,
    path = "/v1/in/{tenant}/{name}",
    operation_id = "receive_webhook",
    tag = "sources",
    params(
        ("tenant" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The tenant.", example = "default"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The source's name.", example = "stripe"),
    ),
    responses((status = "2XX", description = "The webhook is stored. The source decides the status and the body.")),
)]
pub(crate) async fn receive(
    State(app): State<App>,
    PathParam(key): PathParam<SourceKey>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let (origin, now) = (admitted_origin(&head, &app)?, app.clock.now());
    let source = find(&app, &key, origin, now).await?;
    let mut webhook = Webhook { app: &app, key: &key, source: &source, origin, now };
    let outcome = webhook.receive(&head, body).await;
    match &outcome {
        Ok(Received::New(_)) => webhook.count(|counts| counts.accepted = 1).await,
        Ok(Received::Repeated(_)) => webhook.count(|counts| counts.repeated = 1).await,
        Ok(Received::Answered(_)) => {}
        Err(rejected) => webhook.count_rejection(rejected).await,
    }
    match outcome {
        Ok(Received::New(response) | Received::Repeated(response) | Received::Answered(response)) => {
            Ok(response)
        }
        Err(Rejected(_, problem)) => Err(problem),
    }
}

/// Answer a provider's check of the URL
///
/// For providers such as Meta, which send `hub.mode`, `hub.verify_token` and `hub.challenge` before they send
/// webhooks. The response is the value of `hub.challenge`.
#[utoipa::path(
    get,
    path = "/v1/in/{tenant}/{name}",
    operation_id = "answer_challenge",
    tag = "sources",
    params(
        ("tenant" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The tenant.", example = "default"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The source's name.", example = "meta"),
        ("hub.verify_token" = Option<String>, Query, description = "The `verify_token` of the source."),
        ("hub.challenge" = Option<String>, Query, description = "Text that the response returns."),
    ),
    responses((status = 200, description = "The value of `hub.challenge`.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn challenge(
    State(app): State<App>,
    PathParam(key): PathParam<SourceKey>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let (origin, now) = (admitted_origin(&head, &app)?, app.clock.now());
    let source = find(&app, &key, origin, now).await?;
    let webhook = Webhook { app: &app, key: &key, source: &source, origin, now };
    let outcome = webhook.challenge(query.as_deref().unwrap_or_default()).await;
    if let Err(rejected) = &outcome {
        webhook.count_rejection(rejected).await;
    }
    outcome.map_err(|Rejected(_, problem)| problem)
}

/// Maximum length of the text that the response to a check of the URL returns, in bytes.
const MAX_CHALLENGE: usize = 1_024;

/// Length of a payload in bytes above which a repetition is recognized by a read.
const LONG_PAYLOAD: usize = 32 * 1024;

/// Returns the source. A client that guesses names is counted and slowed like one that guesses API keys.
async fn find(
    app: &App,
    key: &SourceKey,
    origin: Option<IpAddr>,
    now: Timestamp,
) -> Result<Arc<Source>, Problem> {
    let SourceKey { tenant, name } = key;
    let is_known = app.config_cache().has_source(tenant, name);
    let read = async || {
        let store = &app.backend.config;
        if is_known {
            return store.source(tenant, name).await;
        }
        // Each unknown name costs a read of the store, as an unknown API key does.
        let turn = app.auth_cache().turn(origin, now).await.map_err(|_| StoreError::Overloaded)?;
        let found = store.source(tenant, name).await?;
        if found.is_some() {
            turn.found();
        }
        Ok(found)
    };
    if let Some(source) = app.config_cache().source(tenant, name, read).await? {
        return Ok(source);
    }
    app.auth_cache().count_failure(origin, now)?;
    Err(Problem::source_not_found())
}

/// Request to a source.
struct Webhook<'a> {
    app: &'a App,
    key: &'a SourceKey,
    source: &'a Source,
    origin: Option<IpAddr>,
    now: Timestamp,
}

/// Accepted request, and the response to it.
enum Received {
    /// The request became a task or an event.
    New(Response),
    /// The request repeats a stored one.
    Repeated(Response),
    /// Check of the URL.
    Answered(Response),
}

/// Rejected request: the cause that is counted, and the response.
struct Rejected(RejectionCause, Problem);

impl From<Unverified> for Rejected {
    fn from(unverified: Unverified) -> Self {
        let (cause, detail) = match unverified {
            Unverified::Network => {
                (RejectionCause::Network, "the source accepts no requests from this address")
            }
            Unverified::Missing => (
                RejectionCause::SignatureMissing,
                "the request has no signature, token or password where the source expects it, or has it twice",
            ),
            Unverified::Malformed => (
                RejectionCause::SignatureMalformed,
                "the signature cannot be read, or does not cover the body",
            ),
            Unverified::Wrong => {
                (RejectionCause::SignatureWrong, "the signature, token or password is not the expected one")
            }
            Unverified::Timestamp => (
                RejectionCause::Timestamp,
                "the time of the signature is missing, or too far from the time of the server",
            ),
        };
        Self(cause, Problem::new(Code::WebhookNotVerified, detail))
    }
}

impl From<StoreError> for Rejected {
    fn from(error: StoreError) -> Self {
        Self(RejectionCause::Store, error.into())
    }
}

impl Webhook<'_> {
    async fn receive(&mut self, head: &Parts, body: Body) -> Result<Received, Rejected> {
        let reject = |cause| move |problem| Rejected(cause, problem);
        // A client of another network must not make the server read a body.
        if !admits(&self.source.networks, self.origin) {
            return Err(Unverified::Network.into());
        }
        let body = body::webhook(self.app, self.origin, &head.headers, body).await;
        let body = body.map_err(reject(RejectionCause::Body))?;
        // A slow body must not make an old signature valid.
        self.now = self.app.clock.now();
        let headers =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
        let request = InboundRequest::new(headers.collect(), self.origin, &body);
        let secrets = self.open(&self.source.secrets).await.map_err(reject(RejectionCause::Store))?;
        self.source.verifier().verify(&request, &secrets, self.now)?;
        if let Some(answer) = self.source.challenge().and_then(|challenge| challenge.answer(&request)) {
            return Ok(Received::Answered(plain(answer)));
        }
        let hops = hops(&head.headers).map_err(reject(RejectionCause::Loop))?;
        let settings = self.app.tenant_settings(&self.key.tenant, self.now).await?;
        if let Some(rate) = settings.request_rate {
            let taken = self.app.permits().take(&self.app.backend, &self.key.tenant, rate, self.now).await;
            taken.map_err(reject(RejectionCause::Quota))?;
        }
        let tasks = SourceTasks {
            config_cache: self.app.config_cache(),
            kinds: &*self.app.kinds,
            max_timeout: self.app.max_timeout,
            tenant: &self.key.tenant,
            name: &self.key.name,
            max_payload: settings.max_payload_bytes,
            hops,
            now: self.now,
        };
        let task = tasks.task(self.source, &request).await?;
        let task = task.map_err(|errors| Rejected(RejectionCause::TaskInvalid, errors.into()))?;
        self.store(task, settings).await
    }

    /// Stores the task, unless a task with its id exists.
    async fn store(&self, task: Task, settings: TenantSettings) -> Result<Received, Rejected> {
        let backend = &self.app.backend;
        let may_wait = may_wait(self.app, &self.key.tenant, settings, 1, self.now).await?;
        // A repeated request creates no task, so the limit does not apply to it. On DynamoDB, a refused insert of a
        // long payload costs as much as an accepted one, so the task is read before.
        let known = if may_wait && task.payload.get().len() <= LONG_PAYLOAD {
            None
        } else {
            backend.store.get(&task.key(), self.now).await?
        };
        let existing = match known {
            None if !may_wait => return Err(Rejected(RejectionCause::Quota, quota_exceeded(self.app))),
            None => match backend.accept(vec![task.clone()], self.now).await? {
                InsertResult::Created(_) => return Ok(Received::New(self.response())),
                InsertResult::Existing(existing) => existing.into_iter().next(),
            },
            known => known,
        };
        if existing.is_some_and(|existing| existing.options.fingerprint == task.options.fingerprint) {
            return Ok(Received::Repeated(self.response()));
        }
        tracing::warn!(
            tenant = %self.key.tenant,
            source = %self.key.name,
            task = %task.id,
            "a verified webhook has the event id of a stored one, and another body; nobat refused it"
        );
        let detail =
            "a stored request has the same event id and another body; send other events with other ids";
        Err(Rejected(RejectionCause::BodyChanged, Problem::new(Code::EventIdReused, detail)))
    }

    async fn challenge(&self, query: &str) -> Result<Response, Rejected> {
        let wrong = || {
            let detail = "expected the check of the URL that the preset of the source describes, with the `verify_token` of the source";
            Rejected(RejectionCause::Challenge, Problem::new(Code::WebhookNotVerified, detail))
        };
        if !admits(&self.source.networks, self.origin) {
            return Err(Unverified::Network.into());
        }
        let Some(Challenge::Query { token, answer }) = self.source.challenge() else { return Err(wrong()) };
        let parameter = |name: &str| {
            let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(other, _)| other == name);
            found.next().filter(|_| found.next().is_none()).map(|(_, value)| value.into_owned())
        };
        let expected = self.open(self.source.verify_token.as_slice()).await;
        let expected = expected.map_err(|problem| Rejected(RejectionCause::Store, problem))?;
        let given = parameter(token).unwrap_or_default();
        let is_right =
            expected.iter().any(|expected| bool::from(expected.as_slice().ct_eq(given.as_bytes())));
        let answer = parameter(answer).filter(|text| is_right && text.len() <= MAX_CHALLENGE);
        answer.map(plain).ok_or_else(wrong)
    }

    async fn count_rejection(&self, rejected: &Rejected) {
        let rejection = Rejection { at: self.now, cause: rejected.0, address: self.origin };
        self.count(|counts| counts.reject(rejection)).await;
    }

    async fn count(&self, add: impl FnOnce(&mut SourceCounts)) {
        let mut counts = SourceCounts { created_at: self.source.created_at, ..SourceCounts::default() };
        add(&mut counts);
        let SourceKey { tenant, name } = self.key;
        self.app.source_counters().add(&self.app.backend, tenant, name, &counts, self.now).await;
    }

    /// Decrypts secrets of the source.
    async fn open(&self, sealed: &[Sealed]) -> Result<Vec<Vec<u8>>, Problem> {
        if sealed.is_empty() {
            return Ok(Vec::new());
        }
        let (vault, place) =
            (self.app.vault.vault().await?, Source::secret_context(&self.key.tenant, &self.key.name));
        let opened = sealed.iter().map(|sealed| vault.open(&place, sealed));
        // One secret that this process cannot decrypt must not stop the others.
        let opened: Vec<_> = opened.filter_map(Result::ok).collect();
        if opened.is_empty() {
            return Err(Problem::internal("the secrets of a source are encrypted with another master key"));
        }
        Ok(opened)
    }

    /// Returns the response to a stored request.
    fn response(&self) -> Response {
        let Respond { status, body, content_type } = self.source.response();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
        let Some(text) = body else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            return response;
        };
        let mut response = plain(text);
        *response.status_mut() = status;
        if let Some(content_type) = content_type.and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }
}

/// Returns a response with a text. `nosniff` keeps a browser from reading the text as HTML.
fn plain(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

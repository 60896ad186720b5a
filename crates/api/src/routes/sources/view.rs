//! Sources as responses show them.

use std::collections::BTreeMap;

use nobat_core::auth::network::Network;
use nobat_core::config::source::{Proof, Source, SourceTarget};
use nobat_core::config::source_counts::{Rejection, RejectionCause, SourceCounts};
use nobat_core::config::subscription::EventBody;
use nobat_core::json::Json;
use nobat_core::sources::preset::{PresetName, Respond};
use nobat_core::sources::request::{EventType, Place};
use nobat_core::sources::scheme::{BasicScheme, HmacScheme, Scheme, TokenScheme};
use nobat_core::submission::Submission;
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Source.
#[derive(Serialize, ToSchema)]
#[schema(as = Source)]
pub(crate) struct SourceView {
    /// Name.
    #[schema(value_type = String)]
    name: Name,
    /// Path to which the provider sends its webhooks.
    path: String,
    /// Proof that each request must contain, without the secrets.
    verify: VerifyView,
    /// Places of the id of the provider's event. `null`: the places of the preset, else the SHA-256 of the body.
    #[schema(value_type = Option<Vec<serde_json::Value>>, required)]
    event_id: Option<Vec<Place>>,
    /// Template of the task that each request becomes, as the client sent it. `null` if the source publishes
    /// events.
    #[schema(value_type = Option<Submission>, required)]
    task: Option<Json>,
    /// Body that a task of kind `http` sends if its template has no body. `null` if the source publishes events.
    #[schema(required)]
    body: Option<EventBody>,
    /// Event that each request becomes. `null` if the source creates tasks.
    #[schema(required)]
    event: Option<EventRuleView>,
    /// Response to a request that is stored. `null`: the response of the preset, else an empty body with the
    /// status 200.
    #[schema(required)]
    respond: Option<Respond>,
    /// Time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// Proof that each request must contain.
#[derive(Serialize, ToSchema)]
#[schema(as = Verification)]
pub(crate) struct VerifyView {
    /// Provider.
    #[schema(required)]
    preset: Option<PresetName>,
    /// Signature with a shared secret.
    #[schema(required)]
    hmac: Option<HmacScheme>,
    /// Secret token in a header.
    #[schema(required)]
    token: Option<TokenScheme>,
    /// User and password.
    #[schema(required)]
    basic: Option<BasicScheme>,
    /// Number of secrets.
    secrets: usize,
    /// True if there is a token for the provider's check of the URL.
    verify_token: bool,
    /// Maximum difference between the time of a signature and the current time, in seconds.
    tolerance: u64,
    /// Networks of the provider. Empty if every client may send requests.
    #[schema(value_type = Vec<String>)]
    networks: Vec<Network>,
    /// URL that the provider signs.
    #[schema(required)]
    url: Option<String>,
}

/// Event that each request of a source becomes.
#[derive(Serialize, ToSchema)]
#[schema(as = SourceEvent)]
pub(crate) struct EventRuleView {
    /// Type, or its place. `null`: the place of the preset.
    #[schema(value_type = Option<serde_json::Value>, required)]
    r#type: Option<EventType>,
    /// Place of the subject.
    #[schema(value_type = Option<serde_json::Value>, required)]
    subject: Option<Place>,
}

/// Source, with the counts of its requests.
#[derive(Serialize, ToSchema)]
pub(crate) struct SourceDetails {
    #[serde(flatten)]
    source: SourceView,
    /// Number of requests that became a task or an event.
    accepted: u64,
    /// Number of requests that repeated a stored one.
    repeated: u64,
    /// Number of rejected requests by cause.
    #[schema(value_type = BTreeMap<String, u64>)]
    rejected: BTreeMap<RejectionCause, u64>,
    /// Last rejections, oldest first, at most 20.
    last_rejections: Vec<Rejection>,
}

/// One page of sources.
#[derive(Serialize, ToSchema)]
#[schema(as = SourcePage)]
pub(crate) struct PageView {
    /// Sources, in the order of their names.
    pub(super) data: Vec<SourceView>,
    /// Cursor of the next page. `null` on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl SourceView {
    pub(super) fn new(tenant: &Tenant, name: Name, source: &Source) -> Self {
        let (task, body, event) = match source.target.clone() {
            SourceTarget::Task { template, body } => (Some(template), Some(body), None),
            SourceTarget::Event { event_type, subject } => {
                (None, None, Some(EventRuleView { r#type: event_type, subject }))
            }
        };
        Self {
            path: format!("/v1/in/{tenant}/{name}"),
            name,
            verify: VerifyView::new(source),
            event_id: source.event_id.clone(),
            task,
            body,
            event,
            respond: source.respond.clone(),
            created_at: source.created_at,
        }
    }
}

impl VerifyView {
    fn new(source: &Source) -> Self {
        let (mut preset, mut hmac, mut token, mut basic) = (None, None, None, None);
        match source.proof.clone() {
            None => {}
            Some(Proof::Preset(name)) => preset = Some(name),
            Some(Proof::Scheme(Scheme::Hmac(scheme))) => hmac = Some(scheme),
            Some(Proof::Scheme(Scheme::Token(scheme))) => token = Some(scheme),
            Some(Proof::Scheme(Scheme::Basic(scheme))) => basic = Some(scheme),
        }
        Self {
            preset,
            hmac,
            token,
            basic,
            secrets: source.secrets.len(),
            verify_token: source.verify_token.is_some(),
            tolerance: source.tolerance.as_secs(),
            networks: source.networks.clone(),
            url: source.url.clone(),
        }
    }
}

impl SourceDetails {
    pub(super) fn new(source: SourceView, counts: SourceCounts) -> Self {
        let SourceCounts { accepted, repeated, rejected, last, .. } = counts;
        Self { source, accepted, repeated, rejected, last_rejections: last }
    }
}

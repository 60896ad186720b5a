//! Conversion of a client's request into a source.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::auth::network::Network;
use crate::config::source::{Proof, Source, SourceTarget};
use crate::config::subscription::EventBody;
use crate::json::Json;
use crate::secrets::vault::Sealed;
use crate::sources::preset::{Challenge, PresetName, Respond};
use crate::sources::request::{EventType, INVALID_PLACE, Place, is_header, is_pointer};
use crate::sources::scheme::{BasicScheme, HmacScheme, Part, Scheme, TimestampPlace, TokenScheme};
use crate::submission::subscription::sample_event;
use crate::submission::template::{TemplateEvent, sample};
use crate::submission::{Submission, SubmissionContext};
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors, is_invisible};
use crate::types::http_url::HttpUrl;

/// Source: receives the webhooks of a provider. Exactly one of `task` and `event` is required. A request
/// replaces the whole configuration: omitted fields reset to their defaults, except `secrets` and
/// `verify_token`, which keep their values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceSubmission {
    /// Proof that each request must contain.
    #[serde(deserialize_with = "crate::json::decode::object")]
    pub verify: VerifySubmission,
    /// Place of the id of the provider's event: a JSON pointer (RFC 6901) into the body, or
    /// `{"header": "X-Event-Id"}`, or several of them, whose values identify the event together. Requests with
    /// the same id become one task or event. Default: the places of the preset, else the SHA-256 of the body.
    #[serde(default, deserialize_with = "maybe_places")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::submission::schema::places, required = false))]
    pub event_id: Option<Vec<Place>>,
    /// Task to create for each request, as in a subscription: `{"$event": "/data/id"}` stands for a value of
    /// the event that the request becomes. `run_at` and `expires_at` are not allowed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Submission>, required = false))]
    pub task: Option<Box<RawValue>>,
    /// Body of a task of kind `http`, if the payload has no body. Default `data`: the body of the request.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<EventBody>, required = false))]
    pub body: Option<EventBody>,
    /// Event to publish for each request.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<EventRule>, required = false))]
    pub event: Option<EventRule>,
    /// Response to a request that is stored. Default: the response of the preset, else an empty body with the
    /// status 200.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Respond>, required = false))]
    pub respond: Option<Respond>,
}

/// Proof that each request of a provider must contain: exactly one of `preset`, `hmac`, `token` and `basic`,
/// and an address in `networks`, if there are any. With `networks`, the other proof may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifySubmission {
    /// Provider whose scheme, event id and event type nobat knows.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_word")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<PresetName>, required = false))]
    pub preset: Option<PresetName>,
    /// Signature with a shared secret.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<HmacScheme>, required = false))]
    pub hmac: Option<HmacScheme>,
    /// Secret token in a header.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<TokenScheme>, required = false))]
    pub token: Option<TokenScheme>,
    /// User and password.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BasicScheme>, required = false))]
    pub basic: Option<BasicScheme>,
    /// Secrets that the provider and nobat share: 1 to 5 texts of 8 to 512 bytes. Each of them is valid, so
    /// that a secret can be replaced without an interruption. nobat encrypts the secrets and never shows them.
    /// If omitted, the stored secrets stay, unless the proof changes.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 5))]
    pub secrets: Option<Vec<String>>,
    /// Token that the provider sends in its check of the URL (`hub.verify_token` of Meta). nobat encrypts the
    /// token and never shows it. If omitted, the stored token stays.
    #[cfg_attr(feature = "openapi", schema(min_length = 8, max_length = 512))]
    pub verify_token: Option<String>,
    /// Maximum difference between the time of a signature and the current time, in seconds. Default 300.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86_400))]
    pub tolerance: Option<f64>,
    /// Networks of the provider, such as `203.0.113.0/24`: at most 100. Default: every client may send
    /// requests.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>, max_items = 100))]
    pub networks: Option<Vec<Network>>,
    /// URL of the source, exactly as the provider calls it. Required if the provider signs the URL, as Twilio
    /// and Square do.
    #[cfg_attr(feature = "openapi", schema(format = "uri", max_length = 2_048))]
    pub url: Option<String>,
}

/// Event to publish for each request of a source.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventRule {
    /// Type of the event: a JSON pointer (RFC 6901) into the body such as `/type`, `{"header": "X-Event"}`, or
    /// any other text for the same type in all events. Default: the place of the preset. A request without a
    /// value there becomes an event of the type `unknown`.
    #[serde(default, deserialize_with = "maybe_event_type")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::submission::schema::event_type, required = false))]
    pub r#type: Option<EventType>,
    /// Place of the subject of the event: a JSON pointer, or a header. Default: the event has no subject.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::submission::schema::subject, required = false))]
    pub subject: Option<Place>,
}

/// Data that the server adds to a source.
pub struct SourceContext<'a> {
    /// Source that the request replaces.
    pub current: Option<&'a Source>,
    /// Function that encrypts a secret.
    pub seal: &'a dyn Fn(&[u8]) -> Sealed,
    /// Function that encrypts a stored secret with the newest master key.
    pub renew: &'a dyn Fn(&Sealed) -> Sealed,
    /// Context of the template of a task.
    pub template: &'a SubmissionContext<'a>,
}

/// Maximum number of secrets of a source.
const MAX_SECRETS: usize = 5;
/// Minimum and maximum length of a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 8..=512;
const MAX_NETWORKS: usize = 100;
/// Maximum number of places of an event id.
const MAX_PLACES: usize = 5;
const MAX_USER: usize = 255;
/// Maximum length of the texts in a scheme, in bytes.
const MAX_TEXT: usize = 64;
const MAX_SEPARATOR: usize = 8;
const MAX_RESPONSE: usize = 4_096;
const MAX_CONTENT_TYPE: usize = 128;
const TOLERANCE: Bounds = Bounds::times(Duration::from_secs(1), Duration::from_hours(24));

impl SourceSubmission {
    /// Returns the submission that the template makes for a sample event, or all errors in the template.
    /// `None` if the source publishes events.
    pub fn sample_task(&self) -> Option<Result<Submission, Vec<FieldError>>> {
        let task = self.task.as_deref()?;
        let template = Json::from_outside(task).map_err(|error| vec![FieldError::new("", error.to_string())]);
        let event = sample_event();
        let json = event.to_json();
        let event = TemplateEvent { event: &event, json: &json };
        Some(template.and_then(|template| sample(&template, self.body.unwrap_or(EventBody::Data), &event)))
    }

    /// Returns the source, or all errors in the request.
    pub fn into_source(self, context: &SourceContext<'_>) -> Result<Source, Vec<FieldError>> {
        let (mut wrong, current) = (ValidationErrors::default(), context.current);
        if let Some(sample) = self.sample_task()
            && let Err(errors) = sample.and_then(|sample| sample.into_task(context.template))
        {
            wrong.0.extend(errors.into_iter().map(|error| error.under("/task")));
        }
        let body = self.body.unwrap_or(EventBody::Data);
        let target = match (self.task, self.event) {
            (Some(task), None) => {
                Json::from_outside(&task).ok().map(|template| SourceTarget::Task { template, body })
            }
            (None, Some(EventRule { r#type, subject })) => {
                if self.body.is_some() {
                    wrong.add("/body", "expected no `body`: it belongs to a source with `task`");
                }
                Some(SourceTarget::Event { event_type: r#type, subject })
            }
            (Some(_), Some(_)) => {
                wrong.add("/event", "`task` and `event` exclude each other; send one of them");
                None
            }
            (None, None) => {
                wrong.add("", "expected `task` or `event`");
                None
            }
        };
        if self.event_id.as_ref().is_some_and(|places| !(1..=MAX_PLACES).contains(&places.len())) {
            wrong.add("/event_id", format!("expected 1 to {MAX_PLACES} places"));
        }
        wrong.response(self.respond.as_ref());
        let mut under = ValidationErrors::default();
        let verify = under.verify(self.verify, context);
        wrong.0.extend(under.0.into_iter().map(|error| error.under("/verify")));
        match (target, verify) {
            (Some(target), Some(verify)) if wrong.0.is_empty() => Ok(Source {
                proof: verify.proof,
                secrets: verify.secrets,
                verify_token: verify.verify_token,
                tolerance: verify.tolerance,
                networks: verify.networks,
                url: verify.url,
                event_id: self.event_id,
                target,
                respond: self.respond,
                created_at: current.map_or(context.template.now, |current| current.created_at),
                version: current.map_or(0, |current| current.version) + 1,
            }),
            _ => Err(wrong.0),
        }
    }
}

/// Checked fields of a [`VerifySubmission`].
struct Verification {
    proof: Option<Proof>,
    secrets: Vec<Sealed>,
    verify_token: Option<Sealed>,
    tolerance: Duration,
    networks: Vec<Network>,
    url: Option<String>,
}

impl ValidationErrors {
    fn verify(&mut self, verify: VerifySubmission, context: &SourceContext<'_>) -> Option<Verification> {
        let VerifySubmission { preset, hmac, token, basic, secrets, verify_token, tolerance, networks, url } =
            verify;
        if let Some(hmac) = &hmac {
            self.hmac(hmac);
        }
        if let Some(TokenScheme { header, prefix }) = &token {
            self.header("/token/header", header);
            self.text("/token/prefix", prefix, MAX_TEXT);
        }
        if let Some(BasicScheme { user }) = &basic
            && (user.is_empty()
                || user.len() > MAX_USER
                || user.contains(':')
                || user.chars().any(is_invisible))
        {
            self.add("/basic/user", format!("expected 1 to {MAX_USER} bytes of text without a colon"));
        }
        let schemes = [hmac.map(Scheme::Hmac), token.map(Scheme::Token), basic.map(Scheme::Basic)];
        let schemes = schemes.into_iter().flatten().map(Proof::Scheme);
        let mut proofs: Vec<Proof> = preset.map(Proof::Preset).into_iter().chain(schemes).collect();
        let networks = networks.unwrap_or_default();
        if networks.len() > MAX_NETWORKS {
            self.add("/networks", format!("expected at most {MAX_NETWORKS} networks"));
        }
        if proofs.len() > 1 {
            self.add("", "`preset`, `hmac`, `token` and `basic` exclude each other; send one of them");
        } else if proofs.is_empty() && networks.is_empty() {
            self.add("", "expected one of `preset`, `hmac`, `token`, `basic` and `networks`");
        }
        let proof = proofs.pop();
        let tolerance = match tolerance {
            Some(seconds) => self.take("/tolerance", TOLERANCE.seconds(seconds))?,
            None => Source::DEFAULT_TOLERANCE,
        };
        let secrets = self.secrets(proof.as_ref(), secrets, context);
        let url = self.signed_url(proof.as_ref(), url);
        let verify_token = self.verify_token(proof.as_ref(), verify_token, context);
        Some(Verification { proof, secrets, verify_token, tolerance, networks, url })
    }

    fn hmac(&mut self, scheme: &HmacScheme) {
        match (&scheme.header, &scheme.pointer) {
            (Some(header), None) => self.header("/hmac/header", header),
            (None, Some(pointer)) if is_pointer(pointer) => {}
            (None, Some(_)) => {
                self.add("/hmac/pointer", "expected a JSON pointer (RFC 6901), such as \"/signature\"");
            }
            _ => self.add("/hmac", "expected either `header` or `pointer`, the place of the signature"),
        }
        self.text("/hmac/prefix", &scheme.prefix, MAX_TEXT);
        if let Some(separator) = &scheme.separator {
            self.text("/hmac/separator", separator, MAX_SEPARATOR);
            if separator.is_empty() {
                self.add("/hmac/separator", "expected a text that is not empty; omit it if there is none");
            }
        }
        match &scheme.timestamp {
            Some(TimestampPlace::Header(header)) => self.header("/hmac/timestamp/header", header),
            Some(TimestampPlace::Prefix(prefix)) => {
                self.text("/hmac/timestamp/prefix", prefix, MAX_TEXT);
                if prefix.is_empty() || scheme.separator.is_none() {
                    let detail = "expected a text that is not empty, and a `separator` between the elements";
                    self.add("/hmac/timestamp/prefix", detail);
                }
            }
            None => {}
        }
        // A client can change a time that is not signed.
        if scheme.content.contains(&Part::Timestamp) != scheme.timestamp.is_some() {
            let detail = "expected {timestamp} in `content` if, and only if, there is a `timestamp`";
            self.add("/hmac/content", detail);
        }
    }

    fn header(&mut self, pointer: &str, name: &str) {
        if !is_header(name) {
            self.add(
                pointer,
                "expected the name of a header: 1 to 64 letters, digits and characters such as -",
            );
        }
    }

    fn text(&mut self, pointer: &str, text: &str, max: usize) {
        if text.len() > max || text.chars().any(is_invisible) {
            self.add(pointer, format!("expected at most {max} bytes of text without control characters"));
        }
    }

    /// Returns the sealed secrets: the new ones, or those of the stored source.
    fn secrets(
        &mut self,
        proof: Option<&Proof>,
        secrets: Option<Vec<String>>,
        context: &SourceContext<'_>,
    ) -> Vec<Sealed> {
        let Some(proof) = proof else {
            if secrets.is_some() {
                self.add("/secrets", "expected no secrets: `networks` alone need none");
            }
            return Vec::new();
        };
        let Some(secrets) = secrets else {
            let current = context.current.filter(|current| current.proof.as_ref() == Some(proof));
            let Some(current) = current else {
                self.add("/secrets", format!("missing; expected 1 to {MAX_SECRETS} secrets"));
                return Vec::new();
            };
            return current.secrets.iter().map(context.renew).collect();
        };
        if !(1..=MAX_SECRETS).contains(&secrets.len()) {
            self.add("/secrets", format!("expected 1 to {MAX_SECRETS} secrets"));
        }
        for (index, secret) in secrets.iter().enumerate() {
            let key = match proof.scheme() {
                Scheme::Hmac(scheme) => scheme.key.key(secret.as_bytes()),
                Scheme::Token(_) | Scheme::Basic(_) => Some(secret.as_bytes().to_vec()),
            };
            if !is_secret(secret) || key.is_none_or(|key| key.len() < *SECRET_BYTES.start()) {
                self.add(&format!("/secrets/{index}"), INVALID_SECRET);
            }
        }
        secrets.iter().map(|secret| (context.seal)(secret.as_bytes())).collect()
    }

    fn verify_token(
        &mut self,
        proof: Option<&Proof>,
        token: Option<String>,
        context: &SourceContext<'_>,
    ) -> Option<Sealed> {
        let is_used = matches!(proof, Some(Proof::Preset(name)) if matches!(name.preset().challenge, Some(Challenge::Query { .. })));
        match token {
            Some(_) if !is_used => {
                self.add(
                    "/verify_token",
                    "expected no token: only the preset `meta` has this check of the URL",
                );
                None
            }
            Some(token) if !is_secret(&token) => {
                self.add("/verify_token", INVALID_SECRET);
                None
            }
            Some(token) => Some((context.seal)(token.as_bytes())),
            None => context.current.filter(|_| is_used)?.verify_token.as_ref().map(context.renew),
        }
    }

    fn signed_url(&mut self, proof: Option<&Proof>, url: Option<String>) -> Option<String> {
        let is_signed = matches!(proof.map(Proof::scheme), Some(Scheme::Hmac(scheme)) if scheme.content.contains(&Part::Url));
        match &url {
            Some(text) => {
                if let Err(error) = HttpUrl::parse(text) {
                    self.add("/url", error.to_string());
                }
            }
            None if is_signed => {
                self.add(
                    "/url",
                    "missing; the provider signs the URL, so send it exactly as the provider calls it",
                );
            }
            None => {}
        }
        url
    }

    fn response(&mut self, respond: Option<&Respond>) {
        let Some(Respond { status: _, body, content_type }) = respond else { return };
        if body.as_ref().is_some_and(|body| body.len() > MAX_RESPONSE) {
            self.add("/respond/body", format!("expected at most {MAX_RESPONSE} bytes"));
        }
        let is_fit = |text: &String| {
            (1..=MAX_CONTENT_TYPE).contains(&text.len())
                && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if content_type.as_ref().is_some_and(|text| !is_fit(text)) {
            let detail = format!("expected 1 to {MAX_CONTENT_TYPE} characters of printable ASCII");
            self.add("/respond/content_type", detail);
        }
    }
}

const INVALID_SECRET: &str = "expected 8 to 512 bytes without white space at the ends, in the encoding of the scheme, that are not all the same";

fn is_secret(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next();
    SECRET_BYTES.contains(&text.len()) && text.trim() == text && bytes.any(|byte| Some(byte) != first)
}

/// Reads one place, or an array of places.
fn maybe_places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Place>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Places {
        One(Place),
        Several(Vec<Place>),
    }
    match Option::<Places>::deserialize(deserializer) {
        Ok(places) => Ok(places.map(|places| match places {
            Places::One(place) => vec![place],
            Places::Several(places) => places,
        })),
        Err(_) => Err(serde::de::Error::custom(INVALID_PLACE)),
    }
}

fn maybe_event_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventType>, D::Error> {
    let is_fit = |text: &str| {
        (1..=255).contains(&text.len())
            && (!text.starts_with('/') || is_pointer(text))
            && !text.chars().any(is_invisible)
    };
    match Option::<EventType>::deserialize(deserializer) {
        Ok(Some(EventType::Text(text))) if !is_fit(&text) => Err(serde::de::Error::custom(INVALID_TYPE)),
        Ok(event_type) => Ok(event_type),
        Err(_) => Err(serde::de::Error::custom(INVALID_TYPE)),
    }
}

const INVALID_TYPE: &str = "expected a JSON pointer into the body such as \"/type\", {\"header\": \"X-Event\"}, or a type such as \"order.paid\"";

//! Inbound sources: providers that send webhooks, and the task or event that each webhook becomes.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::auth::network::Network;
use crate::config::record::{Record, RecordKind, RecordName};
use crate::config::subscription::EventBody;
use crate::events::cloud_event::{CloudEvent, EventData, MediaType};
use crate::json::Json;
use crate::secrets::vault::Sealed;
use crate::sources::preset::{Challenge, PresetName, Respond};
use crate::sources::request::{EventType, InboundRequest, Place};
use crate::sources::scheme::{Scheme, TimestampPlace};
use crate::sources::verify::Verifier;
use crate::types::name::{Name, Tenant};
use crate::types::sha256::sha256;
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Source of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Proof that each request must contain. `None`: the networks alone decide.
    pub proof: Option<Proof>,
    /// Secrets: keys of the signatures, tokens or passwords. Each of them is valid.
    pub secrets: Vec<Sealed>,
    /// Token of the check of the URL ([`Challenge::Query`]).
    pub verify_token: Option<Sealed>,
    /// Maximum difference between the time of a signature and the current time.
    pub tolerance: Duration,
    /// Networks of the provider. If the list is empty, any client may send requests.
    pub networks: Vec<Network>,
    /// URL of the source, as the provider calls it, if the provider signs it.
    pub url: Option<String>,
    /// Places whose values identify an event together. `None`: the places of the preset.
    pub event_id: Option<Vec<Place>>,
    /// Task or event that each request becomes.
    pub target: SourceTarget,
    /// Response to a stored request. `None`: the response of the preset.
    pub respond: Option<Respond>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Number of writes to the record, from 1.
    pub version: u64,
}

/// Proof that the provider adds to each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Proof of a known provider.
    Preset(PresetName),
    /// Any other scheme.
    Scheme(Scheme),
}

/// Task or event that a request becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceTarget {
    /// A task.
    Task {
        /// Template of the task, as the client sent it.
        template: Json,
        /// Body of a task of kind `http`.
        body: EventBody,
    },
    /// An event, for the subscriptions that select it.
    Event {
        /// Type of the event. `None`: the place of the preset.
        event_type: Option<EventType>,
        /// Place of the subject of the event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<Place>,
    },
}

/// Start of the attribute `source` of the events of sources. No client can publish an event with such a
/// `source`.
pub const SOURCE_PREFIX: &str = "/in/";

/// Type of an event if the request has no value at the place of the type.
pub const UNKNOWN_TYPE: &str = "unknown";

/// Maximum length of the texts that a request gives to an event, in bytes.
const MAX_TEXT: usize = 255;

/// Stored form of a [`Source`]. The record stores the version separately.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Sealed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify_token: Option<Sealed>,
    tolerance_s: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Network>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_id: Option<Vec<Place>>,
    target: SourceTarget,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    respond: Option<Respond>,
    created_at: Timestamp,
}

impl Source {
    /// Default of [`Source::tolerance`]: 5 minutes, as in the libraries of Standard Webhooks and of Stripe.
    pub const DEFAULT_TOLERANCE: Duration = Duration::from_mins(5);

    /// Returns the name of the record.
    pub fn record_name(tenant: &Tenant, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind: RecordKind::Source, name: name.clone() }
    }

    /// Returns the `place` argument of [`Vault::seal`](crate::secrets::vault::Vault::seal) for the secrets of a
    /// source.
    pub fn secret_context(tenant: &Tenant, name: &Name) -> String {
        format!("source/{tenant}/{name}")
    }

    /// Returns the record.
    pub fn record(&self, tenant: &Tenant, name: &Name) -> Record {
        let stored = Stored {
            proof: self.proof.clone(),
            secrets: self.secrets.clone(),
            verify_token: self.verify_token.clone(),
            tolerance_s: self.tolerance.as_secs(),
            networks: self.networks.clone(),
            url: self.url.clone(),
            event_id: self.event_id.clone(),
            target: self.target.clone(),
            respond: self.respond.clone(),
            created_at: self.created_at,
        };
        let body = serde_json::to_string(&stored).unwrap_or_else(|_| unreachable!("texts and JSON values"));
        Record { name: Self::record_name(tenant, name), version: self.version, body }
    }

    /// Reads the body of a record.
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_str(text).map_err(|_| Unreadable("a source"))?;
        Ok(Self {
            proof: stored.proof,
            secrets: stored.secrets,
            verify_token: stored.verify_token,
            tolerance: Duration::from_secs(stored.tolerance_s),
            networks: stored.networks,
            url: stored.url,
            event_id: stored.event_id,
            target: stored.target,
            respond: stored.respond,
            created_at: stored.created_at,
            version,
        })
    }

    /// Returns the rules that each request must meet.
    pub fn verifier(&self) -> Verifier<'_> {
        Verifier {
            scheme: self.proof.as_ref().map(Proof::scheme),
            tolerance: self.tolerance,
            networks: &self.networks,
            url: self.url.as_deref(),
            absent: self.preset().and_then(|preset| preset.preset().absent.as_deref()),
        }
    }

    /// Returns the check of the URL that the provider makes.
    pub fn challenge(&self) -> Option<&'static Challenge> {
        self.preset()?.preset().challenge.as_ref()
    }

    /// Returns the response to a stored request.
    pub fn response(&self) -> Respond {
        let of_preset = || self.preset()?.preset().respond.clone();
        self.respond.clone().or_else(of_preset).unwrap_or_default()
    }

    /// Returns true if the provider may change the body when it sends an event again.
    pub fn body_varies(&self) -> bool {
        self.preset().is_some_and(|preset| preset.preset().body_varies)
    }

    fn preset(&self) -> Option<PresetName> {
        match self.proof {
            Some(Proof::Preset(name)) => Some(name),
            _ => None,
        }
    }

    /// Returns the event of a verified request.
    ///
    /// The event keeps the body byte for byte, and takes its other attributes from the request. A request
    /// without a value for the id gets the SHA-256 of its body as id.
    pub fn event(&self, name: &Name, request: &InboundRequest<'_>, now: Timestamp) -> CloudEvent {
        let places = match (&self.event_id, self.preset()) {
            (Some(places), _) => &places[..],
            (None, Some(preset)) => &preset.preset().event_id[..],
            (None, None) => &[],
        };
        let id = event_id(places, request);
        let (event_type, subject) = match &self.target {
            SourceTarget::Event { event_type, subject } => (event_type.clone(), subject.as_ref()),
            SourceTarget::Task { .. } => (None, None),
        };
        let event_type = event_type.or_else(|| Some(self.preset()?.preset().event_type.clone()));
        let event_type = event_type.and_then(|event_type| match event_type {
            EventType::Text(text) => Some(text),
            EventType::Place(place) => request.value(&place),
        });
        CloudEvent {
            id,
            source: format!("{SOURCE_PREFIX}{name}"),
            event_type: event_type.filter(|text| is_text(text)).unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
            subject: subject.and_then(|place| request.value(place)).filter(|text| is_text(text)),
            time: now.to_string(),
            content_type: request.content_type().filter(|text| is_text(text)).map(str::to_owned),
            others: self.evidence(request),
            data: data(request),
        }
    }
}

impl Source {
    /// Returns attributes that, with the data, let a client verify the request again: the signature and its
    /// time as received, and the white space around a JSON body in base64.
    fn evidence(&self, request: &InboundRequest<'_>) -> BTreeMap<String, Json> {
        let mut attributes = BTreeMap::new();
        let mut add = |name: &str, text: &str| {
            if let Some(text) =
                Some(text).filter(|text| is_text(text)).and_then(|text| Json::from_value(text).ok())
            {
                attributes.insert(name.to_owned(), text);
            }
        };
        if let Some(Scheme::Hmac(scheme)) = self.proof.as_ref().map(Proof::scheme) {
            if let Some(signature) = scheme.header.as_ref().and_then(|header| request.header(header)) {
                add("signature", signature);
            }
            if let Some(TimestampPlace::Header(header)) = &scheme.timestamp {
                add("signaturetime", request.header(header).unwrap_or_default());
            }
        }
        if request.json_body().is_some() {
            let start = request.body.len() - request.body.trim_ascii_start().len();
            let end = start + request.body.trim_ascii().len();
            add("bodystart", &BASE64.encode(&request.body[..start]));
            add("bodyend", &BASE64.encode(&request.body[end..]));
        }
        attributes
    }
}

/// Returns the body as the data of an event: JSON as it is, a text or a form as a string, all else in base64.
fn data(request: &InboundRequest<'_>) -> Option<EventData> {
    if request.body.is_empty() {
        return None;
    }
    if let Some(json) = request.json_body() {
        return Some(EventData::Json(json.clone()));
    }
    let is_text = request.is_form() || MediaType::of(request.content_type()) == MediaType::Text;
    let text = std::str::from_utf8(request.body).ok().filter(|_| is_text);
    match text.and_then(|text| Json::from_value(text).ok()) {
        Some(text) => Some(EventData::Json(text)),
        None => Some(EventData::Base64(BASE64.encode(request.body))),
    }
}

/// Returns the id of an event: the values at the places, separated by colons. If that would not be unique or
/// not fit, the id is a hash of the values. Without any value, it is the SHA-256 of the body.
fn event_id(places: &[Place], request: &InboundRequest<'_>) -> String {
    let values: Vec<Option<String>> = places.iter().map(|place| request.value(place)).collect();
    if values.iter().all(Option::is_none) {
        return HEXLOWER.encode(&sha256(&[request.body]));
    }
    let complete: Option<Vec<&str>> = values.iter().map(Option::as_deref).collect();
    let is_unique = |values: &Vec<&str>| values.len() == 1 || values.iter().all(|value| !value.contains(':'));
    let id = complete.filter(is_unique).map(|values| values.join(":")).filter(|id| is_text(id));
    id.unwrap_or_else(|| HEXLOWER.encode(&hash(&values)))
}

/// Returns true if an attribute of an event may have this text.
fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(crate::types::field_error::is_invisible)
}

/// Returns the SHA-256 of several values.
fn hash(values: &[Option<String>]) -> [u8; 32] {
    let text = |value: &Option<String>| {
        value.as_ref().map_or("-".to_owned(), |text| format!("{}:{text}", text.len()))
    };
    let texts: Vec<_> = values.iter().map(text).collect();
    sha256(&texts.iter().map(String::as_bytes).collect::<Vec<_>>())
}

impl Proof {
    /// Returns the scheme.
    pub fn scheme(&self) -> &Scheme {
        match self {
            Self::Preset(name) => &name.preset().scheme,
            Self::Scheme(scheme) => scheme,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_with_different_values_have_different_ids() {
        let id = |places: &[&str], body: &str| {
            let places: Vec<_> = places.iter().map(|place| Place::Pointer((*place).to_owned())).collect();
            event_id(&places, &InboundRequest::new(vec![], None, body.as_bytes()))
        };
        assert_eq!(id(&["/a"], r#"{"a":"x:y"}"#), "x:y");
        assert_eq!(id(&["/a", "/b"], r#"{"a":"x","b":7}"#), "x:7");
        let ids = [
            r#"{"a":"x"}"#,
            r#"{"b":"x"}"#,
            r#"{"a":"x:y","b":"z"}"#,
            r#"{"a":"x","b":"y:z"}"#,
            r#"{"a":"x","b":"y"}"#,
            r#"{"c":"x"}"#,
            r#"{"c":"y"}"#,
        ];
        let ids: std::collections::BTreeSet<_> = ids.iter().map(|body| id(&["/a", "/b"], body)).collect();
        assert_eq!(ids.len(), 7);
        assert_eq!(id(&["/a"], &format!(r#"{{"a":"{}"}}"#, "x".repeat(256))).len(), 64);
    }
}

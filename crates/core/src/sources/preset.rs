//! Presets: the schemes and fields of well-known providers. They are data in `presets.json`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize};

use crate::sources::request::{EventType, InboundRequest, Place};
use crate::sources::scheme::Scheme;
use crate::types::bounds::Bounds;

/// Provider whose webhooks nobat knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PresetName {
    /// Adyen, standard webhooks with an HMAC key.
    Adyen,
    /// GitHub.
    Github,
    /// GitLab, with a secret token.
    Gitlab,
    /// Meta: Facebook, Instagram, and Messenger.
    Meta,
    /// Paddle Billing.
    Paddle,
    /// Shopify.
    Shopify,
    /// Slack: events, commands and interactions.
    Slack,
    /// Square.
    Square,
    /// Any provider that follows Standard Webhooks 1.0.0.
    StandardWebhooks,
    /// Stripe.
    Stripe,
    /// Telegram bots.
    Telegram,
    /// Twilio, with form bodies.
    Twilio,
}

/// Scheme and fields of a provider.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Proof that the provider adds to each request.
    pub scheme: Scheme,
    /// Places whose values identify an event of the provider together.
    pub event_id: Vec<Place>,
    /// Type of the event.
    pub event_type: EventType,
    /// Pointer to a value that no request may have, because the signature does not cover it.
    #[serde(default)]
    pub absent: Option<String>,
    /// True if the provider may change the body when it sends an event again.
    #[serde(default)]
    pub body_varies: bool,
    /// Check of the URL that the provider makes before it sends events.
    #[serde(default)]
    pub challenge: Option<Challenge>,
    /// Response that the provider expects.
    #[serde(default)]
    pub respond: Option<Respond>,
}

/// Check of the URL of a source: the response must contain a value of the request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Challenge {
    /// Request with a signature, like an event.
    Body {
        /// Pointer to the value that distinguishes the check from an event.
        when: String,
        /// The value.
        equals: String,
        /// Pointer to the value to return.
        answer: String,
    },
    /// `GET` request. The parameter `token` must be the `verify_token` of the source.
    Query {
        /// Parameter with the token.
        token: String,
        /// Parameter with the value to return.
        answer: String,
    },
}

/// Response to a request that nobat has stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Respond {
    /// Status. Default 200.
    #[serde(default, deserialize_with = "status", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required = false, minimum = 200, maximum = 299))]
    pub status: Option<u16>,
    /// Body. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 4_096))]
    pub body: Option<String>,
    /// Content type of the body. Default `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    pub content_type: Option<String>,
}

/// Statuses of a response to a stored request.
const STATUS: Bounds = Bounds::new(200.0, 299.0);

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    let status = STATUS.whole(number).map_err(serde::de::Error::custom)?;
    Ok(u16::try_from(status.get()).ok())
}

static PRESETS: LazyLock<BTreeMap<PresetName, Preset>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("presets.json"))
        .unwrap_or_else(|_| unreachable!("a test reads the presets"))
});

impl PresetName {
    /// Returns the scheme and fields of the provider.
    pub fn preset(self) -> &'static Preset {
        &PRESETS[&self]
    }
}

impl Challenge {
    /// Returns the value that the response to a verified request must contain, if the request is a check.
    pub fn answer(&self, request: &InboundRequest<'_>) -> Option<String> {
        let Self::Body { when, equals, answer } = self else { return None };
        let is_check = request.field(when).is_some_and(|value| value == *equals);
        is_check.then(|| request.field(answer))?
    }
}

#[cfg(test)]
mod tests;

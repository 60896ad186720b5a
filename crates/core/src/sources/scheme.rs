//! Schemes by which providers prove that they sent a webhook.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sources::request::{is_header, is_pointer};
use crate::types::serde_as_text::serde_as_text;

/// Proof that the provider adds to each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// Signature with a shared secret.
    Hmac(HmacScheme),
    /// Secret token in a header.
    Token(TokenScheme),
    /// User and password (RFC 7617).
    Basic(BasicScheme),
}

/// Signature of a request with a shared secret (HMAC, RFC 2104).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HmacScheme {
    /// Header with the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(example = "X-Signature", pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
    )]
    pub header: Option<String>,
    /// JSON pointer (RFC 6901) to the signature in the body, instead of `header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^/", max_length = 255))]
    pub pointer: Option<String>,
    /// Hash function. Default `sha256`.
    #[serde(default, deserialize_with = "crate::json::decode::word")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub algorithm: Algorithm,
    /// Encoding of the signature. Default `hex`.
    #[serde(default, deserialize_with = "crate::json::decode::word")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub encoding: Encoding,
    /// Text in front of the signature, such as `sha256=`. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false, max_length = 64))]
    pub prefix: String,
    /// Text between the elements of the header. Only the elements that start with `prefix` are signatures, and
    /// one valid signature is enough. Default: the header has one element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 8))]
    pub separator: Option<String>,
    /// Signed content: a text with placeholders. `{body}` is the body, `{timestamp}` the text at `timestamp`,
    /// `{url}` the `url` of the source, `{form}` the fields of a form in the order of their names, each name
    /// followed by its value. `{header:X-Id}` is a header, and `{/id}` a value in the body. Default `{body}`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String, required = false, max_length = 1_024, example = "{timestamp}.{body}"))]
    pub content: Content,
    /// Time of the signature, in seconds since 1970-01-01T00:00:00Z. nobat refuses a request whose time differs
    /// from its own by more than the tolerance. Default: the requests have no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampPlace>,
    /// Conversion of the secret into the key. Default `text`.
    #[serde(default, deserialize_with = "crate::json::decode::word")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub key: KeyEncoding,
}

/// Secret token in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenScheme {
    /// Header with the token.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "X-Token", pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
    )]
    pub header: String,
    /// Text in front of the token, such as `Bearer `. Default: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false, max_length = 64))]
    pub prefix: String,
}

/// User and password in the header `Authorization` (RFC 7617). The secrets are the passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BasicScheme {
    /// User.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255, pattern = "^[^:]*$"))]
    pub user: String,
}

/// Hash function of an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Algorithm {
    /// SHA-1, for providers that offer nothing newer.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Encoding of a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Encoding {
    /// Hexadecimal digits in upper or lower case.
    #[default]
    Hex,
    /// Base64 (RFC 4648, section 4).
    Base64,
}

/// Conversion of a secret into the key of the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyEncoding {
    /// The key is the UTF-8 text of the secret.
    #[default]
    Text,
    /// The secret is the key in hexadecimal digits.
    Hex,
    /// The secret is the key in base64, with or without the prefix `whsec_`.
    Base64,
}

/// Place of the time of a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TimestampPlace {
    /// Header with this name.
    Header(String),
    /// Element of the signature's header that starts with this text, such as `t=`.
    Prefix(String),
}

/// Signed content: texts and placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(pub(crate) Vec<Part>);

/// Part of the signed content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Body,
    Timestamp,
    Url,
    Form,
    Header(String),
    Pointer(String),
}

/// The text is not a template of signed content.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a text of at most {MAX_CONTENT} bytes and {MAX_PARTS} parts with {{body}}, {{form}} or a value of the body such as {{/id}}; other placeholders are {{timestamp}}, {{url}} and {{header:NAME}}"
)]
pub struct InvalidContent;

/// Maximum length of a template of signed content, in bytes.
const MAX_CONTENT: usize = 1_024;
/// Maximum number of texts and placeholders in a template.
const MAX_PARTS: usize = 32;

impl Content {
    /// Returns true if the content contains the part.
    pub(crate) fn contains(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl Default for Content {
    fn default() -> Self {
        Self(vec![Part::Body])
    }
}

impl FromStr for Content {
    type Err = InvalidContent;

    fn from_str(text: &str) -> Result<Self, InvalidContent> {
        if text.len() > MAX_CONTENT {
            return Err(InvalidContent);
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(InvalidContent)?;
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            parts.push(match name {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                "url" => Part::Url,
                "form" => Part::Form,
                pointer if is_pointer(pointer) => Part::Pointer(pointer.to_owned()),
                name => match name.strip_prefix("header:") {
                    Some(header) if is_header(header) => Part::Header(header.to_owned()),
                    _ => return Err(InvalidContent),
                },
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        // A signature that covers no part of the body does not protect the body.
        if parts.len() > MAX_PARTS {
            return Err(InvalidContent);
        }
        let covers_body = |part: &Part| matches!(part, Part::Body | Part::Form | Part::Pointer(_));
        if parts.iter().any(covers_body) { Ok(Self(parts)) } else { Err(InvalidContent) }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Body => f.write_str("{body}"),
            Part::Timestamp => f.write_str("{timestamp}"),
            Part::Url => f.write_str("{url}"),
            Part::Form => f.write_str("{form}"),
            Part::Header(name) => write!(f, "{{header:{name}}}"),
            Part::Pointer(pointer) => write!(f, "{{{pointer}}}"),
        })
    }
}

serde_as_text!(Content);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_read_back_as_written() {
        for text in [
            "{body}",
            "v0:{timestamp}:{body}",
            "{header:webhook-id}.{timestamp}.{body}",
            "{url}{form}",
            "{/a/b}:{/c}",
        ] {
            assert_eq!(text.parse::<Content>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn content_that_does_not_cover_the_body_is_refused() {
        for text in ["", "x", "{timestamp}", "{url}", "{header:a}", "{body", "{nobody}", "{header:a b}{body}"]
        {
            assert_eq!(text.parse::<Content>(), Err(InvalidContent), "{text}");
        }
    }
}

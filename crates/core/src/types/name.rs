//! Names of queues, kinds and tenants.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Name of 1 to 64 characters from `A-Z a-z 0-9 . _ -`.
///
/// The set is small on purpose: names appear in index keys, URLs, messages and metrics, and must have the
/// same meaning everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// The text is not a [`Name`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a name: 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct InvalidName;

impl Name {
    /// Checks the text and creates a name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if Self::is_valid(text) { Ok(Self(text.into())) } else { Err(InvalidName) }
    }

    /// Creates a name from a text in the source code.
    pub(crate) fn constant(text: &'static str) -> Self {
        debug_assert!(Self::is_valid(text), "not a name: {text}");
        Self(text.into())
    }

    /// Returns true if the text is a valid name. `const`, so that the compiler can check a name in the
    /// source.
    pub const fn is_valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut place = 0;
        while place < bytes.len() {
            if !(bytes[place].is_ascii_alphanumeric() || matches!(bytes[place], b'.' | b'_' | b'-')) {
                return false;
            }
            place += 1;
        }
        !bytes.is_empty() && bytes.len() <= 64
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

/// Tenant that owns tasks and configuration. Every stored key, query and hint belongs to one tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Name);

impl Tenant {
    /// Checks the text and creates a tenant's name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        Name::new(text).map(Self)
    }

    /// Returns the tenant's name.
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// Returns the tenant's name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Default for Tenant {
    /// Returns the tenant `default`, for an installation with only one tenant.
    fn default() -> Self {
        static DEFAULT: std::sync::LazyLock<Tenant> =
            std::sync::LazyLock::new(|| Tenant(Name("default".into())));
        DEFAULT.clone()
    }
}

impl From<Name> for Tenant {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_other_characters_is_refused() {
        assert!(Name::new("Orders.eu-1_b").is_ok());
        let long = "x".repeat(65);
        for text in ["", " ", "a b", "a/b", "nul\0", "\u{202e}abc", "ключ", long.as_str()] {
            assert_eq!(Name::new(text), Err(InvalidName), "{text:?}");
        }
    }
}

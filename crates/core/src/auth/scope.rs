//! Scopes: rights of API keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Right of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit tasks and cancel them.
    TasksWrite,
    /// Read tasks without their payloads and results.
    TasksRead,
    /// Read the payloads and results of tasks.
    PayloadView,
    /// Replay ended tasks.
    TasksReplay,
    /// Change the configuration of the key's tenant.
    ConfigWrite,
    /// Claim tasks, as a worker does.
    Work,
    /// Manage keys and tenants of the whole installation, and read its audit trail. Includes no other scope.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::TasksWrite,
        Self::TasksRead,
        Self::PayloadView,
        Self::TasksReplay,
        Self::ConfigWrite,
        Self::Work,
        Self::Admin,
    ];

    /// Returns the name of the scope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TasksWrite => "tasks:write",
            Self::TasksRead => "tasks:read",
            Self::PayloadView => "payload:view",
            Self::TasksReplay => "tasks:replay",
            Self::ConfigWrite => "config:write",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }
}

/// The text is not a scope.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a scope: tasks:write, tasks:read, payload:view, tasks:replay, config:write, work or admin")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(word: &str) -> Result<Self, InvalidScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word).ok_or(InvalidScope)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
        word.parse().map_err(de::Error::custom)
    }
}

/// Set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Returns all scopes. Clients of an installation without API keys have all scopes.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Returns true if the set contains the scope.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Returns true if the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the scopes of the set, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

const fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | bit(scope)))
    }
}

impl FromStr for Scopes {
    type Err = InvalidScope;

    /// Reads scopes separated by commas.
    fn from_str(words: &str) -> Result<Self, InvalidScope> {
        words.split(',').map(|word| word.trim().parse()).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Scope>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_back_as_written() {
        for scope in Scope::ALL {
            let only: Scopes = [scope].into_iter().collect();
            assert_eq!((only.to_string().parse(), only.iter().collect::<Vec<_>>()), (Ok(only), vec![scope]));
        }
        assert_eq!(Scopes::all().to_string().parse(), Ok(Scopes::all()));
        assert_eq!(
            "tasks:read, tasks:write".parse::<Scopes>().unwrap().to_string(),
            "tasks:write,tasks:read"
        );
        assert_eq!("tasks:reed".parse::<Scopes>(), Err(InvalidScope));
        assert_eq!("".parse::<Scopes>(), Err(InvalidScope));
        let json = r#"["work","admin"]"#;
        let read: Scopes = serde_json::from_str(json).unwrap();
        assert_eq!(
            (serde_json::to_string(&read).unwrap().as_str(), format!("{read:?}").as_str()),
            (json, "work,admin")
        );
    }

    #[test]
    fn scope_named_twice_is_in_the_set() {
        let twice: Scopes = "work,work".parse().unwrap();
        assert!(twice.contains(Scope::Work) && !twice.is_empty());
        assert!(Scopes::default().is_empty() && !Scopes::default().contains(Scope::Work));
    }
}

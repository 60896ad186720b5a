//! The audit trail: who changed what, and when. What a key submitted stands on the task itself.

use std::fmt;
use std::str::FromStr;

use crate::key::KeyId;
use crate::name::Tenant;
use crate::time::Timestamp;

/// One thing that somebody did. It is written together with what was done, and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// To whose things it was done.
    pub tenant: Tenant,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// To what: the id of a task or a key, or the name of a tenant.
    pub object: String,
    /// Random; tells two entries of one moment apart.
    pub mark: u64,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever has this key.
    Key(KeyId),
    /// Whoever could reach an installation that asks for no keys.
    Anybody,
    /// Whoever could open the file, or write to the table, without the API.
    Operator,
    /// nobat itself, on what it was told while it did a task.
    Worker,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Anybody => f.write_str("anybody"),
            Self::Operator => f.write_str("operator"),
            Self::Worker => f.write_str("worker"),
        }
    }
}

/// The text does not name an actor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody's name in the audit trail")]
pub struct UnknownWord;

impl FromStr for Actor {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "anybody" => Ok(Self::Anybody),
            "operator" => Ok(Self::Operator),
            "worker" => Ok(Self::Worker),
            id => id.parse().map(Self::Key).map_err(|_| UnknownWord),
        }
    }
}

/// The closed list of what is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A task was called off.
    TaskCanceled,
    /// A task was begun again.
    TaskReplayed,
    /// A key was made.
    KeyCreated,
    /// A key was replaced by another.
    KeyRotated,
    /// A key was made useless.
    KeyRevoked,
    /// What is laid down for a tenant was changed.
    TenantChanged,
    /// What a tenant's callbacks are signed with was set, without an overlap.
    CallbackSecretSet,
    /// It was set with an overlap.
    CallbackSecretRotated,
    /// It was removed.
    CallbackSecretRemoved,
    /// An endpoint was made, or changed.
    EndpointChanged,
    /// What an endpoint's requests are signed with was replaced.
    EndpointSecretRotated,
    /// An endpoint was paused.
    EndpointPaused,
    /// It was opened again.
    EndpointResumed,
    /// It said that it is gone for good.
    EndpointGone,
    /// It was removed.
    EndpointRemoved,
    /// What is laid down for a queue was changed.
    QueueChanged,
    /// What is laid down for a kind was changed.
    KindChanged,
    /// What is laid down for a flow key was changed.
    FlowChanged,
    /// Something that a later version has put on record, and has a word for.
    Other,
}

impl Action {
    /// Every action that there is a word for.
    pub const ALL: [Self; 18] = [
        Self::TaskCanceled,
        Self::TaskReplayed,
        Self::KeyCreated,
        Self::KeyRotated,
        Self::KeyRevoked,
        Self::TenantChanged,
        Self::CallbackSecretSet,
        Self::CallbackSecretRotated,
        Self::CallbackSecretRemoved,
        Self::EndpointChanged,
        Self::EndpointSecretRotated,
        Self::EndpointPaused,
        Self::EndpointResumed,
        Self::EndpointGone,
        Self::EndpointRemoved,
        Self::QueueChanged,
        Self::KindChanged,
        Self::FlowChanged,
    ];

    /// What that word stands for.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|action| action.as_str() == word).unwrap_or(Self::Other)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskCanceled => "task.canceled",
            Self::TaskReplayed => "task.replayed",
            Self::KeyCreated => "key.created",
            Self::KeyRotated => "key.rotated",
            Self::KeyRevoked => "key.revoked",
            Self::TenantChanged => "tenant.changed",
            Self::CallbackSecretSet => "callback_secret.set",
            Self::CallbackSecretRotated => "callback_secret.rotated",
            Self::CallbackSecretRemoved => "callback_secret.removed",
            Self::EndpointChanged => "endpoint.changed",
            Self::EndpointSecretRotated => "endpoint.secret_rotated",
            Self::EndpointPaused => "endpoint.paused",
            Self::EndpointResumed => "endpoint.resumed",
            Self::EndpointGone => "endpoint.gone",
            Self::EndpointRemoved => "endpoint.removed",
            Self::QueueChanged => "queue.changed",
            Self::KindChanged => "kind.changed",
            Self::FlowChanged => "flow.changed",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyText;

    #[test]
    fn words_are_read_back() {
        for action in Action::ALL {
            assert_eq!(Action::of(action.as_str()), action);
        }
        assert_eq!(Action::of("key.polished"), Action::Other, "so that a trail is read that a later version went on with");
        for actor in [Actor::Anybody, Actor::Operator, Actor::Worker, Actor::Key(KeyText::new([3; 20]).digest().id())] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        assert_eq!("nobody".parse::<Actor>(), Err(UnknownWord));
    }
}

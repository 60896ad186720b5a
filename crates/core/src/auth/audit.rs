//! Audit trail: a record of each change, its time and its actor. The trail contains no submissions, because
//! each task stores the API key that submitted the task.

use std::fmt;
use std::str::FromStr;

use crate::auth::api_key::KeyId;
use crate::types::name::Tenant;
use crate::types::time::Timestamp;

/// Entry of the audit trail. The store writes the entry together with the change, and never changes the
/// entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Tenant whose data the actor changed.
    pub tenant: Tenant,
    /// Time of the change.
    pub at: Timestamp,
    /// Actor that made the change.
    pub actor: Actor,
    /// Kind of change.
    pub action: Action,
    /// Target of the change: the ID of a task or an API key, or the name of a tenant, endpoint, queue, kind
    /// or limit key.
    pub target: String,
    /// Random number that distinguishes two entries of the same time.
    pub mark: u64,
}

/// Actor that made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Client with this API key.
    Key(KeyId),
    /// Client of an installation that requires no API keys.
    Anonymous,
    /// Operator who changed the SQLite file or the DynamoDB table without the API.
    Operator,
    /// Worker, because of the outcome of a task that it ran.
    Worker,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Operator => f.write_str("operator"),
            Self::Worker => f.write_str("worker"),
        }
    }
}

/// The text does not name an actor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an actor of the audit trail: `anonymous`, `operator`, `worker` or the id of an API key")]
pub struct UnknownWord;

impl FromStr for Actor {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "anonymous" => Ok(Self::Anonymous),
            "operator" => Ok(Self::Operator),
            "worker" => Ok(Self::Worker),
            id => id.parse().map(Self::Key).map_err(|_| UnknownWord),
        }
    }
}

/// Action in the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client canceled a task.
    TaskCanceled,
    /// A client replayed a task.
    TaskReplayed,
    /// An API key was created.
    KeyCreated,
    /// An API key was replaced by another.
    KeyRotated,
    /// An API key was revoked.
    KeyRevoked,
    /// The settings of a tenant were changed.
    TenantChanged,
    /// The signing secret of a tenant's callbacks was set, without a grace period for the previous secret.
    CallbackSecretSet,
    /// The signing secret of a tenant's callbacks was set, with a grace period for the previous secret.
    CallbackSecretRotated,
    /// The signing secrets of a tenant's callbacks were removed.
    CallbackSecretRemoved,
    /// An endpoint was created or changed.
    EndpointChanged,
    /// The signing secret of an endpoint was replaced.
    EndpointSecretRotated,
    /// An endpoint was paused.
    EndpointPaused,
    /// An endpoint was resumed.
    EndpointResumed,
    /// An endpoint responded with 410 (Gone). Workers no longer call the endpoint.
    EndpointGone,
    /// An endpoint was removed.
    EndpointRemoved,
    /// The configuration of a queue was changed.
    QueueChanged,
    /// The configuration of a kind was changed.
    KindChanged,
    /// The configuration of a limit key was changed.
    LimitsChanged,
    /// A subscription was created or changed.
    SubscriptionChanged,
    /// A subscription was removed.
    SubscriptionRemoved,
    /// A schedule was created, changed, paused or resumed.
    ScheduleChanged,
    /// A schedule was removed.
    ScheduleRemoved,
    /// A source was created or changed.
    SourceChanged,
    /// A source was removed.
    SourceRemoved,
    /// An action that only a later version of nobat knows.
    Other,
}

impl Action {
    /// All actions except [`Action::Other`].
    pub const ALL: [Self; 24] = [
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
        Self::LimitsChanged,
        Self::SubscriptionChanged,
        Self::SubscriptionRemoved,
        Self::ScheduleChanged,
        Self::ScheduleRemoved,
        Self::SourceChanged,
        Self::SourceRemoved,
    ];

    /// Returns the action for this word. Returns [`Action::Other`] for an unknown word.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|action| action.as_str() == word).unwrap_or(Self::Other)
    }

    /// Returns the word for the action.
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
            Self::LimitsChanged => "limits.changed",
            Self::SubscriptionChanged => "subscription.changed",
            Self::SubscriptionRemoved => "subscription.removed",
            Self::ScheduleChanged => "schedule.changed",
            Self::ScheduleRemoved => "schedule.removed",
            Self::SourceChanged => "source.changed",
            Self::SourceRemoved => "source.removed",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::api_key::KeyText;

    #[test]
    fn words_are_read_back() {
        for action in Action::ALL {
            assert_eq!(Action::of(action.as_str()), action);
        }
        assert_eq!(
            Action::of("key.polished"),
            Action::Other,
            "an action of a later version is read as `Other`"
        );
        for actor in [
            Actor::Anonymous,
            Actor::Operator,
            Actor::Worker,
            Actor::Key(KeyText::new([3; 20]).digest().id()),
        ] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        assert_eq!("nobody".parse::<Actor>(), Err(UnknownWord));
    }
}

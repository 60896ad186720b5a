//! Error of a stored value that cannot be read.

/// The text was written by another version, or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be read")]
pub struct Unreadable(pub &'static str);

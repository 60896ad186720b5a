//! Error of a stored value that cannot be read.

/// Error: a stored text is damaged, or was written by another version of nobat. Contains a description of the
/// text.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be read")]
pub struct Unreadable(pub &'static str);

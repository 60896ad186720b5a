//! Parameters of pages.

/// Default number of elements of a page.
pub(crate) const DEFAULT_LIMIT: usize = 50;

const MAX_LIMIT: usize = 100;

/// Description of what [`limit`] accepts.
pub(crate) const EXPECTED_LIMIT: &str = "a number from 1 to 100";

/// Description of a valid name.
pub(crate) const EXPECTED_NAME: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ -";

/// Parses the number of elements of a page: 1 to 100.
pub(crate) fn limit(text: &str) -> Option<usize> {
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
}

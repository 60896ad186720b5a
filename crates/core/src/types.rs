//! Values that all other parts use.

pub mod authority;
pub mod bounds;
pub mod encoding;
pub mod field_error;
pub mod held_reason;
pub mod http_status;
pub mod http_url;
pub mod id;
pub mod intervals;
pub mod jitter_sample;
pub mod name;
pub(crate) mod serde_as_text;
pub mod sha256;
pub mod time;
pub mod unreadable;

//! Parts of requests and responses that all routes share.

pub(crate) mod body;
pub(crate) mod cursor;
pub(crate) mod error_code;
pub(crate) mod idempotency;
pub(crate) mod options;
pub(crate) mod page;
pub(crate) mod path;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod response;
pub(crate) mod structured_field;

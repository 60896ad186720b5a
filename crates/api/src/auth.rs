//! Authentication of clients, and their rights.

pub(crate) mod cache;
pub(crate) mod extract;
pub(crate) mod lookups;
pub(crate) mod policy;
pub(crate) mod principal;
pub(crate) mod token_holder;

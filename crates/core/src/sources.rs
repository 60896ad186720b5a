//! Inbound sources: webhooks of providers, their verification, and the events that they become.

pub mod preset;
pub mod request;
pub mod scheme;
pub mod verify;

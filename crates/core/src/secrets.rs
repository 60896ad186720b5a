//! Signing secrets, and their encryption.

pub mod secret_set;
pub mod vault;
pub mod webhook;

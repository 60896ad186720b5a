//! Handlers of all routes, one file for each resource.

pub(crate) mod audit;
pub(crate) mod callback_secret;
mod config_update;
pub(crate) mod endpoints;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod queues;
mod rotation;
pub(crate) mod tasks;
pub(crate) mod tenants;
mod wake;

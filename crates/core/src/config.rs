//! Configuration of tenants, queues, kinds and endpoints.

pub mod callback_secret;
pub mod endpoint;
pub mod kind;
pub mod queue;
pub mod record;
pub mod task_config;
pub mod tenant;

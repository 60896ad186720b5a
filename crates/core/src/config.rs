//! Configuration of tenants, queues, kinds, endpoints, subscriptions and schedules.

pub mod callback_secret;
pub mod endpoint;
pub mod kind;
pub mod queue;
pub mod record;
pub mod schedule;
pub mod source;
pub mod source_counts;
pub mod subscription;
pub mod task_config;
pub mod tenant;

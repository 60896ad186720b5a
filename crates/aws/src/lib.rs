//! The AWS backend: tasks in one `DynamoDB` table, hints in one message queue of Amazon SQS.
//!
//! A task is one item. The message queue carries hints that say "this task may be due". A lost hint costs
//! only time: the sweeper finds tasks by their sweep time in the index `sweep`. Writes that must not be
//! repeated carry a random id. If the first try succeeded but its response was lost, the second try finds
//! this id in the item. No other crate uses types of the AWS SDK.

mod client;
mod config_store;
mod data_key;
mod due;
mod error;
mod expression;
pub mod hint;
mod insert;
mod item;
mod keys;
mod limiter_store;
mod list;
mod list_turns;
pub mod meter;
mod overflow;
mod queue;
mod store;
mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aws_config::SdkConfig;
use nobat_core::collections::recent::Recent;
use nobat_core::secrets::vault::VaultSource;
use nobat_core::service::backend::Backend;
use nobat_core::types::sha256::sha256;
use parking_lot::Mutex;

use crate::data_key::DataKey;
use crate::list_turns::ListTurns;
use crate::meter::Meter;
use crate::queue::Sqs;
use crate::table::{MAX_BUCKETS, Table};

/// Table, message queue and retention. The SDK reads all other settings from its own environment variables.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the table.
    pub table: String,
    /// URL of the message queue.
    pub queue_url: String,
    /// Retention of ended tasks.
    pub retention: Duration,
}

/// No AWS region is configured.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is set: set AWS_REGION, or a region in the AWS configuration file")]
pub struct NoRegion;

/// Time between two counts of the pending tasks of a tenant with a quota. To count the tasks of one tenant,
/// the store may have to read the index entries of all tenants, so counts are rare.
pub const RECOUNT: Duration = Duration::from_secs(30);

/// Creates a backend for a table and a message queue. Makes no calls.
pub async fn connect(settings: &Settings) -> Result<Backend, NoRegion> {
    let config = client::config().await;
    if config.region().is_none() {
        return Err(NoRegion);
    }
    Ok(backend(settings, client::clients(&config, None)))
}

/// Creates a backend for an AWS emulator. `url` and test credentials replace the settings from the
/// environment.
pub async fn connect_to_emulator(settings: &Settings, url: &str) -> Backend {
    backend(settings, client::clients(&client::emulated(url).await, None))
}

/// Creates a backend for an AWS emulator. `meter` counts the backend's calls.
pub async fn connect_to_emulator_with(settings: &Settings, url: &str, meter: &Meter) -> Backend {
    backend(settings, client::clients(&client::emulated(url).await, Some(meter)))
}

/// Creates a vault whose master key is in the table, encrypted by the KMS key `kms_key` (id or ARN). Makes no
/// calls.
pub async fn vault(table: &str, kms_key: &str) -> Result<Arc<dyn VaultSource>, NoRegion> {
    let config = client::config().await;
    if config.region().is_none() {
        return Err(NoRegion);
    }
    Ok(data_key(table, kms_key, &config))
}

/// Creates a vault for an AWS emulator. `url` and test credentials replace the settings from the environment.
pub async fn vault_of_emulator(table: &str, kms_key: &str, url: &str) -> Arc<dyn VaultSource> {
    data_key(table, kms_key, &client::emulated(url).await)
}

fn data_key(table: &str, kms_key: &str, config: &SdkConfig) -> Arc<dyn VaultSource> {
    let (dynamodb, _) = client::clients(config, None);
    // The vault does not use the retention: the record of the master key never expires.
    let table = Table {
        client: dynamodb,
        name: table.to_owned(),
        retention: Duration::MAX,
        buckets: Mutex::new(Recent::new(MAX_BUCKETS)),
        write_proved_at: AtomicI64::new(0),
        list_turns: ListTurns::default(),
    };
    Arc::new(DataKey::new(table, aws_sdk_kms::Client::new(config), kms_key.to_owned()))
}

fn backend(settings: &Settings, (dynamodb, sqs): (aws_sdk_dynamodb::Client, aws_sdk_sqs::Client)) -> Backend {
    let table = Arc::new(Table {
        client: dynamodb,
        name: settings.table.clone(),
        retention: settings.retention,
        buckets: Mutex::new(Recent::new(MAX_BUCKETS)),
        write_proved_at: AtomicI64::new(0),
        list_turns: ListTurns::default(),
    });
    let queue = Sqs { client: sqs, url: settings.queue_url.clone() };
    Backend { store: table.clone(), queue: Arc::new(queue), config: table.clone(), limiters: table }
}

/// Returns the key that authenticates cursors of lists, the same in every process that uses the table.
///
/// The key need not be secret, since a cursor only names a position in the caller's own tasks. The key
/// detects malformed cursors.
pub fn cursor_key(table: &str) -> [u8; 32] {
    sha256(&[b"nobat cursor ", table.as_bytes()])
}

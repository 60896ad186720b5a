//! The cloud backend: tasks in one `DynamoDB` table, hints in one queue of Amazon SQS.
//!
//! A task is one item; the queue carries messages that say "this task may be due". Losing one costs time: the sweep finds tasks by
//! their mark in the index `attention`. Every write has a condition and carries a mark of its own, so that one whose answer was
//! lost is known again. This is the only crate that names a type of an AWS SDK.

mod bodies;
mod client;
mod data_key;
mod due;
mod error;
mod expression;
mod flows;
pub mod hint;
mod insert;
mod item;
mod keys;
mod list;
pub mod meter;
mod queue;
mod registry;
mod store;
mod table;
mod turns;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use aws_config::SdkConfig;
use nobat_core::backend::Backend;
use nobat_core::vault::VaultSource;
use sha2::{Digest, Sha256};

use crate::data_key::DataKey;
use crate::meter::Meter;
use crate::queue::Sqs;
use crate::registry::Buckets;
use crate::table::Table;
use crate::turns::ListTurns;

/// Which table and which queue; everything else the SDK finds in its own variables.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The table's name.
    pub table: String,
    /// The queue's URL.
    pub queue_url: String,
    /// How long ended tasks are kept.
    pub retention: Duration,
}

/// Nothing says in which region the table and the queue are.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region is set: set AWS_REGION, or a region in the AWS configuration file")]
pub struct NoRegion;

/// How often the waiting tasks of a tenant are counted whose number is limited: to count goes through the index of all that wait.
pub const RECOUNT: Duration = Duration::from_secs(30);

/// Connects to a table and a queue. Nothing is asked of them yet.
pub async fn connect(settings: &Settings) -> Result<Backend, NoRegion> {
    let config = client::config().await;
    if config.region().is_none() {
        return Err(NoRegion);
    }
    Ok(backend(settings, client::clients(&config, None)))
}

/// The same for an emulator of AWS at that URL, whatever the variables say.
pub async fn connect_to_emulator(settings: &Settings, url: &str) -> Backend {
    backend(settings, client::clients(&client::emulated(url).await, None))
}

/// The same, with all its calls counted.
pub async fn connect_to_emulator_with(settings: &Settings, url: &str, meter: &Meter) -> Backend {
    backend(settings, client::clients(&client::emulated(url).await, Some(meter)))
}

/// The vault whose key stands in that table, wrapped by that key of KMS: its id, or its ARN. Nothing is asked of them yet.
pub async fn vault(table: &str, kms_key: &str) -> Result<Arc<dyn VaultSource>, NoRegion> {
    let config = client::config().await;
    if config.region().is_none() {
        return Err(NoRegion);
    }
    Ok(data_key(table, kms_key, &config))
}

/// The same for an emulator of AWS at that URL, whatever the variables say.
pub async fn vault_of_emulator(table: &str, kms_key: &str, url: &str) -> Arc<dyn VaultSource> {
    data_key(table, kms_key, &client::emulated(url).await)
}

fn data_key(table: &str, kms_key: &str, config: &SdkConfig) -> Arc<dyn VaultSource> {
    let (dynamodb, _) = client::clients(config, None);
    // Nothing of what it reads there ever expires.
    let table = Table {
        client: dynamodb,
        name: table.to_owned(),
        retention: Duration::MAX,
        buckets: Buckets::default(),
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
        buckets: Buckets::default(),
        write_proved_at: AtomicI64::new(0),
        list_turns: ListTurns::default(),
    });
    let queue = Sqs { client: sqs, url: settings.queue_url.clone() };
    Backend { store: table.clone(), queue: Arc::new(queue), registry: table.clone(), flows: table }
}

/// What seals the cursors of lists, the same in every process that uses the table.
///
/// It is no secret, and need not be: a cursor is a place in the tasks of whoever shows it. The seal tells a mistake from a cursor.
pub fn cursor_key(table: &str) -> [u8; 32] {
    Sha256::digest(format!("nobat cursor {table}")).into()
}

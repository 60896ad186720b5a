//! Table of the AWS backend, as the template defines it.

use std::time::{Duration, Instant};

use nobat_core::types::time::Timestamp;
use serde_json::{Value, json};

use crate::aws::client::Client;
use crate::aws::template;
use crate::harness::PATIENCE;

/// Empty table with a unique name. The tests do not delete it: it ends with its emulator.
pub struct Table {
    client: Client,
    name: String,
}

/// Properties with the same name in `CreateTable` and in the template.
const PROPERTIES: [&str; 4] = ["AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema"];

/// Interval between two checks that the table is active. The emulator's table is active at once; other
/// services take a while.
const PAUSE: Duration = Duration::from_millis(50);

impl Table {
    /// Creates a table without TTL: the tests use virtual time, and the emulator would delete by its own
    /// clock.
    pub async fn create(client: Client) -> Self {
        let name = format!("nobat-{:032x}", rand::random::<u128>());
        let mut input = definition();
        input["TableName"] = json!(name);
        let mut table = client.dynamodb("CreateTable", &input).await["TableDescription"].take();
        let begun = Instant::now();
        while table["TableStatus"] != "ACTIVE" {
            assert!(begun.elapsed() < PATIENCE, "the table does not become active: {table:#}");
            tokio::time::sleep(PAUSE).await;
            table = client.dynamodb("DescribeTable", &json!({ "TableName": name })).await["Table"].take();
        }
        Self { client, name }
    }

    /// Returns the existing table with this name.
    pub fn named(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Returns the name of the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets timestamps of a stored task, in milliseconds, as if it had been stored at another time.
    pub async fn set_moments(&self, task: &Value, moments: &[(&str, Timestamp)]) {
        let id = task["id"].as_str().unwrap_or_else(|| panic!("the task has no id: {task:#}"));
        let changes: Vec<String> = moments.iter().map(|(name, _)| format!("#{name} = :{name}")).collect();
        let names: Value = moments.iter().map(|(name, _)| (format!("#{name}"), json!(name))).collect();
        let values: Value = moments
            .iter()
            .map(|(name, at)| (format!(":{name}"), json!({ "N": at.millis().to_string() })))
            .collect();
        let input = json!({
            "TableName": self.name,
            "Key": { "PK": { "S": format!("T#default#{id}") }, "SK": { "S": "task" } },
            "UpdateExpression": format!("SET {}", changes.join(", ")),
            "ConditionExpression": "attribute_exists(PK)",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        });
        self.client.dynamodb("UpdateItem", &input).await;
    }

    /// Returns all items, in DynamoDB's own JSON.
    pub async fn items(&self) -> Vec<Value> {
        let (mut items, mut input) = (Vec::new(), json!({ "TableName": self.name, "ConsistentRead": true }));
        loop {
            let page = self.client.dynamodb("Scan", &input).await;
            items.extend(page["Items"].as_array().into_iter().flatten().cloned());
            match page.get("LastEvaluatedKey") {
                Some(key) => input["ExclusiveStartKey"] = key.clone(),
                None => return items,
            }
        }
    }
}

fn definition() -> Value {
    let table = template::properties("Table");
    PROPERTIES.iter().map(|property| (*property, table[*property].clone())).collect()
}

//! Queue of hints and its dead-letter queue.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::client::Client;
use crate::aws::template;

/// Queue and its dead-letter queue, both empty, with unique names. The tests do not delete them: they end
/// with their emulator.
pub struct Queues {
    client: Client,
    hints: String,
    dead_letters: String,
}

impl Queues {
    /// Creates both queues. A message that is received and not deleted reappears after `visibility`, in whole
    /// seconds.
    pub async fn create(client: Client, visibility: Duration) -> Self {
        let name = format!("nobat-{:032x}", rand::random::<u128>());
        let dead_letters = create(client, &format!("{name}-dead"), &json!({})).await;
        let mut redrive = template::properties("Queue")["RedrivePolicy"].clone();
        redrive["deadLetterTargetArn"] = arn(client, &dead_letters).await;
        let attributes = json!({ "VisibilityTimeout": visibility.as_secs().to_string(), "RedrivePolicy": redrive.to_string() });
        let hints = create(client, &name, &attributes).await;
        Self { client, hints, dead_letters }
    }

    /// Returns the queues with these URLs.
    pub fn at(client: Client, hints: String, dead_letters: String) -> Self {
        Self { client, hints, dead_letters }
    }

    /// Returns the URL of the queue.
    pub fn hints(&self) -> &str {
        &self.hints
    }

    /// Returns the URL of the dead-letter queue.
    pub fn dead_letters(&self) -> &str {
        &self.dead_letters
    }

    /// Sends a message with any body, as a foreign sender might.
    pub async fn send(&self, body: &str) {
        self.client.sqs("SendMessage", &json!({ "QueueUrl": self.hints, "MessageBody": body })).await;
    }

    /// Sends up to 10 messages in one call.
    pub async fn send_all(&self, bodies: &[String]) {
        let entry = |(place, body): (usize, &String)| json!({ "Id": place.to_string(), "MessageBody": body });
        let entries: Vec<Value> = bodies.iter().enumerate().map(entry).collect();
        let sent =
            self.client.sqs("SendMessageBatch", &json!({ "QueueUrl": self.hints, "Entries": entries })).await;
        assert_eq!(sent["Successful"].as_array().map(Vec::len), Some(bodies.len()), "{sent:#}");
    }

    /// Sends a message to the dead-letter queue, as if it had been received too often.
    pub async fn send_dead(&self, body: &str) {
        self.client.sqs("SendMessage", &json!({ "QueueUrl": self.dead_letters, "MessageBody": body })).await;
    }

    /// Receives up to 10 messages and returns their message groups, or `-` for a message without one.
    pub async fn groups(&self) -> Vec<String> {
        let ask = json!({ "QueueUrl": self.hints, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "MessageSystemAttributeNames": ["All"] });
        let received = self.client.sqs("ReceiveMessage", &ask).await;
        let messages = received["Messages"].as_array().into_iter().flatten();
        messages
            .map(|message| message["Attributes"]["MessageGroupId"].as_str().unwrap_or("-").to_owned())
            .collect()
    }

    /// Sets the visibility timeout of both queues, in whole seconds.
    pub async fn set_visibility(&self, visibility: Duration) {
        for url in [&self.hints, &self.dead_letters] {
            let attributes = json!({ "VisibilityTimeout": visibility.as_secs().to_string() });
            self.client
                .sqs("SetQueueAttributes", &json!({ "QueueUrl": url, "Attributes": attributes }))
                .await;
        }
    }

    /// Deletes all messages of both queues.
    pub async fn purge(&self) {
        for url in [&self.hints, &self.dead_letters] {
            self.client.sqs("PurgeQueue", &json!({ "QueueUrl": url })).await;
        }
    }

    /// Returns the number of delayed messages in the queue.
    pub async fn delayed(&self) -> u64 {
        count(&attributes(self.client, &self.hints).await, "Delayed")
    }

    /// Returns the number of messages in the queue: ready, received and delayed.
    pub async fn depth(&self) -> u64 {
        depth(self.client, &self.hints).await
    }

    /// Returns the number of messages in the dead-letter queue.
    pub async fn dead(&self) -> u64 {
        depth(self.client, &self.dead_letters).await
    }
}

async fn create(client: Client, name: &str, attributes: &Value) -> String {
    let created = client.sqs("CreateQueue", &json!({ "QueueName": name, "Attributes": attributes })).await;
    created["QueueUrl"]
        .as_str()
        .unwrap_or_else(|| panic!("the response has no QueueUrl: {created:#}"))
        .to_owned()
}

async fn arn(client: Client, url: &str) -> Value {
    attributes(client, url).await["QueueArn"].take()
}

async fn depth(client: Client, url: &str) -> u64 {
    let attributes = attributes(client, url).await;
    ["", "NotVisible", "Delayed"].into_iter().map(|state| count(&attributes, state)).sum()
}

fn count(attributes: &Value, state: &str) -> u64 {
    let number =
        attributes[format!("ApproximateNumberOfMessages{state}")].as_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("the number of messages is missing: {attributes:#}"))
}

async fn attributes(client: Client, url: &str) -> Value {
    client.sqs("GetQueueAttributes", &json!({ "QueueUrl": url, "AttributeNames": ["All"] })).await["Attributes"].take()
}

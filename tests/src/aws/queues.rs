//! A queue of hints, and the one for those that came to nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::client::Client;
use crate::aws::template;

/// A queue and its dead-letter queue, both empty, with names of their own. Nobody deletes them: they go with their emulator.
pub struct Queues {
    client: Client,
    hints: String,
    dead_letters: String,
}

impl Queues {
    /// Makes them; a message that is received and not deleted is there again after `visibility`, which is in whole seconds.
    pub async fn create(client: Client, visibility: Duration) -> Self {
        let name = format!("nobat-{:032x}", rand::random::<u128>());
        let dead_letters = create(client, &format!("{name}-dead"), &json!({})).await;
        let mut redrive = template::properties("Queue")["RedrivePolicy"].clone();
        redrive["deadLetterTargetArn"] = arn(client, &dead_letters).await;
        let attributes = json!({ "VisibilityTimeout": visibility.as_secs().to_string(), "RedrivePolicy": redrive.to_string() });
        let hints = create(client, &name, &attributes).await;
        Self { client, hints, dead_letters }
    }

    /// Those that have these URLs.
    pub fn at(client: Client, hints: String, dead_letters: String) -> Self {
        Self { client, hints, dead_letters }
    }

    /// The URL of the queue.
    pub fn hints(&self) -> &str {
        &self.hints
    }

    /// The URL of the dead-letter queue.
    pub fn dead_letters(&self) -> &str {
        &self.dead_letters
    }

    /// Sends a message of any kind, as somebody might who is not nobat.
    pub async fn send(&self, body: &str) {
        self.client.sqs("SendMessage", &json!({ "QueueUrl": self.hints, "MessageBody": body })).await;
    }

    /// Sends up to ten messages in one call.
    pub async fn send_all(&self, bodies: &[String]) {
        let entry = |(place, body): (usize, &String)| json!({ "Id": place.to_string(), "MessageBody": body });
        let entries: Vec<Value> = bodies.iter().enumerate().map(entry).collect();
        let sent = self.client.sqs("SendMessageBatch", &json!({ "QueueUrl": self.hints, "Entries": entries })).await;
        assert_eq!(sent["Successful"].as_array().map(Vec::len), Some(bodies.len()), "{sent:#}");
    }

    /// Sends a message to the dead-letter queue, as if it had been received too often.
    pub async fn send_dead(&self, body: &str) {
        self.client.sqs("SendMessage", &json!({ "QueueUrl": self.dead_letters, "MessageBody": body })).await;
    }

    /// The group of every message that can be received, up to ten.
    pub async fn groups(&self) -> Vec<String> {
        let ask =
            json!({ "QueueUrl": self.hints, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "MessageSystemAttributeNames": ["All"] });
        let received = self.client.sqs("ReceiveMessage", &ask).await;
        let messages = received["Messages"].as_array().into_iter().flatten();
        messages.map(|message| message["Attributes"]["MessageGroupId"].as_str().unwrap_or("-").to_owned()).collect()
    }

    /// Has messages of both queues come again after so long, in whole seconds.
    pub async fn set_visibility(&self, visibility: Duration) {
        for url in [&self.hints, &self.dead_letters] {
            let attributes = json!({ "VisibilityTimeout": visibility.as_secs().to_string() });
            self.client.sqs("SetQueueAttributes", &json!({ "QueueUrl": url, "Attributes": attributes })).await;
        }
    }

    /// Loses all that is in both queues.
    pub async fn purge(&self) {
        for url in [&self.hints, &self.dead_letters] {
            self.client.sqs("PurgeQueue", &json!({ "QueueUrl": url })).await;
        }
    }

    /// How many messages wait in the queue for their time to come.
    pub async fn delayed(&self) -> u64 {
        count(&attributes(self.client, &self.hints).await, "Delayed")
    }

    /// How many messages are in the queue, be they ready, taken or delayed.
    pub async fn depth(&self) -> u64 {
        depth(self.client, &self.hints).await
    }

    /// How many messages are in the dead-letter queue.
    pub async fn dead(&self) -> u64 {
        depth(self.client, &self.dead_letters).await
    }
}

async fn create(client: Client, name: &str, attributes: &Value) -> String {
    let created = client.sqs("CreateQueue", &json!({ "QueueName": name, "Attributes": attributes })).await;
    created["QueueUrl"].as_str().unwrap_or_else(|| panic!("no queue: {created:#}")).to_owned()
}

async fn arn(client: Client, url: &str) -> Value {
    attributes(client, url).await["QueueArn"].take()
}

async fn depth(client: Client, url: &str) -> u64 {
    let attributes = attributes(client, url).await;
    ["", "NotVisible", "Delayed"].into_iter().map(|state| count(&attributes, state)).sum()
}

fn count(attributes: &Value, state: &str) -> u64 {
    let number = attributes[format!("ApproximateNumberOfMessages{state}")].as_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no numbers: {attributes:#}"))
}

async fn attributes(client: Client, url: &str) -> Value {
    client.sqs("GetQueueAttributes", &json!({ "QueueUrl": url, "AttributeNames": ["All"] })).await["Attributes"].take()
}

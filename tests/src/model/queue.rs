//! A queue as SQS is one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select;
use nobat_core::ports::{Delivery, Hint, Queue, Receipt, Settlement, StoreError, TaskName};
use nobat_core::time::Timestamp;
use tokio::sync::Notify;

use crate::time::Time;

/// `DelaySeconds` can be no more than this.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// How long a message that was received is hidden from everybody else.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a receive waits for something to come, at most.
const WAIT: Duration = Duration::from_secs(20);
/// How many messages one receive brings, at most.
const MAX_RECEIVED: usize = 10;
/// `maxReceiveCount` of the redrive policy.
const MAX_RECEIVES: u32 = 10;

/// A queue in memory.
pub struct ModelQueue {
    time: Arc<Time>,
    state: Mutex<State>,
    sent: Notify,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    dead_letters: Vec<TaskName>,
    last_id: u64,
}

struct Message {
    id: u64,
    name: TaskName,
    visible_at: Timestamp,
    receives: u32,
}

impl Message {
    /// Good for this receive alone, as a receipt handle is.
    fn receipt(&self) -> Receipt {
        Receipt(format!("{}-{}", self.id, self.receives))
    }
}

impl ModelQueue {
    /// An empty queue.
    pub fn new(time: Arc<Time>) -> Self {
        Self { time, state: Mutex::default(), sent: Notify::new() }
    }

    /// What the redrive policy has moved away.
    pub fn dead_letters(&self) -> Vec<TaskName> {
        self.state().dead_letters.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, name: TaskName, visible_at: Timestamp) {
        self.last_id += 1;
        self.messages.push(Message { id: self.last_id, name, visible_at, receives: 0 });
    }

    fn receive(&mut self, max: usize, now: Timestamp) -> Vec<Delivery> {
        let is_worn = |message: &Message| message.visible_at <= now && message.receives >= MAX_RECEIVES;
        self.dead_letters.extend(self.messages.extract_if(.., |message| is_worn(message)).map(|message| message.name));
        let take = |message: &mut Message| {
            message.visible_at = now + VISIBILITY_TIMEOUT;
            message.receives += 1;
            Delivery::Hint { name: message.name.clone(), receipt: message.receipt() }
        };
        self.messages.iter_mut().filter(|message| message.visible_at <= now).take(max.min(MAX_RECEIVED)).map(take).collect()
    }

    fn settle(&mut self, receipt: &Receipt, settlement: Settlement, now: Timestamp) {
        // An older receipt does nothing: the message has been received again since.
        let Some(place) = self.messages.iter().position(|message| message.receipt() == *receipt) else { return };
        match settlement {
            Settlement::Acknowledge => drop(self.messages.remove(place)),
            Settlement::Return => self.messages[place].visible_at = now,
        }
    }
}

#[async_trait]
impl Queue for ModelQueue {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        let now = self.time.now();
        for hint in hints.into_iter().filter(|hint| hint.delay <= LONGEST_DELAY) {
            self.state().send(hint.name, now + hint.delay);
        }
        self.sent.notify_waiters();
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let give_up = self.time.now() + WAIT;
        loop {
            let sent = Box::pin(self.sent.notified());
            let received = self.state().receive(max, self.time.now());
            if !received.is_empty() || self.time.now() >= give_up {
                return Ok(received);
            }
            let next = self.state().messages.iter().map(|message| message.visible_at).min();
            let next = next.map_or(give_up, |next| next.min(give_up));
            select(sent, self.time.sleep_until(next)).await;
        }
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        let now = self.time.now();
        for (receipt, settlement) in settlements {
            self.state().settle(&receipt, settlement, now);
        }
        self.sent.notify_waiters();
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

//! Queue with the rules of SQS, and its dead-letter queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::select;
use nobat_core::ports::{Delivery, Hint, Queue, Receipt, Settlement, StoreError};
use nobat_core::task::TaskKey;
use nobat_core::types::time::Timestamp;
use tokio::sync::Notify;

use super::table::LONGEST_DELAY;
use crate::model::backend_quirks::{Habit, Habits};
use crate::time::Time;

/// Maximum wait of a receive.
const WAIT: Duration = Duration::from_secs(20);
/// Maximum number of messages in one receive.
const MAX_RECEIVED: usize = 10;
/// `maxReceiveCount` of the redrive policy.
const MAX_RECEIVES: u32 = 10;
/// Maximum time between the first delivery and the delivery of a copy.
const COPY: Duration = Duration::from_mins(2);
/// Maximum time between the deletion of a message and its late delivery.
const AFTER_DELETE: Duration = Duration::from_mins(10);

/// Queue in memory.
pub struct ModelQueue {
    time: Arc<Time>,
    habits: Arc<dyn Habits>,
    /// Time for which a received message is hidden.
    visibility: Duration,
    /// Queue for messages that were received too often. Without it, they stay.
    dead_letters: Option<Arc<ModelQueue>>,
    state: Mutex<State>,
    sent: Notify,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    last_id: u64,
}

#[derive(Clone)]
struct Message {
    id: u64,
    name: TaskKey,
    redrives: u32,
    visible_at: Timestamp,
    receives: u32,
    /// True if the message is deleted, but not on every server.
    is_deleted: bool,
}

impl Message {
    /// Returns the receipt, which is valid for this receive only, as a receipt handle of SQS.
    fn receipt(&self) -> Receipt {
        Receipt(format!("{}-{}", self.id, self.receives))
    }
}

/// Received message.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Task that the message names.
    pub name: TaskKey,
    /// Number of consecutive dead letters of the task before this message.
    pub redrives: u32,
    /// Receipt for settling the message.
    pub receipt: Receipt,
}

impl ModelQueue {
    /// Creates an empty queue.
    pub fn new(
        time: Arc<Time>,
        habits: Arc<dyn Habits>,
        visibility: Duration,
        dead_letters: Option<Arc<Self>>,
    ) -> Self {
        Self { time, habits, visibility, dead_letters, state: Mutex::default(), sent: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, name: TaskKey, redrives: u32, delay: Duration) {
        let mut state = self.state();
        let visible_at = self.time.now() + delay;
        let id = state.next_id();
        state.messages.push(Message { id, name, redrives, visible_at, receives: 0, is_deleted: false });
        drop(state);
        self.sent.notify_waiters();
    }

    /// Waits for messages as long as a receive does, and receives up to `max`.
    pub async fn letters(&self, max: usize) -> Vec<Letter> {
        let give_up = self.time.now() + WAIT;
        loop {
            let sent = Box::pin(self.sent.notified());
            let received = self.take(max);
            if !received.is_empty() || self.time.now() >= give_up {
                return received;
            }
            let next = self.state().messages.iter().map(|message| message.visible_at).min();
            let next = next.map_or(give_up, |next| next.min(give_up));
            select(sent, self.time.sleep_until(next)).await;
        }
    }

    fn take(&self, max: usize) -> Vec<Letter> {
        self.move_dead_letters();
        let (mut state, now) = (self.state(), self.time.now());
        let (mut letters, mut copies) = (Vec::new(), Vec::new());
        for message in
            state.messages.iter_mut().filter(|message| message.visible_at <= now).take(max.min(MAX_RECEIVED))
        {
            message.visible_at = now + self.visibility;
            message.receives += 1;
            if std::mem::take(&mut message.is_deleted) {
                self.habits.note(Habit::DeliversDeleted);
            }
            if self.habits.shows(Habit::DeliversTwice) {
                self.habits.note(Habit::DeliversTwice);
                copies.push(Message { visible_at: now + self.habits.some_time(COPY), ..message.clone() });
            }
            letters.push(Letter {
                name: message.name.clone(),
                redrives: message.redrives,
                receipt: message.receipt(),
            });
        }
        for copy in copies {
            let id = state.next_id();
            state.messages.push(Message { id, ..copy });
        }
        letters
    }

    /// Moves messages with too many receives to the dead-letter queue. As in SQS, this happens when such a
    /// message would be received once more.
    fn move_dead_letters(&self) {
        let Some(dead_letters) = &self.dead_letters else { return };
        let now = self.time.now();
        let is_worn = |message: &mut Message| message.visible_at <= now && message.receives >= MAX_RECEIVES;
        let worn: Vec<Message> = self.state().messages.extract_if(.., is_worn).collect();
        for message in worn {
            self.habits.note(Habit::GivesUp);
            dead_letters.push(message.name, message.redrives, Duration::ZERO);
        }
    }

    /// Deletes a message. An older receipt does nothing, because the message has been received again since.
    fn delete(&self, receipt: &Receipt) {
        let mut state = self.state();
        let Some(place) = state.messages.iter().position(|message| message.receipt() == *receipt) else {
            return;
        };
        if self.habits.shows(Habit::DeliversDeleted) {
            state.messages[place].is_deleted = true;
            state.messages[place].visible_at = self.time.now() + self.habits.some_time(AFTER_DELETE);
        } else {
            state.messages.remove(place);
        }
    }

    /// Deletes the acknowledged messages. Returned ones reappear after the visibility timeout.
    pub fn forget(&self, settlements: &[(Receipt, Settlement)]) {
        for (receipt, _) in
            settlements.iter().filter(|(_, settlement)| *settlement == Settlement::Acknowledge)
        {
            self.delete(receipt);
        }
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

#[async_trait]
impl Queue for ModelQueue {
    async fn send(&self, hints: Vec<Hint>) -> Result<(), StoreError> {
        for hint in hints.into_iter().filter(|hint| hint.delay <= LONGEST_DELAY) {
            // SQS takes `DelaySeconds` in whole seconds.
            let delay = Duration::from_secs(
                u64::try_from(hint.delay.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX),
            );
            self.push(hint.name, hint.redrives, delay);
        }
        Ok(())
    }

    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, StoreError> {
        let hint = |letter: Letter| Delivery::Hint { name: letter.name, receipt: letter.receipt };
        Ok(self.letters(max).await.into_iter().map(hint).collect())
    }

    async fn settle(&self, settlements: Vec<(Receipt, Settlement)>) -> Result<(), StoreError> {
        self.forget(&settlements);
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nobat_core::ports::Queue;

    use super::*;
    use crate::model::backend_quirks::Tame;
    use crate::sample;

    const VISIBILITY: Duration = Duration::from_mins(6);

    fn queues(time: &Arc<Time>) -> (ModelQueue, Arc<ModelQueue>) {
        let dead_letters = Arc::new(ModelQueue::new(time.clone(), Arc::new(Tame), VISIBILITY, None));
        (ModelQueue::new(time.clone(), Arc::new(Tame), VISIBILITY, Some(dead_letters.clone())), dead_letters)
    }

    async fn send(queue: &ModelQueue, time: &Arc<Time>, delay: Duration) {
        let name = sample::task(1, time.now()).key();
        queue.send(vec![Hint { redrives: 1, ..Hint::new(name, delay) }]).await.unwrap();
    }

    #[tokio::test]
    async fn message_received_ten_times_becomes_a_dead_letter() {
        let time = Time::at(sample::start());
        let (queue, dead_letters) = queues(&time);
        send(&queue, &time, Duration::ZERO).await;
        for receive in 0..10 {
            let received = queue.take(10);
            assert_eq!(received.len(), 1, "receive {receive}");
            queue.forget(&[(received[0].receipt.clone(), Settlement::Return)]);
            assert!(queue.take(10).is_empty(), "the message is hidden until its visibility timeout");
            assert!(dead_letters.take(10).is_empty());
            time.advance(VISIBILITY);
        }
        assert!(queue.take(10).is_empty());
        let letters = dead_letters.take(10);
        assert_eq!(letters.iter().map(|letter| letter.redrives).collect::<Vec<_>>(), [1]);
    }

    #[tokio::test]
    async fn message_delay_is_in_whole_seconds_and_bounded() {
        let time = Time::at(sample::start());
        let (queue, _) = queues(&time);
        send(&queue, &time, LONGEST_DELAY + Duration::from_millis(1)).await;
        send(&queue, &time, Duration::from_millis(1_200)).await;
        time.advance(Duration::from_millis(1_999));
        assert!(queue.take(10).is_empty());
        time.advance(Duration::from_millis(1));
        assert_eq!(queue.take(10).len(), 1);
        time.advance(Duration::from_hours(1));
        assert_eq!(queue.take(10).len(), 1, "the message with too long a delay was not sent");
    }

    #[tokio::test]
    async fn old_receipt_deletes_nothing() {
        let time = Time::at(sample::start());
        let (queue, _) = queues(&time);
        send(&queue, &time, Duration::ZERO).await;
        let old = queue.take(10).remove(0).receipt;
        time.advance(VISIBILITY);
        let new = queue.take(10).remove(0).receipt;
        queue.forget(&[(old, Settlement::Acknowledge)]);
        time.advance(VISIBILITY);
        let newest = queue.take(10).remove(0).receipt;
        assert_ne!(new, newest);
        queue.forget(&[(newest, Settlement::Acknowledge)]);
        time.advance(VISIBILITY);
        assert!(queue.take(10).is_empty());
    }
}

//! History of what the clients did and saw.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nobat_core::types::time::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::kill::{Durability, Record, now};

/// One line of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Time of the event.
    pub at: Timestamp,
    /// Number of the client.
    pub client: usize,
    /// Key of the piece of work: its number, which the task's body contains.
    pub key: u64,
    /// Event.
    #[serde(flatten)]
    pub what: What,
}

/// Event that a client recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
pub enum What {
    /// The client sends a request.
    Invoke,
    /// The program answered with 202.
    Ok {
        /// Id of the created task.
        task: String,
    },
    /// The request was refused or never sent, so no task can exist.
    Fail,
    /// The client got no answer or a 5xx, so the request may have been carried out.
    Unknown,
}

/// History, in memory and in a file.
pub struct History {
    record: Record,
    events: Mutex<Vec<Event>>,
    /// Signals every request that a client is about to send.
    invoked: watch::Sender<()>,
}

impl History {
    /// Creates an empty history.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            record: Record::create(path)?,
            events: Mutex::default(),
            invoked: watch::Sender::default(),
        })
    }

    /// Writes a line.
    pub fn note(&self, client: usize, key: u64, what: What) -> std::io::Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event { at: now(), client, key, what };
        self.record.write(&event, Durability::Written)?;
        if event.what == What::Invoke {
            self.invoked.send_replace(());
        }
        events.push(event);
        Ok(())
    }

    /// Resolves when a client is about to send its next request.
    pub async fn invoked(&self) {
        // The channel cannot close: the sender lives in `self`.
        let _ = self.invoked.subscribe().changed().await;
    }

    /// Returns all recorded events.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

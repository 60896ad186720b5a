//! What the clients did, and what they saw of it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nobat_core::time::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::kill::{Durability, Record, now};

/// One line of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Which client.
    pub client: usize,
    /// What it asked for. A key is the number of a piece of work, and stands in the body.
    pub key: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
pub enum What {
    /// A request was sent.
    Invoke,
    /// It was answered with 202.
    Ok {
        /// The task that it made.
        task: String,
    },
    /// It was refused, or never sent: nothing can have come of it.
    Fail,
    /// There was no answer: it was carried out, or it was not.
    Unknown,
}

/// The history, as it is written.
pub struct History {
    record: Record,
    events: Mutex<Vec<Event>>,
    /// Tells of every request that is about to be sent.
    invoked: watch::Sender<()>,
}

impl History {
    /// An empty one.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self { record: Record::create(path)?, events: Mutex::default(), invoked: watch::Sender::default() })
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
        // It cannot be closed: the sender is here.
        let _ = self.invoked.subscribe().changed().await;
    }

    /// All that was written.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

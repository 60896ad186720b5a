//! The one writer: many callers' operations in one transaction, and every reply after its COMMIT.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nobat_core::ports::{Clock, StoreError};
use nobat_core::task::Task;
use nobat_core::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;
use crate::database::Database;

/// How many operations may wait for the writer. More are refused: what waits longer than a client does is of no use.
const MAX_WAITING: usize = 16_384;

/// How many operations go into one transaction, so that the first of them need not wait for ever more.
const MAX_GROUP: usize = 1_024;

/// An operation; it returns what is to be done once it is known whether the transaction is on disk.
pub(crate) type Operation = Box<dyn FnOnce(&mut Database) -> Outcome + Send>;

pub(crate) type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(crate) struct Outcome {
    reply: Reply,
    /// Whether SQLite failed at it, so that nothing of the transaction can be relied on.
    spoiled: Spoiled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoiled {
    No,
    Yes,
}

/// Where operations are done.
pub(crate) enum Writer {
    /// At once, where they are called: for stores in memory. No thread, no time, no chance.
    Inline(Box<Mutex<Group>>),
    /// In a thread, which ends when this is dropped.
    Thread(SyncSender<Operation>),
}

/// What makes transactions.
pub(crate) struct Group {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Opens the file anew after a transaction that failed; there is no such thing as that for a store in memory.
    reopen: Option<Reopen>,
}

pub(crate) type Reopen = Box<dyn Fn() -> Result<Connection, Error> + Send>;

impl Writer {
    pub(crate) fn inline(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self::Inline(Box::new(Mutex::new(Group { database, clock, reopen: None })))
    }

    pub(crate) fn thread(database: Database, clock: Arc<dyn Clock>, reopen: Reopen) -> std::io::Result<Self> {
        let (operations, waiting) = sync_channel(MAX_WAITING);
        let group = Group { database, clock, reopen: Some(reopen) };
        thread::Builder::new().name("nobat-writer".to_owned()).spawn(move || group.run(&waiting))?;
        Ok(Self::Thread(operations))
    }

    /// Has an operation done, and resolves when it is on disk.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        self.submit(Box::new(move |database| {
            let done = operation(database);
            let spoiled = if matches!(done, Err(Error::Sqlite(_))) { Spoiled::Yes } else { Spoiled::No };
            let reply = move |committed: Result<(), StoreError>| {
                // Nobody may be waiting for it any more.
                let _ = sender.send(committed.and_then(|()| done.map_err(StoreError::from)));
            };
            Outcome { reply: Box::new(reply), spoiled }
        }))?;
        result.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the writer stopped".to_owned())))
    }

    /// Has claims taken back that nobody will act on. If that fails, their leases run out.
    pub(crate) fn give_back(&self, tasks: Vec<Task>, now: Timestamp) {
        if self.submit(release(tasks, now)).is_err() {
            tracing::warn!("claims could not be given back; their leases will run out");
        }
    }

    fn submit(&self, operation: Operation) -> Result<(), StoreError> {
        match self {
            Self::Inline(group) => {
                group.lock().unwrap_or_else(PoisonError::into_inner).transact(vec![operation]);
                Ok(())
            }
            Self::Thread(operations) => operations.try_send(operation).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => StoreError::Unavailable("the writer stopped".to_owned()),
            }),
        }
    }
}

fn release(tasks: Vec<Task>, now: Timestamp) -> Operation {
    Box::new(move |database| {
        let spoiled = if database.release(tasks, now).is_err() { Spoiled::Yes } else { Spoiled::No };
        Outcome { reply: Box::new(|_| ()), spoiled }
    })
}

impl Group {
    fn run(mut self, waiting: &Receiver<Operation>) {
        while let Ok(first) = waiting.recv() {
            let group = [first].into_iter().chain(waiting.try_iter().take(MAX_GROUP - 1)).collect();
            self.transact(group);
        }
    }

    /// Does the operations in one transaction, then replies to all of them.
    fn transact(&mut self, operations: Vec<Operation>) {
        let mut replies = Vec::with_capacity(operations.len());
        let done = self.attempt(operations, &mut replies);
        if let Err(error) = &done {
            tracing::error!(%error, operations = replies.len(), "a transaction failed; the file is opened anew");
            self.recover();
        }
        for reply in replies {
            let failed = |error: &Error| StoreError::Unavailable(error.to_string());
            reply(done.as_ref().map(|_| ()).map_err(failed));
        }
        if let Ok(Some(give_back)) = done {
            self.transact(vec![give_back]);
        }
    }

    /// Returns an operation that is to follow, if claims were left that nobody took.
    fn attempt(&mut self, operations: Vec<Operation>, replies: &mut Vec<Reply>) -> Result<Option<Operation>, Error> {
        let begun = self.database.begin();
        let mut spoiled = Spoiled::No;
        for operation in operations {
            let outcome = operation(&mut self.database);
            replies.push(outcome.reply);
            if outcome.spoiled == Spoiled::Yes {
                spoiled = Spoiled::Yes;
            }
        }
        begun?;
        if spoiled == Spoiled::Yes {
            return Err(Error::Spoiled);
        }
        let now = self.clock.now();
        self.database.dispatch(now)?;
        let left = self.database.commit_all()?;
        Ok((!left.is_empty()).then(|| release(left, now)))
    }

    fn recover(&mut self) {
        self.database.rollback();
        match self.reopen.as_ref().map(|reopen| reopen()) {
            Some(Ok(connection)) => self.database.reconnect(connection),
            Some(Err(error)) => tracing::error!(%error, "the file could not be opened anew"),
            None => {}
        }
    }
}

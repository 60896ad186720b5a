//! Reading beside the writer: each read sees the last COMMIT.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nobat_core::ports::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;

type Operation = Box<dyn FnOnce(&Connection) + Send>;

/// Threads with a connection each, since a read can wait for the disk. They end when this is dropped.
pub(crate) struct Readers(Sender<Operation>);

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> std::io::Result<Self> {
        let (operations, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for connection in connections {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name("nobat-reader".to_owned()).spawn(move || run(&connection, &waiting))?;
        }
        Ok(Self(operations))
    }

    pub(crate) async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, result) = oneshot::channel();
        let run = move |connection: &Connection| {
            // Nobody may be waiting for it any more.
            let _ = sender.send(operation(connection));
        };
        let stopped = || StoreError::Unavailable("the readers stopped".to_owned());
        self.0.send(Box::new(run)).map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?.map_err(StoreError::from)
    }
}

fn run(connection: &Connection, waiting: &Mutex<Receiver<Operation>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(operation) => operation(connection),
            Err(_) => return,
        }
    }
}

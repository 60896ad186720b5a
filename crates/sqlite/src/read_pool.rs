//! Reads in parallel with the writer. Each read sees the last COMMIT.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nobat_core::ports::{QueueLoad, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Error;
use crate::turn_queue::{Bounds, Owner, TurnQueue};

type Operation = Box<dyn FnOnce(&Connection) + Send>;

/// Cost class of a read. Each class has its own thread, connection and queue, so that no class delays another
/// class.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cost {
    /// Read of one record or limiter by its key. Submissions, authentication and admission wait for these
    /// reads.
    Record,
    /// Read of one task by its id.
    Task,
    /// Read of many rows: a page of a list, a count, or a query of the sweeper.
    Scan,
}

/// Maximum time from the call to the result. A longer read ends with [`StoreError::Overloaded`]. Few clients
/// wait longer. A much shorter limit would refuse clients that would soon repeat the request.
const MAX_WAIT: Duration = Duration::from_secs(2);

const fn bounds(name: &'static str) -> Bounds {
    Bounds { name, total: 16_384, tenant: 4_096 }
}

/// Threads that read. The threads end when this value is dropped.
pub(crate) struct Readers {
    records: Reader,
    tasks: Reader,
    scans: Reader,
}

struct Reader(Arc<TurnQueue<Operation>>);

impl Readers {
    /// Starts a thread with its own connection for each class.
    pub(crate) fn new(
        mut connect: impl FnMut() -> Result<Connection, rusqlite::Error>,
    ) -> Result<Self, crate::OpenError> {
        let mut reader = |name| Ok::<_, crate::OpenError>(Reader::new(connect()?, bounds(name))?);
        Ok(Self { records: reader("read_record")?, tasks: reader("read_task")?, scans: reader("read_scan")? })
    }

    /// Runs a read when its owner's turn comes. Dropping the future removes the read from the queue.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        cost: Cost,
        owner: Owner,
        operation: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let queue = &*self.reader(cost).0;
        let (sender, result) = oneshot::channel();
        let run = move |connection: &Connection| {
            // The caller may be gone.
            let _ = sender.send(operation(connection));
        };
        let number = queue.push(&owner, Box::new(run))?;
        let _place = QueuedRead { queue, owner, number };
        let Ok(done) = tokio::time::timeout(MAX_WAIT, result).await else {
            queue.count_refusal();
            return Err(StoreError::Overloaded);
        };
        done.map_err(|_| StoreError::Unavailable("the read stopped before it returned a result".to_owned()))?
            .map_err(StoreError::from)
    }

    pub(crate) fn load(&self) -> Vec<QueueLoad> {
        [Cost::Record, Cost::Task, Cost::Scan].map(|cost| self.reader(cost).0.load()).into()
    }

    fn reader(&self, cost: Cost) -> &Reader {
        match cost {
            Cost::Record => &self.records,
            Cost::Task => &self.tasks,
            Cost::Scan => &self.scans,
        }
    }
}

impl Reader {
    fn new(connection: Connection, bounds: Bounds) -> std::io::Result<Self> {
        let queue = Arc::new(TurnQueue::new(bounds));
        let waiting = Arc::clone(&queue);
        thread::Builder::new()
            .name(format!("nobat-{}", bounds.name))
            .spawn(move || run(&connection, &waiting))?;
        Ok(Self(queue))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A read that waits in the queue. Dropping this value removes the read if it has not begun.
struct QueuedRead<'a> {
    queue: &'a TurnQueue<Operation>,
    owner: Owner,
    number: u64,
}

impl Drop for QueuedRead<'_> {
    fn drop(&mut self) {
        self.queue.remove(&self.owner, self.number);
    }
}

fn run(connection: &Connection, waiting: &TurnQueue<Operation>) {
    loop {
        let next = waiting.take(|_| false);
        if next.is_empty() {
            return;
        }
        for operation in next {
            // A panic in one read must not end the thread that serves all other reads of the class.
            if catch_unwind(AssertUnwindSafe(|| operation(connection))).is_err() {
                tracing::error!("a read panicked; its caller gets an error");
            }
        }
    }
}

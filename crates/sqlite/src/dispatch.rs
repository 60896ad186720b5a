//! Waiting workers and watchers of tasks in this process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nobat_core::task::{Task, TaskKey};
use nobat_core::types::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

/// Workers that wait for tasks, and watchers that wait for changes.
pub(crate) struct Dispatch {
    workers: Mutex<VecDeque<Worker>>,
    watched: Mutex<HashMap<TaskKey, Watched>>,
    next_due: watch::Sender<Option<Timestamp>>,
}

/// A waiting worker, which can take `room` tasks.
struct Worker {
    room: usize,
    hand: oneshot::Sender<Vec<Task>>,
}

/// A watched task with its number of watchers.
struct Watched {
    news: Arc<Notify>,
    watchers: usize,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self { workers: Mutex::default(), watched: Mutex::default(), next_due: watch::Sender::new(None) }
    }
}

impl Dispatch {
    /// Adds a waiting worker. Dropping the receiver removes the worker.
    pub(crate) fn line_up(&self, room: usize) -> oneshot::Receiver<Vec<Task>> {
        let (hand, tasks) = oneshot::channel();
        self.workers.lock().push_back(Worker { room, hand });
        tasks
    }

    /// Returns the number of tasks that the waiting workers have room for.
    pub(crate) fn wanted(&self) -> usize {
        let mut workers = self.workers.lock();
        workers.retain(|worker| !worker.hand.is_closed());
        workers.iter().map(|worker| worker.room).sum()
    }

    /// Hands claimed tasks to the waiting workers. Returns the tasks that no worker took.
    pub(crate) fn hand_over(&self, mut tasks: Vec<Task>) -> Vec<Task> {
        while !tasks.is_empty() {
            let Some(worker) = self.workers.lock().pop_front() else { break };
            let rest = tasks.split_off(worker.room.min(tasks.len()));
            let refused = worker.hand.send(tasks).err().unwrap_or_default();
            tasks = rest;
            tasks.extend(refused);
        }
        tasks
    }

    /// Returns a receiver of the time at which the next task is due. Waiting workers wake up at that time.
    pub(crate) fn next_due(&self) -> watch::Receiver<Option<Timestamp>> {
        self.next_due.subscribe()
    }

    pub(crate) fn set_next_due(&self, due: Option<Timestamp>) {
        self.next_due.send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    /// Resolves when the task changes.
    pub(crate) async fn watch(&self, name: &TaskKey) {
        let watcher = Watcher::new(self, name);
        watcher.news.notified().await;
    }

    /// Notifies the watchers of changed tasks.
    pub(crate) fn tell(&self, names: &[TaskKey]) {
        let watched = self.watched.lock();
        if !watched.is_empty() {
            names.iter().filter_map(|name| watched.get(name)).for_each(|task| task.news.notify_waiters());
        }
    }
}

/// A watcher of a task. Dropping the watcher ends the watch.
struct Watcher<'a> {
    dispatch: &'a Dispatch,
    name: &'a TaskKey,
    news: Arc<Notify>,
}

impl<'a> Watcher<'a> {
    fn new(dispatch: &'a Dispatch, name: &'a TaskKey) -> Self {
        let mut watched = dispatch.watched.lock();
        let task =
            watched.entry(name.clone()).or_insert_with(|| Watched { news: Arc::default(), watchers: 0 });
        task.watchers += 1;
        Self { dispatch, name, news: task.news.clone() }
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        let mut watched = self.dispatch.watched.lock();
        if let Some(task) = watched.get_mut(self.name) {
            task.watchers -= 1;
            if task.watchers == 0 {
                watched.remove(self.name);
            }
        }
    }
}

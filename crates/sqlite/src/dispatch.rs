//! Those who wait inside this process: for work, and for news of a task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nobat_core::ports::TaskName;
use nobat_core::task::Task;
use nobat_core::time::Timestamp;
use tokio::sync::{Notify, oneshot, watch};

/// Who waits for what.
pub(crate) struct Dispatch {
    workers: Mutex<VecDeque<Worker>>,
    watched: Mutex<HashMap<TaskName, Watched>>,
    next_due: watch::Sender<Option<Timestamp>>,
}

/// A worker with room for so many tasks.
struct Worker {
    room: usize,
    hand: oneshot::Sender<Vec<Task>>,
}

/// A task that so many wait for news of.
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
    /// Puts a worker in line. Dropping the receiver takes it out again.
    pub(crate) fn line_up(&self, room: usize) -> oneshot::Receiver<Vec<Task>> {
        let (hand, tasks) = oneshot::channel();
        lock(&self.workers).push_back(Worker { room, hand });
        tasks
    }

    /// How many tasks those in line have room for.
    pub(crate) fn wanted(&self) -> usize {
        let mut workers = lock(&self.workers);
        workers.retain(|worker| !worker.hand.is_closed());
        workers.iter().map(|worker| worker.room).sum()
    }

    /// Gives claimed tasks to those in line, and returns what nobody was there any more to take.
    pub(crate) fn hand_over(&self, mut tasks: Vec<Task>) -> Vec<Task> {
        while !tasks.is_empty() {
            let Some(worker) = lock(&self.workers).pop_front() else { break };
            let rest = tasks.split_off(worker.room.min(tasks.len()));
            let refused = worker.hand.send(tasks).err().unwrap_or_default();
            tasks = rest;
            tasks.extend(refused);
        }
        tasks
    }

    /// When the next task is due, for those in line to wake up by.
    pub(crate) fn next_due(&self) -> watch::Receiver<Option<Timestamp>> {
        self.next_due.subscribe()
    }

    pub(crate) fn set_next_due(&self, due: Option<Timestamp>) {
        self.next_due.send_if_modified(|known| std::mem::replace(known, due) != due);
    }

    /// Resolves when the task is told of.
    pub(crate) async fn watch(&self, name: &TaskName) {
        let watcher = Watcher::new(self, name);
        watcher.news.notified().await;
    }

    /// Tells of tasks that were changed.
    pub(crate) fn tell(&self, names: &[TaskName]) {
        let watched = lock(&self.watched);
        if !watched.is_empty() {
            names.iter().filter_map(|name| watched.get(name)).for_each(|task| task.news.notify_waiters());
        }
    }
}

/// One who waits for news; dropping it stops the waiting.
struct Watcher<'a> {
    dispatch: &'a Dispatch,
    name: &'a TaskName,
    news: Arc<Notify>,
}

impl<'a> Watcher<'a> {
    fn new(dispatch: &'a Dispatch, name: &'a TaskName) -> Self {
        let mut watched = lock(&dispatch.watched);
        let task = watched.entry(name.clone()).or_insert_with(|| Watched { news: Arc::default(), watchers: 0 });
        task.watchers += 1;
        Self { dispatch, name, news: task.news.clone() }
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        let mut watched = lock(&self.dispatch.watched);
        if let Some(task) = watched.get_mut(self.name) {
            task.watchers -= 1;
            if task.watchers == 0 {
                watched.remove(self.name);
            }
        }
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil what they guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

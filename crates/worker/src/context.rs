//! What a handler knows of the task it runs, and can say of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nobat_core::endpoint::Endpoint;
use nobat_core::id::TaskId;
use nobat_core::json::Json;
use nobat_core::name::Name;
use nobat_core::ports::TaskName;
use nobat_core::task::Task;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::Course;

/// One attempt, as its handler sees it.
pub struct TaskContext {
    /// Which task this is.
    pub name: TaskName,
    /// The task whose end this one reports, if it is a callback.
    pub parent: Option<TaskId>,
    /// Which of the attempts of this generation this is, from 1.
    pub attempt: u32,
    /// Its number on record, which no other attempt of the task has, in no generation.
    pub number: u64,
    /// How many attempts its retry policy allows.
    pub max_attempts: u32,
    /// What to pass on downstream, so that a repeated call can be told from a new one.
    pub idempotency_key: String,
    /// How long this attempt may take in all.
    pub timeout: Duration,
    /// Through how many tasks the request came that submitted it.
    pub(crate) hops: u8,
    /// The endpoint that it goes to.
    pub(crate) endpoint: Option<(Name, Arc<Endpoint>)>,
    cancel: CancellationToken,
    beaten: AtomicBool,
    progress: Mutex<Option<Json>>,
    progressed: Notify,
}

/// The longest progress note that is kept, in bytes of JSON.
pub const MAX_PROGRESS: usize = 4 * 1024;

impl TaskContext {
    /// The context of the attempt that `task` is at.
    pub(crate) fn new(task: &Task, course: &Course) -> Self {
        Self {
            name: task.name(),
            parent: task.settings.parent,
            attempt: task.attempt,
            number: task.token,
            max_attempts: course.max_attempts(&task.settings),
            idempotency_key: task.idempotency_key(),
            timeout: course.timeout(&task.settings),
            hops: task.settings.hops,
            endpoint: course.endpoint.clone(),
            cancel: CancellationToken::new(),
            beaten: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Notify::new(),
        }
    }

    /// The context of a call that is made for nobody's task.
    pub(crate) fn of_trial(name: TaskName, endpoint: (Name, Arc<Endpoint>), timeout: Duration) -> Self {
        Self {
            idempotency_key: name.id.to_string(),
            name,
            parent: None,
            attempt: 1,
            number: 1,
            max_attempts: 1,
            timeout,
            hops: 0,
            endpoint: Some(endpoint),
            cancel: CancellationToken::new(),
            beaten: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Notify::new(),
        }
    }

    /// Says how far the work is, in any JSON of up to [`MAX_PROGRESS`] bytes; what is longer is dropped.
    ///
    /// It is stored within about a second, the last word winning, and shown with the task.
    pub fn progress<T: Serialize>(&self, progress: &T) {
        match Json::from_value(progress) {
            Ok(json) if json.get().len() <= MAX_PROGRESS => {
                *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(json);
                self.progressed.notify_one();
            }
            _ => tracing::warn!(task = %self.name.id, "a progress note was dropped: it is too long, or not JSON"),
        }
    }

    /// Resolves when somebody has called the task off.
    ///
    /// A handler that returns after that, whatever it returns but a result, ends the task as `canceled`. One that does not
    /// return within some seconds is dropped.
    pub async fn canceled(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether somebody has called the task off.
    pub fn is_canceled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Notes that the lease is being renewed.
    pub(crate) fn note_beat(&self) {
        self.beaten.store(true, Ordering::Relaxed);
    }

    /// Whether the lease was ever renewed.
    pub(crate) fn has_beaten(&self) -> bool {
        self.beaten.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Resolves when there is progress to store.
    pub(crate) async fn progressed(&self) {
        self.progressed.notified().await;
    }

    pub(crate) fn take_progress(&self) -> Option<Json> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

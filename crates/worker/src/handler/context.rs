//! The context of an attempt, for its handler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nobat_core::config::endpoint::Endpoint;
use nobat_core::json::Json;
use nobat_core::task::{CompletionToken, Task, TaskKey};
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Name;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::plan::AttemptPlan;
use crate::handler::failure::Failure;
use crate::handler::tokens::{TokenIssuer, unavailable};

/// Data of one attempt, for its handler.
pub struct TaskContext {
    /// Tenant and id of the task.
    pub name: TaskKey,
    /// For a callback: the task whose end the callback reports. Otherwise `None`.
    pub parent: Option<TaskId>,
    /// Number of the attempt in this generation, from 1.
    pub attempt: u32,
    /// Number of the attempt over all generations of the task. Unique for the task.
    pub number: u64,
    /// Maximum number of attempts by the task's retry policy.
    pub max_attempts: u32,
    /// Key to send with every call, so that the receiver can recognize a repeated call.
    pub idempotency_key: String,
    /// Maximum duration of this attempt.
    pub timeout: Duration,
    /// Number of tasks that led to the submission of this task.
    pub(crate) hops: u8,
    /// Endpoint that the task names.
    pub(crate) endpoint: Option<(Name, Arc<Endpoint>)>,
    tokens: Option<Arc<TokenIssuer>>,
    /// Completion token of the attempt, and the maximum duration of the wait.
    wait: OnceLock<(CompletionToken, Duration)>,
    cancel: CancellationToken,
    beaten: AtomicBool,
    progress: Mutex<Option<Json>>,
    progressed: Notify,
}

/// Maximum size of a progress note, in bytes of JSON: 4 KiB.
pub const MAX_PROGRESS: usize = 4 * 1024;

impl TaskContext {
    /// Creates the context of the task's current attempt.
    pub(crate) fn new(task: &Task, plan: &AttemptPlan) -> Self {
        Self {
            name: task.key(),
            parent: task.options.parent,
            attempt: task.attempt,
            number: task.token,
            max_attempts: plan.max_attempts(&task.options),
            idempotency_key: task.idempotency_key(),
            timeout: plan.timeout(&task.options),
            hops: task.options.hops,
            endpoint: plan.endpoint.clone(),
            tokens: None,
            wait: OnceLock::new(),
            cancel: CancellationToken::new(),
            beaten: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Notify::new(),
        }
    }

    /// Adds an issuer of completion tokens.
    pub(crate) fn issuing(self, tokens: &Arc<TokenIssuer>) -> Self {
        Self { tokens: Some(Arc::clone(tokens)), ..self }
    }

    /// Creates the context of a test call, which belongs to no task.
    pub(crate) fn of_trial(name: TaskKey, endpoint: (Name, Arc<Endpoint>), timeout: Duration) -> Self {
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
            tokens: None,
            wait: OnceLock::new(),
            cancel: CancellationToken::new(),
            beaten: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Notify::new(),
        }
    }

    /// Reports progress as a note: any JSON of at most [`MAX_PROGRESS`] bytes. Longer notes are dropped.
    ///
    /// The note is stored within about a second and shown with the task. It replaces the previous note.
    pub fn progress<T: Serialize>(&self, progress: &T) {
        match Json::from_value(progress) {
            Ok(json) if json.get().len() <= MAX_PROGRESS => {
                *self.progress.lock() = Some(json);
                self.progressed.notify_one();
            }
            _ => {
                tracing::warn!(task = %self.name.id, "a progress note was dropped, because it is not JSON of at most 4 KiB");
            }
        }
    }

    /// Reports a progress note of any length. Only for internal kinds.
    pub(crate) fn set_progress(&self, progress: Json) {
        *self.progress.lock() = Some(progress);
        self.progressed.notify_one();
    }

    /// Resolves when the task has been canceled.
    ///
    /// If the handler then returns an error, the task ends as `canceled`. If the handler does not return
    /// within 5 seconds, the worker drops the handler's future.
    pub async fn canceled(&self) {
        self.cancel.cancelled().await;
    }

    /// Returns true if the task has been canceled.
    pub fn is_canceled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns the token with which the receiver of the call reports the outcome of this attempt later. `None`
    /// if the task has no [`Handler::wait`](crate::handler::Handler::wait). The token is secret.
    pub fn completion_token(&self) -> Option<&str> {
        self.wait.get().map(|(token, _)| token.as_str())
    }

    /// Maximum duration of the wait that follows a successful attempt. `None` if the task does not wait.
    pub(crate) fn wait_timeout(&self) -> Option<Duration> {
        self.wait.get().map(|(_, timeout)| *timeout)
    }

    /// Issues the completion token of the attempt.
    pub(crate) async fn issue_token(&self, timeout: Duration) -> Result<(), Failure> {
        // The write outdates the worker's copy of the task, as a heartbeat does.
        self.note_beat();
        let tokens = self.tokens.as_ref().ok_or_else(unavailable)?;
        let token = tokens.issue(&self.name, self.number).await?;
        self.wait.set((token, timeout)).ok();
        Ok(())
    }

    /// Records that the worker sends a heartbeat.
    pub(crate) fn note_beat(&self) {
        self.beaten.store(true, Ordering::Relaxed);
    }

    /// Returns true if the worker has sent a heartbeat.
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
        self.progress.lock().take()
    }
}

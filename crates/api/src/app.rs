//! What the handlers need of the world.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::Backend;
use nobat_core::name::Tenant;
use nobat_core::ports::Clock;
use nobat_core::submit::Kinds;
use tokio_util::sync::CancellationToken;

/// What the handlers need of the world, shared by all of them.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// Where tasks are kept and hinted.
    pub backend: Backend,
    /// What time it is, and waiting for it to pass.
    pub clock: Arc<dyn Clock>,
    /// What is run here; it judges submissions.
    pub kinds: Arc<dyn Kinds>,
    /// The longest timeout that workers grant to one attempt.
    pub max_timeout: Duration,
    /// How long `?wait=` holds an answer at most.
    pub max_wait: Duration,
    /// Seals the cursors of lists. All processes behind one address need the same one.
    pub cursor_key: [u8; 32],
    /// Once it fires, answers that are being held are given at once.
    pub shutdown: CancellationToken,
}

impl App {
    /// Shares these parts among the handlers.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Whose tasks a request is about: an installation has one tenant for now.
    pub(crate) fn tenant() -> Tenant {
        Tenant::default()
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

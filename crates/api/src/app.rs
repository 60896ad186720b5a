//! What the handlers need of the world.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use nobat_core::backend::Backend;
use nobat_core::directory::{Directory, Edition};
use nobat_core::endpoint::Tester;
use nobat_core::ports::{Clock, QueueLoad};
use nobat_core::submit::Kinds;
use nobat_core::vault::VaultSource;
use tokio_util::sync::CancellationToken;

use crate::body_budget::BodyBudget;
use crate::door::Door;
use crate::health::Readiness;
use crate::keyring::Keyring;
use crate::permits::Permits;
use crate::quota::Quota;
use crate::test_slots::TestSlots;

/// What the handlers need of the world, shared by all of them.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: Parts,
    keyring: Keyring,
    bodies: Arc<BodyBudget>,
    permits: Permits,
    quota: Quota,
    readiness: Readiness,
    directory: Directory,
    test_slots: TestSlots,
}

/// What an [`App`] is made of.
pub struct Parts {
    /// Where tasks are kept and hinted, and where keys and settings are.
    pub backend: Backend,
    /// What time it is, and waiting for it to pass.
    pub clock: Arc<dyn Clock>,
    /// What is run here; it judges submissions.
    pub kinds: Arc<dyn Kinds>,
    /// Who is let in.
    pub door: Door,
    /// How often the waiting tasks of a tenant are counted whose number is limited: to count can be costly.
    pub recount: Duration,
    /// The longest timeout that workers grant to one attempt.
    pub max_timeout: Duration,
    /// How long `?wait=` holds an answer at most.
    pub max_wait: Duration,
    /// Calls endpoints for those who want to see what comes of it.
    pub tester: Arc<dyn Tester>,
    /// Seals secrets before they are kept.
    pub vault: Arc<dyn VaultSource>,
    /// Seals the cursors of lists. All processes behind one address need the same one.
    pub cursor_key: [u8; 32],
    /// What is shared with the workers of this process, so that they know at once what was changed here.
    pub edition: Edition,
    /// Once it fires, answers that are being held are given at once.
    pub shutdown: CancellationToken,
}

impl App {
    /// Shares these parts among the handlers.
    pub fn new(parts: Parts) -> Self {
        let keyring = Keyring::new(parts.door.keys);
        let directory = Directory::new(Arc::clone(&parts.backend.registry), Arc::clone(&parts.clock), parts.edition.clone());
        let (permits, quota, readiness) = (Permits::default(), Quota::default(), Readiness::default());
        let test_slots = TestSlots::default();
        Self(Arc::new(Inner { parts, keyring, bodies: Arc::default(), permits, quota, readiness, directory, test_slots }))
    }

    /// The keys that came by lately.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    /// The request bodies in memory.
    pub(crate) fn bodies(&self) -> &Arc<BodyBudget> {
        &self.0.bodies
    }

    /// The requests that tenants have been granted.
    pub(crate) fn permits(&self) -> &Permits {
        &self.0.permits
    }

    /// Whether store and queue answered a moment ago.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// What is laid down for endpoints, queues and kinds.
    pub(crate) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// The tests of endpoints that are under way.
    pub(crate) fn test_slots(&self) -> &TestSlots {
        &self.0.test_slots
    }

    /// Load of everything in this process that is bounded and shared by tenants.
    pub(crate) fn loads(&self) -> Vec<QueueLoad> {
        let own = [self.bodies().load(), self.keyring().lookups().load(), self.test_slots().load()];
        self.backend.store.load().into_iter().chain(own).collect()
    }

    /// How many tasks of tenants wait.
    pub(crate) fn quota(&self) -> &Quota {
        &self.0.quota
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

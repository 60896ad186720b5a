//! How many tasks of a tenant may wait: counted now and then, and what is accepted in between added to the count.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use nobat_core::name::Tenant;
use nobat_core::ports::StoreError;
use nobat_core::time::Timestamp;

use crate::app::App;

/// What was counted last.
#[derive(Default)]
pub(crate) struct Quota(Mutex<HashMap<Tenant, Count>>);

#[derive(Clone, Copy)]
struct Count {
    waiting: usize,
    counted_at: Timestamp,
}

impl Quota {
    /// Whether so many more may wait. They are taken for accepted.
    ///
    /// What other processes accept, and what was begun, shows at the next count only.
    pub(crate) async fn admits(
        &self,
        app: &App,
        tenant: &Tenant,
        limit: NonZeroU32,
        more: usize,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let limit = limit.get() as usize;
        if !self.is_fresh(app, tenant, now) {
            let waiting = app.backend.store.waiting(tenant, limit).await?;
            // Others may have counted meanwhile, and added what they accepted.
            if !self.is_fresh(app, tenant, now) {
                self.counts().insert(tenant.clone(), Count { waiting, counted_at: now });
            }
        }
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(tenant) else { return Ok(true) };
        let is_admitted = count.waiting + more <= limit;
        if is_admitted {
            count.waiting += more;
        }
        Ok(is_admitted)
    }

    fn is_fresh(&self, app: &App, tenant: &Tenant, now: Timestamp) -> bool {
        self.counts().get(tenant).is_some_and(|count| count.counted_at <= now && now < count.counted_at + app.recount)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Tenant, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

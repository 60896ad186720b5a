//! Limit on the total size of the request bodies in memory.
//!
//! A body takes up to 256 KiB while its client sends it, and then until the server has answered. Without a
//! bound, a client with many connections that stalls in the middle of each body fills the memory.

use std::collections::HashMap;
use std::sync::Arc;

use nobat_core::ports::QueueLoad;
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;

/// Maximum number of bytes of bodies in memory, over all tenants: 64 MiB.
const MAX_TOTAL: usize = 64 * 1024 * 1024;
/// Maximum number of bytes of one tenant's bodies: half of the total, so that no tenant can take everything.
const MAX_PER_TENANT: usize = MAX_TOTAL / 2;

/// Bytes of request bodies in memory.
#[derive(Default)]
pub(crate) struct BodyBudget(Mutex<ReservedBytes>);

#[derive(Default)]
struct ReservedBytes {
    total: usize,
    by_tenant: HashMap<Tenant, usize>,
    refused: u64,
}

/// Part of the budget that one body has reserved. Dropping it releases that part.
pub(crate) struct Reservation {
    budget: Arc<BodyBudget>,
    tenant: Tenant,
    bytes: usize,
}

/// Error: the budget has no room for the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

impl BodyBudget {
    /// Returns an empty reservation.
    pub(crate) fn reserve(self: &Arc<Self>, tenant: &Tenant) -> Reservation {
        Reservation { budget: Arc::clone(self), tenant: tenant.clone(), bytes: 0 }
    }

    /// Returns the number of bytes in memory and of refused bodies.
    pub(crate) fn load(&self) -> QueueLoad {
        let ReservedBytes { total, refused, .. } = *self.0.lock();
        QueueLoad {
            name: "body_bytes",
            length: total,
            limit: MAX_TOTAL,
            tenant_limit: MAX_PER_TENANT,
            refused,
        }
    }
}

impl Reservation {
    /// Fails if there is no room for so many bytes now. Reserves nothing, so a client that announces a body
    /// and sends none takes no budget from other clients.
    pub(crate) fn check_room(&self, bytes: usize) -> Result<(), OverBudget> {
        self.room(&mut self.budget.0.lock(), bytes).map(drop)
    }

    /// Reserves more bytes. Reserves nothing if it fails.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let mut held = self.budget.0.lock();
        let of_tenant = self.room(&mut held, bytes)?;
        held.total += bytes;
        held.by_tenant.insert(self.tenant.clone(), of_tenant + bytes);
        self.bytes += bytes;
        Ok(())
    }

    /// Returns the number of bytes that the tenant holds, if there is room for so many more. Otherwise counts
    /// a refusal.
    fn room(&self, held: &mut ReservedBytes, bytes: usize) -> Result<usize, OverBudget> {
        let of_tenant = held.by_tenant.get(&self.tenant).copied().unwrap_or_default();
        if held.total + bytes > MAX_TOTAL || of_tenant + bytes > MAX_PER_TENANT {
            held.refused += 1;
            return Err(OverBudget);
        }
        Ok(of_tenant)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.0.lock();
        held.total -= self.bytes;
        if let Some(of_tenant) = held.by_tenant.get_mut(&self.tenant) {
            *of_tenant -= self.bytes;
            if *of_tenant == 0 {
                held.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_gets_at_most_half_of_the_budget() {
        let budget = Arc::new(BodyBudget::default());
        let [one, two, three] = ["one", "two", "three"].map(|name| Tenant::new(name).unwrap());
        let mut first = budget.reserve(&one);
        // `check_room` reserves nothing.
        assert_eq!(
            (first.check_room(MAX_PER_TENANT), first.check_room(MAX_PER_TENANT + 1)),
            (Ok(()), Err(OverBudget))
        );
        assert_eq!(first.grow(MAX_PER_TENANT), Ok(()));
        assert_eq!((budget.reserve(&one).grow(1), first.grow(1)), (Err(OverBudget), Err(OverBudget)));
        let mut second = budget.reserve(&two);
        assert_eq!(second.grow(MAX_TOTAL - MAX_PER_TENANT), Ok(()));
        assert_eq!(budget.reserve(&three).grow(1), Err(OverBudget));
        drop(first);
        assert_eq!((budget.reserve(&three).grow(1), budget.load().refused), (Ok(()), 4));
        drop(second);
        let held = budget.0.lock();
        assert_eq!((held.total, held.by_tenant.len()), (0, 0));
    }
}

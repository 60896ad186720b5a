//! Limit on the total size of the request bodies in memory.
//!
//! A body occupies up to 1 MiB of memory until the server has answered. Without this limit, a client could
//! open many connections, stop in the middle of each body, and fill the memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use nobat_core::ports::QueueLoad;
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;

/// Maximum total size of the request bodies of all tenants, in bytes: 64 MiB.
const MAX_TOTAL: usize = 64 * 1024 * 1024;
/// Maximum total size of one tenant's request bodies, in bytes: half of [`MAX_TOTAL`].
const MAX_PER_TENANT: usize = MAX_TOTAL / 2;
/// Maximum total size of the bodies of all requests to sources, in bytes: a quarter of [`MAX_TOTAL`]. Clients
/// without credentials can send such requests, so they must not take the share of a tenant.
const MAX_OF_PROVIDERS: usize = MAX_TOTAL / 4;
/// Maximum total size of the bodies of requests to sources from one client network, in bytes.
const MAX_PER_PROVIDER: usize = MAX_OF_PROVIDERS / 4;

/// Counter of the bytes of request bodies in memory.
#[derive(Default)]
pub(crate) struct BodyBudget(Mutex<ReservedBytes>);

#[derive(Default)]
struct ReservedBytes {
    total: usize,
    /// Bytes of all requests to sources.
    of_providers: usize,
    by_owner: HashMap<BodyOwner, usize>,
    refused: u64,
}

/// Clients that share a part of the budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BodyOwner {
    /// Clients with an API key of this tenant.
    Tenant(Tenant),
    /// Clients of this network that send requests to sources. `None`: all clients whose address is unknown.
    Provider(Option<IpAddr>),
}

/// Bytes of the budget that one body has reserved. Dropping the reservation releases them.
pub(crate) struct Reservation {
    budget: Arc<BodyBudget>,
    owner: BodyOwner,
    bytes: usize,
}

/// Error: the budget has no room for the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverBudget;

impl BodyBudget {
    /// Returns an empty reservation.
    pub(crate) fn reserve(self: &Arc<Self>, owner: BodyOwner) -> Reservation {
        Reservation { budget: Arc::clone(self), owner, bytes: 0 }
    }

    /// Returns the number of reserved bytes and the number of refused bodies.
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
    fn is_of_provider(&self) -> bool {
        matches!(self.owner, BodyOwner::Provider(_))
    }

    /// Fails if the budget has no room for this many more bytes. Reserves nothing: a client that announces a
    /// body and never sends it must not take budget from other clients.
    pub(crate) fn check_room(&self, bytes: usize) -> Result<(), OverBudget> {
        self.room(&mut self.budget.0.lock(), bytes).map(drop)
    }

    /// Reserves this many more bytes. A failed call reserves nothing.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let mut held = self.budget.0.lock();
        let of_owner = self.room(&mut held, bytes)?;
        held.total += bytes;
        if self.is_of_provider() {
            held.of_providers += bytes;
        }
        held.by_owner.insert(self.owner.clone(), of_owner + bytes);
        self.bytes += bytes;
        Ok(())
    }

    /// Returns the number of bytes that the owner has reserved. If the budget has no room for `bytes` more,
    /// counts a refusal and fails.
    fn room(&self, held: &mut ReservedBytes, bytes: usize) -> Result<usize, OverBudget> {
        let of_owner = held.by_owner.get(&self.owner).copied().unwrap_or_default();
        let max = if self.is_of_provider() { MAX_PER_PROVIDER } else { MAX_PER_TENANT };
        let is_over = self.is_of_provider() && held.of_providers + bytes > MAX_OF_PROVIDERS;
        if is_over || held.total + bytes > MAX_TOTAL || of_owner + bytes > max {
            held.refused += 1;
            return Err(OverBudget);
        }
        Ok(of_owner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.0.lock();
        held.total -= self.bytes;
        if self.is_of_provider() {
            held.of_providers -= self.bytes;
        }
        if let Some(of_owner) = held.by_owner.get_mut(&self.owner) {
            *of_owner -= self.bytes;
            if *of_owner == 0 {
                held.by_owner.remove(&self.owner);
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
        let [one, two, three] =
            ["one", "two", "three"].map(|name| BodyOwner::Tenant(Tenant::new(name).unwrap()));
        let mut first = budget.reserve(one.clone());
        // `check_room` reserves nothing.
        assert_eq!(
            (first.check_room(MAX_PER_TENANT), first.check_room(MAX_PER_TENANT + 1)),
            (Ok(()), Err(OverBudget))
        );
        assert_eq!(first.grow(MAX_PER_TENANT), Ok(()));
        assert_eq!((budget.reserve(one.clone()).grow(1), first.grow(1)), (Err(OverBudget), Err(OverBudget)));
        let mut second = budget.reserve(two);
        assert_eq!(second.grow(MAX_TOTAL - MAX_PER_TENANT), Ok(()));
        assert_eq!(budget.reserve(three.clone()).grow(1), Err(OverBudget));
        drop(first);
        assert_eq!((budget.reserve(three.clone()).grow(1), budget.load().refused), (Ok(()), 4));
        drop(second);
        let network = |last: u8| BodyOwner::Provider(Some([203, 0, 113, last].into()));
        let mut providers: Vec<_> = (0..4).map(|last| budget.reserve(network(last))).collect();
        for provider in &mut providers {
            assert_eq!((provider.grow(MAX_PER_PROVIDER), provider.grow(1)), (Ok(()), Err(OverBudget)));
        }
        assert_eq!(budget.reserve(network(4)).grow(1), Err(OverBudget));
        assert_eq!(budget.reserve(one).grow(MAX_PER_TENANT), Ok(()), "tenants have their own share");
        drop(providers);
        let held = budget.0.lock();
        assert_eq!((held.total, held.of_providers, held.by_owner.len()), (0, 0, 0));
    }
}

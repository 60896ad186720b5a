//! Worker shares: running tasks of one tenant cannot take all worker slots from the other tenants.
//!
//! The rule is the dynamic threshold of shared-buffer switches (Choudhury and Hahne, 1998). A tenant gets
//! another slot only while it holds fewer than [`SLOTS_PER_FREE_SLOT`] times the free slots. One tenant alone
//! can hold seven eighths of all slots, and two tenants can hold seven fifteenths each. Some slots stay free
//! for a tenant without running tasks.

use std::collections::{BTreeMap, BTreeSet};

use nobat_core::task::Task;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;

/// Number of slots that a tenant can hold per free slot. With fewer than eight slots in total, none is kept
/// free.
const SLOTS_PER_FREE_SLOT: usize = 7;

/// Worker slots of this process and the tenants that hold them.
///
/// The rule applies once a second tenant has submitted a task. An installation with one tenant needs no free
/// slots.
#[derive(Default)]
pub(crate) struct WorkerShares {
    running: BTreeMap<Tenant, BTreeSet<TaskId>>,
    held: usize,
    /// Highest sum of held and offered slots so far.
    capacity: usize,
    first_tenant: Option<Tenant>,
    has_several_tenants: bool,
}

impl WorkerShares {
    /// Records that the tenant has a task.
    pub(crate) fn note_tenant(&mut self, tenant: &Tenant) {
        match &self.first_tenant {
            _ if self.has_several_tenants => {}
            None => self.first_tenant = Some(tenant.clone()),
            Some(first) => self.has_several_tenants = first != tenant,
        }
    }

    /// Records the number of additional slots that workers offer.
    pub(crate) fn note_offer(&mut self, free: usize) {
        self.capacity = self.capacity.max(self.held + free);
    }

    /// Records that a worker got the task.
    pub(crate) fn start(&mut self, task: &Task) {
        if self.running.entry(task.tenant.clone()).or_default().insert(task.id) {
            self.held += 1;
        }
    }

    /// Records that the task no longer runs. Has no effect on a task that was not started here.
    pub(crate) fn end(&mut self, tenant: &Tenant, id: &TaskId) {
        if let Some(tasks) = self.running.get_mut(tenant)
            && tasks.remove(id)
        {
            self.held -= 1;
            if tasks.is_empty() {
                self.running.remove(tenant);
            }
        }
    }

    /// Returns the number of slots that the tenant may take now.
    pub(crate) fn allowance(&self, tenant: &Tenant) -> usize {
        if !self.has_several_tenants {
            return usize::MAX;
        }
        let free = self.capacity.saturating_sub(self.held);
        let held = self.running.get(tenant).map_or(0, BTreeSet::len);
        // Each slot that the tenant takes raises `held` by one and lowers `free` by one.
        match (SLOTS_PER_FREE_SLOT * free).checked_sub(held) {
            None | Some(0) => 0,
            Some(room) => (room - 1) / (SLOTS_PER_FREE_SLOT + 1) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use nobat_core::types::time::Timestamp;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn id(number: usize) -> TaskId {
        TaskId::new(Timestamp::EPOCH, u128::try_from(number).unwrap())
    }

    /// Creates the shares of `capacity` slots, with these tenants known.
    fn shares(capacity: usize, tenants: &[&str]) -> WorkerShares {
        let mut shares = WorkerShares::default();
        shares.note_offer(capacity);
        for name in tenants {
            shares.note_tenant(&tenant(name));
        }
        shares
    }

    impl WorkerShares {
        /// Takes as many slots as the tenant may, one by one.
        fn fill(&mut self, name: &str) -> usize {
            let tenant = tenant(name);
            let before = self.held;
            while self.allowance(&tenant) > 0 {
                let number = self.held;
                self.running.entry(tenant.clone()).or_default().insert(id(number));
                self.held += 1;
            }
            self.held - before
        }
    }

    #[test]
    fn sole_tenant_may_take_all_slots() {
        assert_eq!(shares(128, &["a", "a"]).allowance(&tenant("a")), usize::MAX);
    }

    #[test]
    fn tenant_among_several_leaves_an_eighth_free() {
        let mut shares = shares(128, &["a", "b"]);
        assert_eq!(shares.allowance(&tenant("a")), 112);
        assert_eq!(shares.fill("a"), 112);
        assert_eq!(shares.fill("b"), 14, "seven eighths of the rest");
        assert_eq!(shares.fill("c"), 2);
    }

    #[test]
    fn few_slots_are_all_used() {
        for capacity in 1..8 {
            assert_eq!(shares(capacity, &["a", "b"]).fill("a"), capacity, "{capacity}");
        }
        assert_eq!(shares(8, &["a", "b"]).fill("a"), 7);
    }

    #[test]
    fn an_ended_task_frees_its_slot_once() {
        let mut shares = shares(16, &["a", "b"]);
        assert_eq!(shares.fill("a"), 14);
        shares.end(&tenant("a"), &id(0));
        shares.end(&tenant("a"), &id(0));
        shares.end(&tenant("b"), &id(1));
        assert_eq!((shares.held, shares.allowance(&tenant("a"))), (13, 1));
    }
}

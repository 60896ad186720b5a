//! Order in which tenants get worker slots. Tenants take turns, so that a long backlog of one tenant does not
//! delay the tasks of other tenants.

use std::collections::{BTreeMap, BTreeSet};

use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

/// Tenants with waiting tasks. Each tenant has a time before which none of its tasks is due.
#[derive(Default)]
pub(crate) struct TenantScheduler {
    next: BTreeMap<Tenant, Timestamp>,
    /// The entries of `next`, earliest first.
    by_moment: BTreeSet<(Timestamp, Tenant)>,
    /// Tenant that had the last turn.
    served: Option<Tenant>,
}

impl TenantScheduler {
    /// Records that a task of the tenant is due at `at`, if that is earlier than the recorded time.
    pub(crate) fn waits(&mut self, tenant: &Tenant, at: Timestamp) {
        if self.next.get(tenant).is_none_or(|next| at < *next) {
            self.set(tenant, Some(at));
        }
    }

    /// Sets the time of the tenant's next task. `None` means no waiting tasks.
    pub(crate) fn set(&mut self, tenant: &Tenant, at: Option<Timestamp>) {
        if let Some(before) = self.next.remove(tenant) {
            self.by_moment.remove(&(before, tenant.clone()));
        }
        if let Some(at) = at {
            self.next.insert(tenant.clone(), at);
            self.by_moment.insert((at, tenant.clone()));
        }
    }

    /// Returns the earliest time at which a task is due.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.by_moment.first().map(|(at, _)| *at)
    }

    /// Returns the earliest time at which a task of a tenant other than these is due.
    pub(crate) fn earliest_of_others(&self, tenants: &BTreeSet<Tenant>) -> Option<Timestamp> {
        self.by_moment.iter().find(|(_, tenant)| !tenants.contains(tenant)).map(|(at, _)| *at)
    }

    /// Returns the tenants with due tasks, in the order of their turns.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Tenant> {
        let mut due: Vec<Tenant> = self
            .by_moment
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, tenant)| tenant.clone())
            .collect();
        due.sort_unstable();
        if let Some(served) = &self.served {
            let first = due.partition_point(|tenant| tenant <= served);
            due.rotate_left(first);
        }
        due
    }

    /// Records that the tenant had its turn. The next turn goes to the next tenant in the order of names.
    pub(crate) fn serve(&mut self, tenant: Tenant) {
        self.served = Some(tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn due(scheduler: &TenantScheduler, now: i64) -> String {
        scheduler.due(Timestamp::from_millis(now)).iter().map(Tenant::as_str).collect()
    }

    #[test]
    fn tenants_with_due_tasks_take_turns() {
        let mut scheduler = TenantScheduler::default();
        for (name, at) in [("c", 1), ("a", 2), ("b", 9)] {
            scheduler.waits(&tenant(name), Timestamp::from_millis(at));
        }
        assert_eq!(
            (due(&scheduler, 0), due(&scheduler, 2), due(&scheduler, 9)),
            (String::new(), "ac".into(), "abc".into())
        );
        scheduler.serve(tenant("a"));
        assert_eq!((due(&scheduler, 2), due(&scheduler, 9)), ("ca".into(), "bca".into()));
        scheduler.serve(tenant("c"));
        assert_eq!(due(&scheduler, 9), "abc");
    }

    #[test]
    fn earliest_due_time_of_a_tenant_counts() {
        let mut scheduler = TenantScheduler::default();
        let at = Timestamp::from_millis;
        scheduler.waits(&tenant("a"), at(5));
        scheduler.waits(&tenant("a"), at(7));
        assert_eq!(scheduler.earliest(), Some(at(5)));
        scheduler.waits(&tenant("b"), at(3));
        scheduler.set(&tenant("b"), Some(at(8)));
        assert_eq!(scheduler.earliest(), Some(at(5)));
        scheduler.set(&tenant("a"), None);
        assert_eq!((scheduler.earliest(), due(&scheduler, 7)), (Some(at(8)), String::new()));
        scheduler.waits(&tenant("a"), at(1));
        assert_eq!(scheduler.earliest_of_others(&[tenant("a")].into()), Some(at(8)));
        assert_eq!(scheduler.earliest_of_others(&[tenant("a"), tenant("b")].into()), None);
    }
}

//! Limits on `POST /v1/endpoints/{name}/test`, which bypasses all other limits of an endpoint.

use std::sync::Arc;

use nobat_core::ports::QueueLoad;
use nobat_core::types::name::{Name, Tenant};
use parking_lot::Mutex;

use crate::http::error_code::Code;
use crate::http::problem::Problem;

/// Maximum number of tests in progress in this process.
const MAX_IN_ALL: usize = 64;
/// Maximum number of tests in progress for one tenant, so that one tenant does not use up [`MAX_IN_ALL`].
const MAX_OF_TENANT: usize = 8;
/// Maximum number of tests in progress for one endpoint.
const MAX_OF_ENDPOINT: usize = 2;

/// Tests in progress in this process.
#[derive(Clone, Default)]
pub(crate) struct TestSlots(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    endpoints: Vec<(Tenant, Name)>,
    refused: u64,
}

/// One test in progress. Dropping the value makes room for another test.
#[derive(Debug)]
pub(crate) struct TestSlot {
    slots: TestSlots,
    endpoint: (Tenant, Name),
}

impl TestSlots {
    /// Counts one more test as in progress. If a limit is reached, returns a 429 that names the limit.
    pub(crate) fn acquire(&self, tenant: &Tenant, name: &Name) -> Result<TestSlot, Problem> {
        let mut taken = self.0.lock();
        let of_tenant = taken.endpoints.iter().filter(|(other, _)| other == tenant).count();
        let of_endpoint =
            taken.endpoints.iter().filter(|other| (&other.0, &other.1) == (tenant, name)).count();
        let reached = [
            (of_endpoint, MAX_OF_ENDPOINT, "of this endpoint"),
            (of_tenant, MAX_OF_TENANT, "of this tenant"),
            (taken.endpoints.len(), MAX_IN_ALL, "in this process"),
        ];
        if let Some((_, max, of_what)) = reached.into_iter().find(|(count, max, _)| count >= max) {
            taken.refused += 1;
            // Most tests take far less than their maximum of ten seconds, so a retry in a second may succeed.
            return Err(Problem::new(
                Code::TooManyTests,
                format!("{max} tests {of_what} are in progress, which is the maximum; try again after the time in Retry-After"),
            )
            .retry_after(1));
        }
        let endpoint = (tenant.clone(), name.clone());
        taken.endpoints.push(endpoint.clone());
        Ok(TestSlot { slots: self.clone(), endpoint })
    }

    /// Returns the number of tests in progress and the number of refused tests.
    pub(crate) fn load(&self) -> QueueLoad {
        let taken = self.0.lock();
        let (length, refused) = (taken.endpoints.len(), taken.refused);
        QueueLoad { name: "endpoint_test", length, limit: MAX_IN_ALL, tenant_limit: MAX_OF_TENANT, refused }
    }
}

impl std::fmt::Debug for TestSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestSlots").finish_non_exhaustive()
    }
}

impl Drop for TestSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
        if let Some(place) = taken.endpoints.iter().position(|taken| *taken == self.endpoint) {
            taken.endpoints.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Name {
        Name::new(&format!("n{number}")).unwrap()
    }

    fn tenant(number: usize) -> Tenant {
        Tenant::from(name(number))
    }

    #[test]
    fn dropped_slot_frees_its_place_in_every_limit() {
        let slots = TestSlots::default();
        let mut held: Vec<TestSlot> =
            (0..MAX_OF_ENDPOINT).map(|_| slots.acquire(&tenant(0), &name(0)).unwrap()).collect();
        assert!(slots.acquire(&tenant(0), &name(0)).is_err(), "the limit of the endpoint is reached");
        held.extend(
            (MAX_OF_ENDPOINT..MAX_OF_TENANT).map(|number| slots.acquire(&tenant(0), &name(number)).unwrap()),
        );
        assert!(slots.acquire(&tenant(0), &name(99)).is_err(), "the limit of the tenant is reached");
        held.extend(
            (MAX_OF_TENANT..MAX_IN_ALL).map(|number| slots.acquire(&tenant(number), &name(0)).unwrap()),
        );
        assert!(slots.acquire(&tenant(99), &name(0)).is_err(), "the limit of the process is reached");
        held.swap_remove(0);
        assert!(slots.acquire(&tenant(0), &name(0)).is_ok());
        drop(held);
        assert_eq!((slots.load().length, slots.load().refused), (0, 3));
    }
}

//! Bounded queue of operations for one thread, in which tenants take turns.

use std::time::Duration;

use nobat_core::collections::turns::Turns;
use nobat_core::ports::{QueueLoad, StoreError};
use nobat_core::types::name::Tenant;
// `parking_lot` makes a system call only while the thread waits. The standard library's condition variable
// makes one for each notification.
use parking_lot::{Condvar, Mutex};

/// Tenant that an operation belongs to. `None` for operations of the installation: API keys, tenants, the
/// sweeper and polls of workers.
pub(crate) type Owner = Option<Tenant>;

/// Name and limits of a [`TurnQueue`].
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Name of the queue, as `/readyz` shows it.
    pub(crate) name: &'static str,
    /// Maximum number of waiting operations.
    pub(crate) total: usize,
    /// Maximum number of waiting operations of one tenant. Operations of the installation are limited by
    /// `total` alone.
    pub(crate) tenant: usize,
}

/// Operations that wait for a thread.
///
/// Tenants with waiting operations take turns, one operation each. The operations of one tenant run in order
/// of arrival. So a tenant waits for at most one operation of every other tenant.
pub(crate) struct TurnQueue<T> {
    bounds: Bounds,
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    /// Operations with their numbers.
    waiting: Turns<Owner, (u64, T)>,
    next_number: u64,
    refused: u64,
    is_closed: bool,
}

impl<T> TurnQueue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State { waiting: Turns::default(), next_number: 0, refused: 0, is_closed: false };
        Self { bounds, state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Adds an operation. Returns the number of the operation, or [`StoreError::Overloaded`] if a limit is
    /// reached.
    pub(crate) fn push(&self, owner: &Owner, operation: T) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.bounds.total
            || owner.is_some() && state.waiting.len_of(owner) >= self.bounds.tenant
        {
            state.refused += 1;
            return Err(StoreError::Overloaded);
        }
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push(owner.clone(), (number, operation));
        drop(state);
        self.arrived.notify_one();
        Ok(number)
    }

    /// Removes an operation that has not been taken yet.
    pub(crate) fn remove(&self, owner: &Owner, number: u64) {
        self.state.lock().waiting.remove(owner, &number, |(number, _)| *number);
    }

    /// Waits for an operation without taking it. Returns false if none arrived within `time`.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let is_idle = |state: &mut State<T>| state.waiting.is_empty() && !state.is_closed;
        !self.arrived.wait_while_for(&mut self.state.lock(), is_idle, time).timed_out()
    }

    /// Waits for an operation. Takes this operation, and the following operations as long as `has_room`
    /// accepts them.
    ///
    /// Returns nothing once the queue is closed and empty.
    pub(crate) fn take(&self, mut has_room: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.state.lock();
        self.arrived.wait_while(&mut state, |state| state.waiting.is_empty() && !state.is_closed);
        let mut taken = Vec::new();
        while let Some((_, operation)) =
            state.waiting.pop_if(|(_, operation)| has_room(operation) || taken.is_empty())
        {
            taken.push(operation);
        }
        taken
    }

    /// Counts an operation that its caller gave up because it waited too long.
    pub(crate) fn count_refusal(&self) {
        self.state.lock().refused += 1;
    }

    /// Closes the queue. Its thread runs the remaining operations, then ends.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
    }

    pub(crate) fn load(&self) -> QueueLoad {
        let Bounds { name, total, tenant } = self.bounds;
        let state = self.state.lock();
        QueueLoad {
            name,
            length: state.waiting.len(),
            limit: total,
            tenant_limit: tenant,
            refused: state.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { name: "test", total: 6, tenant: 4 };

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name).unwrap()
    }

    fn queue(operations: &[(&str, u32)]) -> TurnQueue<u32> {
        let queue = TurnQueue::new(BOUNDS);
        for (name, operation) in operations {
            queue.push(&Some(tenant(name)), *operation).unwrap();
        }
        queue
    }

    #[test]
    fn tenants_and_the_installation_take_turns() {
        let queue = queue(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]);
        queue.push(&None, 6).unwrap();
        assert_eq!(queue.take(|_| false), [6], "the first is always taken");
        assert_eq!(queue.take(|_| true), [1, 4, 5, 2, 3]);
    }

    #[test]
    fn group_ends_before_an_operation_without_room() {
        let queue = queue(&[("a", 1), ("a", 2), ("b", 1), ("b", 2)]);
        let mut room = 3;
        let group = queue.take(|weight| {
            let has_room = *weight <= room;
            room = room.saturating_sub(*weight);
            has_room
        });
        assert_eq!(group, [1, 1]);
        assert_eq!(queue.load().length, 2);
    }

    #[test]
    fn operation_above_a_bound_is_refused_and_counted() {
        let queue = queue(&[("a", 1), ("a", 2), ("a", 3), ("a", 4)]);
        assert!(matches!(queue.push(&Some(tenant("a")), 5), Err(StoreError::Overloaded)));
        queue.push(&Some(tenant("b")), 6).unwrap();
        queue.push(&None, 7).unwrap();
        assert!(matches!(queue.push(&Some(tenant("c")), 8), Err(StoreError::Overloaded)));
        let load = queue.load();
        assert_eq!((load.length, load.limit, load.tenant_limit, load.refused), (6, 6, 4, 2));
    }

    #[test]
    fn a_removed_operation_makes_room_and_is_not_taken() {
        let queue = queue(&[("a", 1), ("a", 2), ("a", 3), ("a", 4)]);
        queue.remove(&Some(tenant("a")), 1);
        queue.remove(&Some(tenant("a")), 1);
        queue.push(&Some(tenant("a")), 5).unwrap();
        assert_eq!(queue.take(|_| true), [1, 3, 4, 5]);
        queue.remove(&Some(tenant("a")), 0);
        assert_eq!(queue.load().length, 0);
    }

    #[test]
    fn closed_queue_returns_its_remaining_operations() {
        let queue = queue(&[("a", 1)]);
        queue.close();
        assert_eq!(queue.take(|_| true), [1]);
        assert!(queue.take(|_| true).is_empty());
    }
}

//! Reservation and batch of a waiting task.

use crate::limits::rate::Reservation;
use crate::limits::scope::LimitScope;

/// Reservation that a waiting task holds, and batch in which the task waits. The task gives the reservation
/// back and leaves the batch when it ends or waits for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    /// Reservation at a rate limit.
    pub rate: Option<ScopedReservation>,
    /// Batch in which the task waits with other tasks: the number in [`LimitScope::Batch`].
    pub batch: Option<u64>,
}

/// Reservation of a task, and the limiter that granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedReservation {
    /// Limiter that granted the reservation.
    pub scope: LimitScope,
    /// The reservation.
    pub reservation: Reservation,
}

impl Reservations {
    /// Returns true if the task holds no reservation and waits in no batch.
    pub fn is_none(&self) -> bool {
        self.rate.is_none() && self.batch.is_none()
    }
}

impl From<Option<ScopedReservation>> for Reservations {
    fn from(scoped: Option<ScopedReservation>) -> Self {
        Self { rate: scoped, batch: None }
    }
}

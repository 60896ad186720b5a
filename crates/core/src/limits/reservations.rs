//! Reservations and batch places that a waiting task holds.

use crate::limits::rate::Reservation;
use crate::limits::scope::LimitScope;

/// The reservation and the batch place that a waiting task holds. Both are given back when the task ends or
/// waits for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    /// Reservation at a rate limit.
    pub rate: Option<ScopedReservation>,
    /// Batch of its endpoint in which it waits with other tasks: the number in [`LimitScope::Batch`].
    pub batch: Option<u64>,
}

/// Reservation of a task, with its limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedReservation {
    /// The limiter.
    pub scope: LimitScope,
    /// The reservation.
    pub reservation: Reservation,
}

impl Reservations {
    /// Returns true if the task holds nothing.
    pub fn is_none(&self) -> bool {
        self.rate.is_none() && self.batch.is_none()
    }
}

impl From<Option<ScopedReservation>> for Reservations {
    fn from(scoped: Option<ScopedReservation>) -> Self {
        Self { rate: scoped, batch: None }
    }
}

//! Identity of calls, which tells a client's retry of a write from another client's equal write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the calls. A retried call keeps its number, as `crates/aws` keeps the mark in `op` over the SDK's
/// retries.
#[derive(Debug, Default)]
pub struct Calls {
    last: AtomicU64,
    current: AtomicU64,
}

/// Number of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u64);

impl Calls {
    /// Begins a new call.
    pub fn begin(&self) -> Call {
        Call(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Returns the current call. Without an announced call, it begins a new one.
    pub fn current(&self) -> Call {
        match self.current.load(Ordering::Relaxed) {
            0 => self.begin(),
            call => Call(call),
        }
    }

    /// Returns the current call if it was announced with [`Self::enter`].
    pub fn announced(&self) -> Option<Call> {
        Some(self.current.load(Ordering::Relaxed)).filter(|call| *call != 0).map(Call)
    }

    /// Announces the call to which everything belongs until [`Self::leave`].
    pub fn enter(&self, call: Call) {
        self.current.store(call.0, Ordering::Relaxed);
    }

    /// Ends the announcement by [`Self::enter`].
    pub fn leave(&self) {
        self.current.store(0, Ordering::Relaxed);
    }
}

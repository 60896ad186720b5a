//! Which call a write belongs to, so that a client that makes a write again can be told from another that makes the same.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the calls. A call that is repeated keeps its number, as `crates/aws` keeps the mark in `op` over the SDK's retries.
#[derive(Debug, Default)]
pub struct Calls {
    last: AtomicU64,
    current: AtomicU64,
}

/// The number of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u64);

impl Calls {
    /// A new call.
    pub fn begin(&self) -> Call {
        Call(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The call in whose name a write is made now. One that nobody has announced is a call of its own.
    pub fn current(&self) -> Call {
        match self.current.load(Ordering::Relaxed) {
            0 => self.begin(),
            call => Call(call),
        }
    }

    /// The same, if somebody has announced it.
    pub fn announced(&self) -> Option<Call> {
        Some(self.current.load(Ordering::Relaxed)).filter(|call| *call != 0).map(Call)
    }

    /// What is done until [`Self::leave`] is done in the name of this call.
    pub fn enter(&self, call: Call) {
        self.current.store(call.0, Ordering::Relaxed);
    }

    /// The opposite of [`Self::enter`].
    pub fn leave(&self) {
        self.current.store(0, Ordering::Relaxed);
    }
}

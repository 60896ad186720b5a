//! Port to random numbers.

/// Source of randomness, for example for jitter.
pub trait Random: Send + Sync {
    /// Returns 64 random bits.
    fn next_u64(&self) -> u64;
}

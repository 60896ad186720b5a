//! Size of a test: small for every push, or full as a proof.

/// Returns `push`, or `full` if the variable `FULL_SIZE` is set, as in `FULL_SIZE=1 cargo test --release
/// --workspace --test e2e`.
pub fn size(push: usize, full: usize) -> usize {
    if std::env::var_os("FULL_SIZE").is_some() { full } else { push }
}

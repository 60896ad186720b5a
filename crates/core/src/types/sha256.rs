//! SHA-256.

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Returns the SHA-256 of the joined parts: `["ab", "c"]` and `["a", "bc"]` have the same hash.
pub fn sha256(parts: &[&[u8]]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(part);
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

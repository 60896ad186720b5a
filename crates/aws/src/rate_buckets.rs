//! Token buckets of tenants that this process knows.

use std::collections::HashMap;

use nobat_core::limits::token_bucket::TokenBucket;
use nobat_core::types::name::Tenant;
use parking_lot::Mutex;

/// Last known levels of the buckets, so that most requests need no extra read.
#[derive(Default)]
pub(crate) struct Buckets(Mutex<HashMap<Tenant, TokenBucket>>);

/// Maximum number of known buckets. One more clears them all. Forgotten levels are read again.
const MAX_BUCKETS: usize = 10_000;

impl Buckets {
    pub(crate) fn last_seen(&self, tenant: &Tenant) -> TokenBucket {
        self.0.lock().get(tenant).copied().unwrap_or_default()
    }

    pub(crate) fn note(&self, tenant: &Tenant, bucket: TokenBucket) {
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_BUCKETS {
            buckets.clear();
        }
        buckets.insert(tenant.clone(), bucket);
    }
}

//! How often a tenant may ask: out of a bucket that all processes share, taken in blocks where to take is a costly write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nobat_core::backend::Backend;
use nobat_core::name::Tenant;
use nobat_core::rate::{Rate, Taken};
use nobat_core::time::Timestamp;

use crate::code::Code;
use crate::door::whole_seconds;
use crate::problem::Problem;

/// What is left of a block is good for this long, so that no more than a block too many comes in any second.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What tenants have been granted and not used yet.
#[derive(Default)]
pub(crate) struct Permits(Mutex<HashMap<Tenant, Stock>>);

struct Stock {
    left: u32,
    until: Timestamp,
}

impl Permits {
    /// Takes one request, or says when there is one.
    pub(crate) async fn take(&self, backend: &Backend, tenant: &Tenant, rate: Rate, now: Timestamp) -> Result<(), Problem> {
        if self.take_left(tenant, now) {
            return Ok(());
        }
        match backend.registry.take(tenant, rate, now).await? {
            Taken::Granted(count) => {
                if count.get() > 1 {
                    self.put_by(tenant, count.get() - 1, now);
                }
                Ok(())
            }
            Taken::Wait(pause) => Err(refused(rate, pause)),
        }
    }

    fn take_left(&self, tenant: &Tenant, now: Timestamp) -> bool {
        let mut stocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stocks.get_mut(tenant) {
            Some(stock) if stock.left > 0 && now < stock.until => {
                stock.left -= 1;
                true
            }
            _ => false,
        }
    }

    fn put_by(&self, tenant: &Tenant, count: u32, now: Timestamp) {
        let mut stocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stock = stocks.entry(tenant.clone()).or_insert(Stock { left: 0, until: now });
        let left = if now < stock.until { stock.left } else { 0 };
        *stock = Stock { left: left.saturating_add(count), until: now + GOOD_FOR };
    }
}

/// As draft-ietf-httpapi-ratelimit-headers-10 writes it: the quota and its window in seconds; what is left, and when there is more.
fn refused(rate: Rate, pause: Duration) -> Problem {
    let window = rate.burst.get().div_ceil(rate.per_second.get());
    let seconds = whole_seconds(pause);
    Problem::new(Code::RateLimited, format!("this tenant may ask {} times a second", rate.per_second))
        .retry_after(seconds)
        .with_header("ratelimit-policy", format!("\"requests\";q={};w={window}", rate.burst))
        .with_header("ratelimit", format!("\"requests\";r=0;t={seconds}"))
}

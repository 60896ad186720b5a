//! Limiter states: one item each, in the same partition as the tenant's token bucket.

use async_trait::async_trait;
use nobat_core::limits::{LimiterKey, LimiterState};
use nobat_core::ports::StoreError;
use nobat_core::ports::limiter_store::{IDLE, LimiterStore, VersionedState, WriteResult};
use nobat_core::types::time::Timestamp;

use crate::error::Unreadable;
use crate::expression::Expression;
use crate::item::{Item, Reader, at, expiry, number, text};
use crate::store::new_op;
use crate::table::Table;
use crate::{keys, table};

#[async_trait]
impl LimiterStore for Table {
    async fn read(&self, name: &LimiterKey) -> Result<VersionedState, StoreError> {
        let found =
            Table::read(self, at(keys::limiter(&name.tenant), keys::limiter_sort_key(&name.scope))).await?;
        Ok(found.as_ref().map(kept).transpose()?.unwrap_or_default())
    }

    async fn write(
        &self,
        name: &LimiterKey,
        limiter: &LimiterState,
        over: u64,
        now: Timestamp,
    ) -> Result<WriteResult, StoreError> {
        let own = new_op();
        let attributes = [
            ("version", number(over + 1)),
            ("body", text(limiter.to_text())),
            ("expires_at", number(expiry(now + IDLE))),
            ("op", text(own)),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
        let item = at(keys::limiter(&name.tenant), keys::limiter_sort_key(&name.scope))
            .into_iter()
            .chain(attributes)
            .collect();
        let condition = match over {
            0 => Expression::default().when("attribute_not_exists(#PK)"),
            version => Expression::default().when("#version = :before").value("before", number(version)),
        };
        match self.put(item, condition).await? {
            table::WriteOutcome::Done(_) => Ok(WriteResult::Done),
            // TTL has deleted the item since it was read.
            table::WriteOutcome::Refused(found) if found.is_empty() => {
                Ok(WriteResult::Conflict(VersionedState::default()))
            }
            table::WriteOutcome::Refused(found) => Ok(WriteResult::Conflict(kept(&found)?)),
        }
    }
}

fn kept(item: &Item) -> Result<VersionedState, Unreadable> {
    let reader = Reader(item);
    let version = reader.optional_number("version")?.ok_or(Unreadable("version"))?;
    Ok(VersionedState { version, limiter: LimiterState::from_text(reader.text("body")?)? })
}

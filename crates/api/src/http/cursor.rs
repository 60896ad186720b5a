//! Cursors of lists. A cursor contains a position and a message authentication code (MAC), so that a client
//! can neither change it nor use it for another list.

use data_encoding::HEXLOWER;
use nobat_core::ports::{ListQuery, Position};
use nobat_core::types::name::Tenant;
use ring::hmac::{Context, HMAC_SHA256, Key, Tag};
use subtle::ConstantTimeEq;

/// Size of the truncated MAC, in bytes. An attacker cannot guess its 128 bits.
const SEAL_BYTES: usize = 16;

/// Identity of a list: type, tenant and filters. A client may change the page size from page to page, so the
/// page size is not part of the identity.
pub(crate) struct List {
    parts: Vec<Option<String>>,
    /// End of the error text for a cursor of another list. It says what the two lists must have in common.
    pub(crate) condition: &'static str,
}

impl List {
    /// List of the tasks that a query selects.
    pub(crate) fn tasks(query: &ListQuery) -> Self {
        let moment = |moment: Option<nobat_core::types::time::Timestamp>| {
            moment.map(|moment| moment.millis().to_string())
        };
        let parts = vec![
            Some("tasks".to_owned()),
            Some(query.tenant.to_string()),
            query.status.map(|status| status.as_str().to_owned()),
            query.queue.as_ref().map(ToString::to_string),
            query.kind.as_ref().map(ToString::to_string),
            moment(query.created_after),
            moment(query.created_before),
        ];
        let labels = query.labels.iter().flat_map(|(name, text)| [Some(name.clone()), Some(text.clone())]);
        let parts = parts.into_iter().chain(labels).collect();
        Self { parts, condition: ", with the same filters" }
    }

    /// List of all keys, or of the keys of one tenant.
    pub(crate) fn keys(tenant: Option<&Tenant>) -> Self {
        Self { parts: vec![Some("keys".to_owned()), tenant.map(ToString::to_string)], condition: "" }
    }

    /// List of tenants.
    pub(crate) fn tenants() -> Self {
        Self { parts: vec![Some("tenants".to_owned())], condition: "" }
    }

    /// List of a tenant's endpoints.
    pub(crate) fn endpoints(tenant: &Tenant) -> Self {
        Self { parts: vec![Some("endpoints".to_owned()), Some(tenant.to_string())], condition: "" }
    }

    /// List of a tenant's subscriptions.
    pub(crate) fn subscriptions(tenant: &Tenant) -> Self {
        Self { parts: vec![Some("subscriptions".to_owned()), Some(tenant.to_string())], condition: "" }
    }

    /// List of a tenant's sources.
    pub(crate) fn sources(tenant: &Tenant) -> Self {
        Self { parts: vec![Some("sources".to_owned()), Some(tenant.to_string())], condition: "" }
    }

    /// List of a tenant's schedules.
    pub(crate) fn schedules(tenant: &Tenant) -> Self {
        Self { parts: vec![Some("schedules".to_owned()), Some(tenant.to_string())], condition: "" }
    }

    /// List of a tenant's audit entries.
    pub(crate) fn audit(tenant: &Tenant) -> Self {
        Self {
            parts: vec![Some("audit".to_owned()), Some(tenant.to_string())],
            condition: ", of the same tenant",
        }
    }
}

/// Returns the cursor for a position in a list: the MAC, then the position, in hexadecimal digits.
pub(crate) fn seal(key: &[u8; 32], list: &List, position: &Position) -> String {
    let seal = mac(key, list, position.0.as_bytes());
    HEXLOWER.encode(&[&seal.as_ref()[..SEAL_BYTES], position.0.as_bytes()].concat())
}

/// Returns the position of a cursor. `None` if the cursor was not created with this key for this list.
pub(crate) fn open(key: &[u8; 32], list: &List, cursor: &str) -> Option<Position> {
    let bytes = HEXLOWER.decode(cursor.as_bytes()).ok()?;
    let (seal, position) = bytes.split_at_checked(SEAL_BYTES)?;
    let is_genuine = bool::from(mac(key, list, position).as_ref()[..SEAL_BYTES].ct_eq(seal));
    is_genuine.then(|| String::from_utf8(position.to_vec()).ok().map(Position))?
}

fn mac(key: &[u8; 32], list: &List, position: &[u8]) -> Tag {
    let mut mac = Context::with_key(&Key::new(HMAC_SHA256, key));
    for of_the_list in &list.parts {
        part(&mut mac, of_the_list.as_ref().map(String::as_bytes));
    }
    part(&mut mac, Some(position));
    mac.sign()
}

/// Adds a text and its length to the MAC. The length distinguishes ("ab", "c") from ("a", "bc"), and an
/// absent text from an empty text.
fn part(mac: &mut Context, part: Option<&[u8]>) {
    mac.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
    mac.update(part.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nobat_core::task::Status;
    use nobat_core::types::name::{Name, Tenant};
    use nobat_core::types::time::Timestamp;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    fn query() -> ListQuery {
        ListQuery::all(Tenant::default(), 50)
    }

    fn list() -> List {
        List::tasks(&query())
    }

    #[test]
    fn cursor_opens_only_its_own_list() {
        let position = Position("task_01:7".into());
        let cursor = seal(&KEY, &list(), &position);
        assert_eq!(open(&KEY, &List::tasks(&ListQuery { limit: 7, ..query() }), &cursor), Some(position));
        assert_eq!(open(&[8; 32], &list(), &cursor), None);
        let name = || Name::new("a").ok();
        let moment = Some(Timestamp::EPOCH);
        for other in [
            ListQuery { tenant: Tenant::new("other").unwrap(), ..query() },
            ListQuery { status: Some(Status::Queued), ..query() },
            ListQuery { queue: name(), ..query() },
            ListQuery { kind: name(), ..query() },
            ListQuery { created_after: moment, ..query() },
            ListQuery { created_before: moment, ..query() },
        ] {
            assert_eq!(open(&KEY, &List::tasks(&other), &cursor), None, "{other:?}");
        }
        let (queue, kind) = (
            List::tasks(&ListQuery { queue: name(), ..query() }),
            List::tasks(&ListQuery { kind: name(), ..query() }),
        );
        assert_eq!(open(&KEY, &List::audit(&query().tenant), &cursor), None);
        assert_eq!(open(&KEY, &kind, &seal(&KEY, &queue, &Position(String::new()))), None);
    }

    proptest! {
        #[test]
        fn forged_cursor_is_refused(cursor in "\\PC{0,80}") {
            prop_assert_eq!(open(&KEY, &list(), &cursor), None);
        }

        #[test]
        fn cursor_with_a_changed_digit_is_refused(position in "\\PC{0,40}", place: prop::sample::Index, digit in "[0-9a-fA-F]") {
            let sealed = seal(&KEY, &list(), &Position(position));
            let place = place.index(sealed.len());
            let mut changed = sealed.clone();
            changed.replace_range(place..=place, &digit);
            prop_assert_eq!(open(&KEY, &list(), &changed).is_some(), changed == sealed);
        }
    }
}

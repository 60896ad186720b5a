//! Pages of lists.

use nobat_core::config::record::RecordKind;
use nobat_core::ports::{Position, StoreError};
use nobat_core::types::name::{Name, Tenant};
use nobat_core::types::unreadable::Unreadable;

use crate::app::App;
use crate::http::cursor::{self, List};
use crate::http::error_code::Code;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// Default number of elements in a page.
pub(crate) const DEFAULT_LIMIT: usize = 50;

const MAX_LIMIT: usize = 100;

/// Description of a valid time in a query, for error texts.
pub(crate) const MOMENT: &str = "a time as in RFC 3339, such as 2026-12-01T08:00:00Z, with %2B for each +";

/// Description of a valid name, for error texts.
pub(crate) const EXPECTED_NAME: &str = "1 to 64 of the characters A-Z a-z 0-9 . _ -";

/// Parameters `limit` and `cursor` of a request for a page.
pub(crate) struct PageRequest {
    /// Maximum number of elements in the page: 1 to 100.
    pub(crate) limit: usize,
    cursor: Option<String>,
}

impl PageRequest {
    /// Reads the parameters.
    pub(crate) fn read(query: &mut Query<'_>) -> Self {
        let limit = |text: &str| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        Self {
            limit: query.get("limit", "a number from 1 to 100", limit).unwrap_or(DEFAULT_LIMIT),
            cursor: query.get("cursor", "a cursor", |text| Some(text.to_owned())),
        }
    }

    /// Returns the position at which the previous page ended. `None` for the first page. Fails if the cursor
    /// belongs to another list.
    pub(crate) fn after<T>(
        &self,
        app: &App,
        list: &List,
        parse: impl FnOnce(Position) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let position = cursor::open(&app.cursor_key, list, cursor).and_then(parse);
        let stale = || {
            Problem::new(
                Code::InvalidCursor,
                format!("expected `next_cursor` of a page of this list{}", list.condition),
            )
        };
        position.map(Some).ok_or_else(stale)
    }

    /// Returns the configuration of the page, in the order of its names, and the cursor of the next page.
    /// `read` reads it from the text and the version of a record. Without a tenant, returns configuration that
    /// belongs to no tenant.
    pub(crate) async fn records<T>(
        &self,
        app: &App,
        list: &List,
        tenant: Option<&Tenant>,
        kind: RecordKind,
        read: fn(&str, u64) -> Result<T, Unreadable>,
    ) -> Result<(Vec<(Name, T)>, Option<String>), Problem> {
        let after = self.after(app, list, |position| Name::new(&position.0).ok())?;
        let records = app.backend.config.page(tenant, kind, after.as_ref(), self.limit).await?;
        let end = records.last().filter(|_| records.len() == self.limit);
        let next_cursor =
            end.map(|record| cursor::seal(&app.cursor_key, list, &Position(record.name.name.to_string())));
        let found: Result<Vec<_>, Unreadable> = records
            .into_iter()
            .map(|record| Ok((record.name.name, read(&record.body, record.version)?)))
            .collect();
        Ok((found.map_err(|error| StoreError::Corrupt(error.to_string()))?, next_cursor))
    }
}

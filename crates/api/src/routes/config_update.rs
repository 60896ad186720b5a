//! Compare-and-swap update of one configuration record.

use nobat_core::auth::audit::Action;
use nobat_core::config::record::Record;
use nobat_core::ports::config_store::RecordResult;
use nobat_core::types::name::Name;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::http::error_code::Code;
use crate::http::problem::Problem;

/// Maximum number of tries to write a change when other clients change the same record.
pub(crate) const MAX_CONFLICTS: usize = 5;

/// Writes a record of the caller's tenant and an audit entry. Returns false if another client wrote the record in between.
pub(crate) async fn write(app: &App, caller: &Principal, record: Record, action: Action, object: &Name) -> Result<bool, Problem> {
    let entry = caller.entry(&caller.tenant, action, object, app.clock.now());
    let is_done = app.backend.config.write(vec![record], entry).await? == RecordResult::Done;
    if is_done {
        app.config_cache().forget(&caller.tenant);
    }
    Ok(is_done)
}

pub(crate) fn too_busy() -> Problem {
    Problem::new(
        Code::Overloaded,
        "other requests changed it at the same time, and this one changed nothing; try again after the time in Retry-After",
    )
}

//! Authentication of receivers that report the outcome of a task. The completion token is the credential.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderName;
use axum::http::request::Parts;
use nobat_core::task::{CompletionToken, Task, TaskKey, TokenDigest, TokenState};
use nobat_core::types::id::TaskId;

use crate::app::App;
use crate::auth::extract::admitted_origin;
use crate::http::error_code::Code;
use crate::http::problem::Problem;

/// Header with the completion token.
pub(crate) static TOKEN: HeaderName = HeaderName::from_static("nobat-completion-token");

/// Receiver with a token that the task in the path has issued.
pub(crate) struct TokenHolder {
    /// The task, as read for the check of the token.
    pub(crate) task: Task,
    /// Digest of the token.
    pub(crate) digest: TokenDigest,
}

impl FromRequestParts<App> for TokenHolder {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (now, origin) = (app.clock.now(), admitted_origin(parts, app)?);
        let auth_cache = app.auth_cache();
        let refuse = || auth_cache.count_failure(origin, now).err().unwrap_or_else(invalid_token);
        let id = parts.extract::<Path<TaskId>>().await;
        let (Ok(Path(id)), Some(token)) = (id, presented(parts)) else { return Err(refuse()) };
        let (name, digest) = (TaskKey { tenant: token.tenant().clone(), id }, token.digest());
        // Each token costs a read of the store, as an unknown API key does.
        let turn = auth_cache.turn(origin, now).await?;
        let found = app.backend.store.get(&name, now).await?;
        let Some(task) = found.filter(|task| task.token_state(&digest) != TokenState::Unknown) else {
            drop(turn);
            return Err(refuse());
        };
        turn.found();
        let settings = app.tenant_settings(&task.tenant, now).await?;
        if let Some(rate) = settings.request_rate {
            app.permits().take(&app.backend, &task.tenant, rate, now).await?;
        }
        Ok(Self { task, digest })
    }
}

/// Returns the token of a request that has exactly one well-formed token.
fn presented(parts: &Parts) -> Option<CompletionToken> {
    let mut headers = parts.headers.get_all(&TOKEN).iter();
    match (headers.next(), headers.next()) {
        (Some(one), None) => one.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

/// Returns the same 401 for a token that is missing or wrong, an unknown task, and a task of another tenant.
/// Otherwise a client could find out which tasks exist.
fn invalid_token() -> Problem {
    Problem::new(
        Code::InvalidCompletionToken,
        "the task has not issued this completion token; send the token of the task's latest call in the header `Nobat-Completion-Token`",
    )
}

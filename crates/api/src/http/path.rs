//! Names and ids in paths.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use nobat_core::types::id::{EventId, TaskId};
use nobat_core::types::name::{Name, Tenant};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::page::EXPECTED_NAME;
use crate::http::problem::Problem;

/// Parameter of a path.
pub(crate) struct PathParam<T>(pub(crate) T);

/// Type of a path parameter.
pub(crate) trait Parameter: DeserializeOwned + Send {
    /// Returns the error for a value that is not valid. An invalid id gets the same error as an unknown id.
    fn not_found() -> Problem;
}

impl<T: Parameter> FromRequestParts<App> for PathParam<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Path::<T>::from_request_parts(parts, app)
            .await
            .map(|Path(value)| Self(value))
            .map_err(|_| T::not_found())
    }
}

impl Parameter for Name {
    fn not_found() -> Problem {
        Problem::new(Code::NotFound, format!("the name in the path is not valid; expected {EXPECTED_NAME}"))
    }
}

impl Parameter for Tenant {
    fn not_found() -> Problem {
        Problem::new(
            Code::NotFound,
            format!("the tenant's name in the path is not valid; expected {EXPECTED_NAME}"),
        )
    }
}

/// Source of a provider's request.
#[derive(Deserialize)]
pub(crate) struct SourceKey {
    /// Tenant that owns the source.
    pub(crate) tenant: Tenant,
    /// Name of the source.
    pub(crate) name: Name,
}

impl Parameter for SourceKey {
    fn not_found() -> Problem {
        Problem::source_not_found()
    }
}

impl Parameter for EventId {
    fn not_found() -> Problem {
        Problem::event_not_found()
    }
}

impl Parameter for TaskId {
    fn not_found() -> Problem {
        Problem::task_not_found()
    }
}

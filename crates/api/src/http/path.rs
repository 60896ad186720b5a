//! Names in paths.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use nobat_core::types::name::Name;

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::page::EXPECTED_NAME;
use crate::http::problem::Problem;

/// Name from the path.
pub(crate) struct Named(pub(crate) Name);

impl FromRequestParts<App> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let not_found = |_| Problem::new(Code::NotFound, format!("the name in the path is not valid; expected {EXPECTED_NAME}"));
        Path::<Name>::from_request_parts(parts, app).await.map(|Path(name)| Self(name)).map_err(not_found)
    }
}

//! Sources: providers that send webhooks, and their configuration.
//!
//! nobat stores the secrets of sources encrypted, and never shows them again.

pub(crate) mod counters;
pub(crate) mod receive;
pub(crate) mod view;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use nobat_core::auth::audit::Action;
use nobat_core::config::record::RecordKind;
use nobat_core::config::source::Source;
use nobat_core::json::decode::read_object;
use nobat_core::secrets::vault::Sealed;
use nobat_core::submission::source::{SourceContext, SourceSubmission};
use nobat_core::types::name::Name;

use crate::app::App;
use crate::auth::extract::{Authorized, ConfigWrite};
use crate::http::cursor::List;
use crate::http::options::{Nothing, options};
use crate::http::page::PageRequest;
use crate::http::path::PathParam;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::{body, response};
use crate::routes::config_update::{Change, check_size, template_context, update};
use crate::routes::sources::view::{PageView, SourceDetails, SourceView};

/// Approximate size of a source in a response, in bytes.
const SOURCE_BYTES: usize = 900;

/// Create or replace a source
///
/// Replaces the whole configuration. Omitted fields reset to their defaults, except `secrets` and
/// `verify_token`, which keep their values. Every process applies the change within 10 seconds.
#[utoipa::path(
    put,
    path = "/v1/sources/{name}",
    operation_id = "put_source",
    tag = "sources",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The source's name.", example = "stripe")),
    request_body(content = SourceSubmission, example = json!({
        "verify": {"preset": "stripe", "secrets": ["whsec_…"]},
        "event": {},
    })),
    responses(
        (status = 200, description = "The source is changed.", body = SourceView),
        (status = 201, description = "The source is created. The provider sends its webhooks to `path`.", body = SourceView),
    ),
)]
pub(crate) async fn put(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = body::json(&app, &caller.tenant, &head.headers, body).await?;
    let submission: SourceSubmission = read_object(&body)?;
    // `into_source` reports a template that cannot be read.
    let sample = submission.sample_task().and_then(Result::ok).unwrap_or_default();
    let config = app.config_cache().for_submission(&caller.tenant, &sample).await?;
    let (now, place) = (app.clock.now(), Source::secret_context(&caller.tenant, &name));
    let vault = app.vault.vault().await?;
    let seal = |secret: &[u8]| vault.seal(&place, secret, rand::random());
    let renew = |sealed: &Sealed| vault.renew(&place, sealed, rand::random());
    let read = || app.backend.config.source(&caller.tenant, &name);
    let (is_new, source) = update(&app, "the source", read, |current| {
        // `into_source` consumes the submission, so each try reads it again.
        let submission: SourceSubmission = read_object(&body)?;
        let template = template_context(&app, &caller.tenant, &config, now);
        let context =
            SourceContext { current: current.as_ref(), seal: &seal, renew: &renew, template: &template };
        let source = submission.into_source(&context)?;
        let record = source.record(&caller.tenant, &name);
        check_size(&record)?;
        let entry = caller.entry(&caller.tenant, Action::SourceChanged, &name, now);
        Ok((Change::Write(vec![record]), entry, (current.is_none(), source)))
    })
    .await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    response::value(status, SOURCE_BYTES, &SourceView::new(&caller.tenant, name, &source))
}

/// Get a source and the counts of its requests
///
/// The response never contains the source's secrets. Counts may miss the last second of other processes, and
/// the last second before a process ended.
#[utoipa::path(
    get,
    path = "/v1/sources/{name}",
    operation_id = "get_source",
    tag = "sources",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The source's name.", example = "stripe")),
    responses((status = 200, description = "The source.", body = SourceDetails)),
)]
pub(crate) async fn one(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
) -> Result<Response, Problem> {
    let found = app.backend.config.source(&caller.tenant, &name).await?;
    let source = found.ok_or_else(Problem::source_not_found)?;
    let counts = app.source_counters().read(&app.backend, &caller.tenant, &name, source.created_at).await?;
    let details = SourceDetails::new(SourceView::new(&caller.tenant, name, &source), counts);
    response::value(StatusCode::OK, SOURCE_BYTES, &details)
}

/// List sources
///
/// Returns the sources of the caller's tenant in the order of their names, without the counts of their requests.
#[utoipa::path(
    get,
    path = "/v1/sources",
    operation_id = "list_sources",
    tag = "sources",
    security(("key" = ["config:write"])),
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Maximum number of sources in a page. Default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "One page of sources.", body = PageView)),
)]
pub(crate) async fn page(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Query::read(query.as_deref(), &["limit", "cursor"]);
    let page = PageRequest::read(&mut query);
    query.finish()?;
    let list = List::sources(&caller.tenant);
    let (found, next_cursor) =
        page.records(&app, &list, Some(&caller.tenant), RecordKind::Source, Source::from_text).await?;
    let data: Vec<SourceView> =
        found.into_iter().map(|(name, source)| SourceView::new(&caller.tenant, name, &source)).collect();
    response::value(StatusCode::OK, SOURCE_BYTES * (1 + data.len()), &PageView { data, next_cursor })
}

/// Remove a source
///
/// Requests of the provider get 404 after the response, in every process within 10 seconds. Existing tasks and
/// events stay.
#[utoipa::path(
    delete,
    path = "/v1/sources/{name}",
    operation_id = "remove_source",
    tag = "sources",
    security(("key" = ["config:write"])),
    params(("name" = String, Path, pattern = "^[A-Za-z0-9._-]{1,64}$", description = "The source's name.", example = "stripe")),
    responses((status = 200, description = "The source is removed. The response shows its last configuration.", body = SourceView)),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    Authorized(caller, _): Authorized<ConfigWrite>,
    PathParam(name): PathParam<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let Nothing {} = options(&app, &caller.tenant, request).await?;
    let now = app.clock.now();
    let read = || app.backend.config.source(&caller.tenant, &name);
    let source = update(&app, "the source", read, |source| {
        let source = source.ok_or_else(Problem::source_not_found)?;
        let change = Change::Remove(Source::record_name(&caller.tenant, &name), source.version);
        Ok((change, caller.entry(&caller.tenant, Action::SourceRemoved, &name, now), source))
    })
    .await?;
    app.source_counters().clear(&app.backend, &caller.tenant, &name, now).await;
    response::value(StatusCode::OK, SOURCE_BYTES, &SourceView::new(&caller.tenant, name, &source))
}

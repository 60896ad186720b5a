//! `OpenAPI` document, generated from the handlers and their request and response types.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use utoipa::OpenApi as _;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr, Required};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::problem::{FieldErrorView, ProblemView};
use crate::http::response;
use crate::routes;
use crate::routes::problem_codes::{COMPLETION_TOKEN, operations};

/// Returns the document.
pub fn openapi() -> OpenApi {
    let mut document = routes().into_openapi();
    mark_optional(&mut document);
    remove_defaults(&mut document);
    declare_security(&mut document);
    document
}

/// Returns all routes of the API, each with its description for the document.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi()).merge(routes::all()).routes(routes!(document))
}

/// Get the OpenAPI document
///
/// Returns the `OpenAPI` 3.1 document, generated from the server's code.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "health",
    responses((status = 200, description = "The document.", body = BTreeMap<String, Value>)),
)]
pub(crate) async fn document() -> Response {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| serde_json::to_vec(&openapi()).unwrap_or_default());
    response::json(StatusCode::OK, Bytes::from_static(&TEXT))
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "nobat",
        description = "Asynchronous task API. A client submits a task and gets its id in milliseconds. nobat runs the task in the background, and retries it as its retry policy says.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "The server that serves this document.")),
    components(schemas(ProblemView<'static>, FieldErrorView<'static>)),
    tags(
        (name = "tasks", description = "Submission, state, cancellation and replay of tasks."),
        (name = "events", description = "Events, and the tasks that they created."),
        (name = "subscriptions", description = "Selection of events, and the tasks that they create."),
        (name = "schedules", description = "Tasks at planned times."),
        (name = "sources", description = "Webhooks of providers, and the tasks and events that they become."),
        (name = "keys", description = "API keys and their scopes."),
        (name = "tenants", description = "Limits of tenants."),
        (name = "callbacks", description = "Secrets that sign callbacks."),
        (name = "endpoints", description = "Servers that tasks of kind `http` call, and their configuration."),
        (name = "limits", description = "Pauses, start rates and concurrency of queues, kinds and limit keys."),
        (name = "audit", description = "Record of changes, with the API key that made each."),
        (name = "health", description = "Health checks, and this document."),
    ),
)]
struct Document;

/// Describes how clients send a key, and marks the operations that need none.
fn declare_security(document: &mut OpenApi) {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some(
        "An API key, such as `nb_live_…`. A server that only its own machine can reach requires no key until the first key is created."
            .to_owned(),
    );
    let token = ApiKeyValue::with_description(
        "Nobat-Completion-Token",
        "Token of one attempt of one task. nobat sends it to the receiver of the attempt's call, in the header of the same name.",
    );
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(scheme));
    components.add_security_scheme(COMPLETION_TOKEN, SecurityScheme::ApiKey(ApiKey::Header(token)));
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        // An empty list means that no key is needed. Without the list, the document would not state it.
        operation.security.get_or_insert_default();
    }
}

/// Marks headers and bodies as optional. utoipa's macros can only make a header or a body required or
/// nullable, and neither is ever null.
fn mark_optional(document: &mut OpenApi) {
    // The macro would add an empty contact, since `Cargo.toml` names no authors.
    document.info.contact = None;
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for parameter in operation.parameters.iter_mut().flatten() {
            if let RefOr::T(parameter) = parameter
                && parameter.parameter_in == ParameterIn::Header
            {
                parameter.required = Required::False;
                parameter.schema = Some(
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .pattern(Some(IDEMPOTENCY_KEY_PATTERN))
                        .into(),
                );
            }
        }
        if let Some(RefOr::T(body)) = &mut operation.request_body
            && body.description.as_ref().is_some_and(|description| description.ends_with("May be left out."))
        {
            body.required = None;
        }
    }
}

/// Removes `default` from the fields of all objects. utoipa copies it from serde's attribute `default`. The
/// descriptions state the defaults instead. With `default`, openapi-typescript makes the field of a request
/// required, and openapi-python-client sends the default in every request.
fn remove_defaults(document: &mut OpenApi) {
    for schema in document.components.iter_mut().flat_map(|components| components.schemas.values_mut()) {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.properties.values_mut().for_each(remove_default);
        }
    }
}

fn remove_default(field: &mut RefOr<Schema>) {
    let default = match field {
        RefOr::Ref(reference) => &mut reference.default,
        RefOr::T(Schema::Array(array)) => &mut array.default,
        RefOr::T(Schema::Object(object)) => &mut object.default,
        RefOr::T(Schema::OneOf(one_of)) => &mut one_of.default,
        RefOr::T(Schema::AllOf(all_of)) => &mut all_of.default,
        RefOr::T(Schema::AnyOf(any_of)) => &mut any_of.default,
        RefOr::T(_) => return,
    };
    *default = None;
}

/// Pattern of `Idempotency-Key`: 1 to 255 printable characters, in quotes, or bare without spaces and commas.
/// Blanks around the key are not part of the header's value.
const IDEMPOTENCY_KEY_PATTERN: &str =
    r#"^[ \t]*("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--\[\]-~]{1,255})[ \t]*$"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error_code::Code;

    /// Checked-in copy of the document. `UPDATE_SNAPSHOTS=1` rewrites it.
    const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.json");

    #[test]
    fn document_matches_openapi_json() {
        let document = openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some_and(|set| set == "1") {
            std::fs::write(SNAPSHOT, &document).unwrap();
        }
        let checked_in = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
        assert!(
            checked_in == document,
            "openapi.json is outdated; run this test with UPDATE_SNAPSHOTS=1 to rewrite it"
        );
    }

    /// Operations that need no key.
    const PUBLIC: [&str; 4] = ["/healthz", "/readyz", "/openapi.json", "/v1/in/{tenant}/{name}"];

    /// Checks rules of `redocly lint` that the document once broke.
    #[test]
    fn servers_and_the_security_of_each_operation_are_declared() {
        let document = serde_json::to_value(openapi()).unwrap();
        assert!(document["servers"].as_array().is_some_and(|servers| !servers.is_empty()));
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let security = operation["security"]
                    .as_array()
                    .unwrap_or_else(|| panic!("{method} {path} declares no security"));
                assert_eq!(security.is_empty(), PUBLIC.contains(&path.as_str()), "{method} {path}");
            }
        }
    }

    #[test]
    fn no_field_of_a_schema_has_a_default() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(schema.get("default").is_none(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn every_problem_code_is_described() {
        let document = openapi().to_json().unwrap();
        for code in Code::ALL {
            // `MethodNotAllowed` answers requests that match no operation.
            let is_described = document.contains(&format!("`{}`: {}.", code.as_str(), code.title()));
            assert_eq!(is_described, code != Code::MethodNotAllowed, "{code:?}");
        }
    }
}

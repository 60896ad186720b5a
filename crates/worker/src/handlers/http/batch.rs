//! Several tasks in one request, whose body is an array.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};
use nobat_core::config::endpoint::{ResponseClass, ResponsePolicy};
use nobat_core::json::Json;
use nobat_core::limits::BatchPolicy;
use nobat_core::task::ErrorCode;
use nobat_core::types::http_status::Statuses;
use nobat_delivery::headers::IDEMPOTENCY_KEY;
use nobat_delivery::{Answer, Extent, Guard, MAX_BODY, Request};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::handler::BatchOutcome;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handlers::http::response::{Answered, Body, answered, refused, settle, without_bom};
use crate::handlers::http::{Call, Http, Method, answers, is_json, prepare};

/// Maximum size of the body that each task keeps of a response to the whole batch, in bytes.
const KEPT_BODY: usize = 1_024;

/// Item of one task in a batch request to an endpoint with `per_item_results`.
#[derive(Serialize)]
struct Item<'a> {
    id: String,
    idempotency_key: &'a str,
    body: Option<&'a Json>,
}

/// Response with a result per item, in the form `{"results": [...]}`. Other fields are ignored.
#[derive(Deserialize)]
struct Results {
    results: Vec<Json>,
}

/// Result of one item: the status and the body that the response to a separate request would have had. Other
/// fields are ignored.
#[derive(Deserialize)]
struct ItemResult {
    id: String,
    #[serde(deserialize_with = "status")]
    status: u16,
    body: Option<Json>,
}

/// Reads a status, as a number or as a string of digits.
fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let json = Json::deserialize(deserializer)?;
    json.get().trim_matches('"').parse().map_err(|_| D::Error::custom("expected an HTTP status"))
}

/// Reads the results of all items: `{"results": [...]}` or the bare list.
fn results(body: &[u8]) -> Option<Vec<Json>> {
    serde_json::from_slice(body)
        .or_else(|_| serde_json::from_slice(body).map(|Results { results }| results))
        .ok()
}

/// Returns a key that is equal for calls that may share a request. The key covers everything except the JSON
/// body, the idempotency key and the timeout. `None` if the call cannot be part of a batch.
pub(super) fn batch_key(call: &Call) -> Option<u64> {
    if call.body_base64.is_some() || call.wait.is_some() {
        return None;
    }
    let method = match call.method {
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Get | Method::Delete | Method::Head | Method::Options => return None,
    };
    let headers: Vec<_> =
        call.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(IDEMPOTENCY_KEY)).collect();
    let mut parts = vec![method.to_owned(), call.path.clone().unwrap_or_default(), headers.len().to_string()];
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if name == CONTENT_TYPE.as_str() && !HeaderValue::from_str(value).is_ok_and(|value| is_json(&value)) {
            return None;
        }
        parts.extend([name, value.clone()]);
    }
    for ranges in [&call.success_statuses, &call.retry_statuses] {
        // A missing list differs from an empty one.
        let texts =
            ranges.as_ref().map(|ranges| Statuses::new(ranges.clone()).texts().collect::<Vec<_>>().join(","));
        parts.push(texts.map_or_else(String::new, |texts| format!("[{texts}]")));
    }
    Some(BatchPolicy::batch_key(&parts))
}

/// One request for several calls.
pub(super) struct Batched<'a> {
    pub(super) request: Request,
    /// Id for the signature, instead of a task's idempotency key.
    pub(super) id: String,
    contexts: Vec<&'a TaskContext>,
    wants_results: bool,
}

/// Sends calls with the same batch key to one endpoint, as one request.
pub(super) async fn send(http: &Http, batch: Vec<(Call, &TaskContext)>) -> BatchOutcome<Answered> {
    let Some((first, context)) = batch.first() else { return Ok(Vec::new()) };
    let (context, answers) = (*context, answers(first, context));
    let fixed = http.headers_of_endpoint(context).await?;
    let Batched { mut request, id, contexts, wants_results } =
        prepare_all(batch, &fixed, http.client.guard())?;
    http.sign(&mut request, &id, context).await?;
    let answer = match http.client.send(request).await {
        Ok(answer) if answers.meaning(answer.status.as_u16()) == ResponseClass::Success => answer,
        sent => return settle(sent, &answers, true, SystemTime::now()).map(|_| Vec::new()),
    };
    if wants_results {
        return by_item(&answer, &answers, &contexts);
    }
    let answered = shortened(answer);
    Ok(contexts.iter().map(|_| Ok(answered.clone())).collect())
}

/// Builds the request, without its signature. `batch` must not be empty.
pub(super) fn prepare_all<'a>(
    batch: Vec<(Call, &'a TaskContext)>,
    fixed: &HeaderMap,
    guard: &Guard,
) -> Result<Batched<'a>, Failure> {
    let endpoint = batch.first().and_then(|(_, context)| context.endpoint.as_ref());
    let wants_results =
        endpoint.is_some_and(|(_, endpoint)| endpoint.batch.is_some_and(|batch| batch.per_item_results));
    let body = if wants_results { items(&batch) } else { bodies(&batch) };
    let body = body.map_err(|error| Failure::permanent(ErrorCode::INVALID_PAYLOAD, error.to_string()))?;
    // The shortest timeout of the tasks applies to the request.
    let limit = batch.iter().map(|(_, context)| context.timeout).min();
    let timeout = batch.iter().filter_map(|(call, _)| call.timeout).reduce(f64::min);
    let key = key_of_all(batch.iter().map(|(call, context)| key(call, context)));
    let (calls, contexts): (Vec<Call>, Vec<&TaskContext>) = batch.into_iter().unzip();
    let (Some(first), Some(context)) = (calls.into_iter().next(), contexts.first()) else {
        unreachable!("a batch has at least one call")
    };
    let mut request = prepare(&Call { body: Some(body), timeout, ..first }, fixed, guard, context)?;
    request.timeout = request.timeout.min(limit.unwrap_or(request.timeout));
    let id = key_of_all(contexts.iter().map(|context| context.idempotency_key.as_str()));
    introduce(&mut request.headers, &key, &contexts)?;
    Ok(Batched { request, id, contexts, wants_results })
}

/// Returns the idempotency key of one call.
fn key<'a>(call: &'a Call, context: &'a TaskContext) -> &'a str {
    call.own_key().unwrap_or(&context.idempotency_key)
}

/// Derives the key of a batch request from the keys of its items. The order of the items does not matter.
fn key_of_all<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    BatchPolicy::id(&keys)
}

fn bodies(batch: &[(Call, &TaskContext)]) -> serde_json::Result<Json> {
    Json::from_value(&batch.iter().map(|(call, _)| &call.body).collect::<Vec<_>>())
}

fn items(batch: &[(Call, &TaskContext)]) -> serde_json::Result<Json> {
    let item = |(call, context)| {
        let (call, context): (&Call, &TaskContext) = (call, context);
        Item {
            id: context.name.id.to_string(),
            idempotency_key: key(call, context),
            body: call.body.as_ref(),
        }
    };
    Json::from_value(&batch.iter().map(|(call, context)| item((call, *context))).collect::<Vec<_>>())
}

/// Replaces the headers that identify a single task by headers that identify the batch.
fn introduce(
    headers: &mut HeaderMap,
    key: &str,
    contexts: &[&TaskContext],
) -> Result<(), http::header::InvalidHeaderValue> {
    for of_one in ["nobat-task-id", "nobat-attempt"].map(HeaderName::from_static) {
        headers.remove(of_one);
    }
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key)?);
    headers.insert("nobat-batch-items", HeaderValue::from(contexts.len()));
    // The highest count of all tasks applies, so that a loop through any task is detected.
    let hops = contexts.iter().map(|context| context.hops).max().unwrap_or(0);
    headers.insert("nobat-hops", HeaderValue::from(u16::from(hops) + 1));
    Ok(())
}

/// Reads the outcome of each task from a response with a result per item.
fn by_item(answer: &Answer, answers: &ResponsePolicy, contexts: &[&TaskContext]) -> BatchOutcome<Answered> {
    if answer.extent == Extent::Cut {
        let message = format!(
            "the response is longer than {MAX_BODY} bytes, so the results of its items cannot be read"
        );
        return Err(Failure::retry(ErrorCode::RESPONSE_TOO_LARGE, message));
    }
    let whole = if answer.extent == Extent::Whole { results(without_bom(&answer.body)) } else { None };
    let Some(results) = whole else {
        return Err(Failure::retry(
            ErrorCode::INVALID_RESPONSE,
            "the response is neither a list nor an object with a list `results`",
        ));
    };
    // An unreadable result concerns only its own item. Of two results for one item, the last result counts.
    let results = results.iter().filter_map(|result| result.parse::<ItemResult>().ok());
    let mut by_id: HashMap<String, ItemResult> = results.map(|result| (result.id.clone(), result)).collect();
    let outcome = |context: &&TaskContext| match by_id.remove(&context.name.id.to_string()) {
        Some(result) => of_item(result, answers),
        None => {
            Err(Failure::retry(ErrorCode::ITEM_RESULT_MISSING, "the response has no result for this item"))
        }
    };
    Ok(contexts.iter().map(outcome).collect())
}

fn of_item(
    ItemResult { status, body, .. }: ItemResult,
    answers: &ResponsePolicy,
) -> Result<Answered, Failure> {
    let code = StatusCode::from_u16(status).map_err(|_| {
        Failure::retry(ErrorCode::INVALID_RESPONSE, "the status of this item is not an HTTP status")
    })?;
    match answers.meaning(status) {
        ResponseClass::Success => {
            let body = Some(body.map_or_else(|| Body::Text(String::new()), Body::Json));
            Ok(Answered { status, headers: BTreeMap::new(), body, body_base64: None, truncated: false })
        }
        // The status concerns this item alone, so it must not pause the endpoint.
        meaning => Err(refused(code, &HeaderMap::new(), meaning, false, SystemTime::UNIX_EPOCH)),
    }
}

/// Shortens a response to the whole batch to the part that each task keeps.
fn shortened(mut answer: Answer) -> Answered {
    if answer.body.len() > KEPT_BODY {
        answer.body.truncate(KEPT_BODY);
        answer.extent = Extent::Cut;
    }
    answered(&answer)
}

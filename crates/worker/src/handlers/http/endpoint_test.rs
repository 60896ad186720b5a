//! Endpoint tests: calls an endpoint once and returns the response.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use data_encoding::BASE64;
use http::HeaderMap;
use nobat_core::config::endpoint::{
    EndpointTest, EndpointTester, TestError, TestRequest, TestResponse, TestResult,
};
use nobat_core::json::Json;
use nobat_core::task::lifecycle::Retry;
use nobat_core::task::{ErrorCode, TaskKey};
use nobat_delivery::{Answer, Request};
use serde::Serialize;
use tokio::time::Instant;

use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handlers::http::batch::Batched;
use crate::handlers::http::response::{Answered, Body, answered, settle, text};
use crate::handlers::http::{Call, Http, Method, answers, batch, prepare};

/// Default body of a test.
#[derive(Serialize)]
struct Sample<'a> {
    r#type: &'static str,
    endpoint: &'a str,
    sent_at: String,
}

#[async_trait]
impl EndpointTester for Http {
    async fn test(&self, trial: EndpointTest) -> TestResult {
        let began = Instant::now();
        let mut exchange = TestResult { request: None, response: None, error: None, seconds: 0.0 };
        if let Err(Failure { error, retry, .. }) = self.exchange(trial, &mut exchange).await {
            exchange.error = Some(TestError {
                code: error.code.as_str().to_owned(),
                message: error.message,
                retry: retry != Retry::Never,
            });
        }
        TestResult { seconds: began.elapsed().as_secs_f64(), ..exchange }
    }
}

impl Http {
    async fn exchange(&self, trial: EndpointTest, exchange: &mut TestResult) -> Result<(), Failure> {
        let EndpointTest { tenant, name, endpoint, call, id, limit, now } = trial;
        let mut call: Call = call
            .parse()
            .map_err(|error| Failure::permanent(ErrorCode::INVALID_PAYLOAD, error.to_string()))?;
        if call.body.is_none()
            && call.body_base64.is_none()
            && matches!(call.method, Method::Post | Method::Put | Method::Patch)
        {
            let sample = Sample { r#type: "nobat.test", endpoint: name.as_str(), sent_at: now.to_string() };
            call.body = Some(Json::from_value(&sample)?);
        }
        let timeout = endpoint.timeout.unwrap_or(limit).min(limit);
        let is_batched = endpoint.batch.is_some() && batch::batch_key(&call).is_some();
        let context = TaskContext::of_trial(TaskKey { tenant, id }, (name, Arc::new(endpoint)), timeout);
        let (answers, fixed) = (answers(&call, &context), self.headers_of_endpoint(&context).await?);
        let (mut request, id) = if is_batched {
            let Batched { request, id, .. } =
                batch::prepare_all(vec![(call, &context)], &fixed, self.client.guard())?;
            (request, id)
        } else {
            (prepare(&call, &fixed, self.client.guard(), &context)?, context.idempotency_key.clone())
        };
        self.sign(&mut request, &id, &context).await?;
        exchange.request = Some(sent(&request, &fixed));
        let sent = self.client.send(request).await;
        exchange.response = sent.as_ref().ok().map(heard);
        settle(sent, &answers, true, SystemTime::now()).map(drop)
    }
}

/// Describes the request for display. Values of the endpoint's headers are secret and left out.
fn sent(request: &Request, fixed: &HeaderMap) -> TestRequest {
    let shown = |name, value: &http::HeaderValue| {
        (!fixed.contains_key(name)).then(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers: BTreeMap<_, _> =
        request.headers.iter().map(|(name, value)| (name.to_string(), shown(name, value))).collect();
    let body = text(&request.body, true).map(str::to_owned);
    let body_base64 = body.is_none().then(|| BASE64.encode(&request.body));
    let (method, url) = (request.method.to_string(), request.destination.url().to_string());
    TestRequest { method, url, headers, body, body_base64 }
}

fn heard(answer: &Answer) -> TestResponse {
    let Answered { status, headers, body, body_base64, truncated } = answered(answer);
    let body = match body {
        Some(Body::Json(json)) => json,
        Some(Body::Text(text)) => {
            Json::from_value(&text).unwrap_or_else(|_| unreachable!("a text can be written as JSON"))
        }
        None => Json::null(),
    };
    TestResponse { status, headers, body, body_base64, truncated }
}

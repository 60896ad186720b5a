//! Test call to an endpoint. It shows the request and its outcome to a client.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::config::endpoint::Endpoint;
use crate::json::Json;
use crate::types::id::TaskId;
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;

/// Sends test calls to endpoints. A test call belongs to no task, needs no permit of a limiter, and does not
/// change a limiter. The endpoint may be paused or gone.
#[async_trait]
pub trait EndpointTester: Send + Sync {
    /// Sends the call with the same headers and signature as a task's call. Returns the request and its
    /// outcome.
    async fn test(&self, trial: EndpointTest) -> TestResult;
}

/// Test call to make.
#[derive(Clone, Debug)]
pub struct EndpointTest {
    /// Tenant that owns the endpoint.
    pub tenant: Tenant,
    /// Name of the endpoint.
    pub name: Name,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Payload of an `http` task, already checked. If the payload has no body, the tester sends a sample body
    /// for the methods `POST`, `PUT` and `PATCH`.
    pub call: Json,
    /// Id that the call uses instead of a task id.
    pub id: TaskId,
    /// Maximum duration of the call.
    pub limit: Duration,
    /// Current time.
    pub now: Timestamp,
}

/// Request of a test call, and its outcome.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestResult {
    /// The request. `null` if nobat could not send it.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub request: Option<TestRequest>,
    /// The response. `null` if there was no response.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub response: Option<TestResponse>,
    /// Reason why there was no response, or why a task with this response would not succeed. `null` if the
    /// task would succeed.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<TestError>,
    /// Duration of the call in seconds.
    pub seconds: f64,
}

/// Request as it was sent.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestRequest {
    /// HTTP method.
    pub method: String,
    /// URL of the request.
    pub url: String,
    /// Headers, with names in lower case. A header from the endpoint's configuration has the value `null`,
    /// because its value is secret.
    pub headers: BTreeMap<String, Option<String>>,
    /// Body as text. Empty if there is no body, `null` if the body is binary.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub body: Option<String>,
    /// Binary body in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// Response of the endpoint.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers, with names in lower case and without cookies.
    pub headers: BTreeMap<String, String>,
    /// Body, at most 64 KiB: JSON, or else text. `null` if the body is binary.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub body: Json,
    /// Binary body in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// True if the end of the body is missing, because the body is longer than 64 KiB or the compression of
    /// the body is damaged.
    pub truncated: bool,
}

/// Reason why a test call failed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestError {
    /// Stable error code for programs, the same as in a failed attempt of a task.
    pub code: String,
    /// Explanation for people.
    pub message: String,
    /// True if nobat would retry a task after this error.
    pub retry: bool,
}

/// Tester of a program that cannot call endpoints.
pub struct NoEndpointTester;

#[async_trait]
impl EndpointTester for NoEndpointTester {
    async fn test(&self, _trial: EndpointTest) -> TestResult {
        let fault = TestError {
            code: "not_called".to_owned(),
            message: "this program cannot call endpoints; use the API of a nobat server".to_owned(),
            retry: false,
        };
        TestResult { request: None, response: None, error: Some(fault), seconds: 0.0 }
    }
}

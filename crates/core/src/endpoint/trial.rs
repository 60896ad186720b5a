//! Calling an endpoint once, to see what comes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::id::TaskId;
use crate::json::Json;
use crate::name::{Name, Tenant};
use crate::time::Timestamp;

/// Calls endpoints, once and for nobody's task: whatever stands in the way of tasks, and without a flow's being asked or told.
#[async_trait]
pub trait Tester: Send + Sync {
    /// Sends the call to the endpoint as a task's would be sent, signed and with its headers, and says what was sent and what came of it.
    async fn test(&self, trial: Trial) -> Exchange;
}

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Whose endpoint.
    pub tenant: Tenant,
    /// What it is called.
    pub name: Name,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What a task's payload would be. It was checked; without a body a sample is sent, if its method has one.
    pub call: Json,
    /// In place of a task's id.
    pub id: TaskId,
    /// How long it may take at most.
    pub limit: Duration,
    /// The time.
    pub now: Timestamp,
}

/// A request that was sent, and what came of it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exchange {
    /// What was sent; `null` if nothing could be.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub request: Option<Sent>,
    /// What was answered; `null` if there was no answer.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub answer: Option<Heard>,
    /// Why there was no answer, or why a task would not have succeeded by it.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub error: Option<Fault>,
    /// How many seconds it took.
    pub seconds: f64,
}

/// A request as it was sent.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SentRequest))]
pub struct Sent {
    /// Its method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Its headers in lower case; `null` stands for the values of those that the endpoint brings.
    pub headers: BTreeMap<String, Option<String>>,
    /// The body as text; empty if there is none, `null` if it is binary.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub body: Option<String>,
    /// A binary body, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Answer))]
pub struct Heard {
    /// Its status.
    pub status: u16,
    /// Its headers in lower case, cookies left out.
    pub headers: BTreeMap<String, String>,
    /// The body, up to 64 KiB: JSON, or else text; `null` if it is binary.
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub body: Json,
    /// A binary body, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Whether it said more.
    pub truncated: bool,
}

/// Why something failed.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// A stable code, for programs: what an attempt would have failed with.
    pub code: String,
    /// A sentence, for people.
    pub message: String,
    /// Whether a task would have been tried again.
    pub retry: bool,
}

/// Where nothing is called.
pub struct NoTester;

#[async_trait]
impl Tester for NoTester {
    async fn test(&self, _trial: Trial) -> Exchange {
        let fault = Fault { code: "not_called".to_owned(), message: "nothing is called from here".to_owned(), retry: false };
        Exchange { request: None, answer: None, error: Some(fault), seconds: 0.0 }
    }
}

//! Calls to AWS: DynamoDB, SQS and KMS in their JSON protocols, Lambda as a REST API, `CloudFormation` with
//! form bodies.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::exchange::{Answer, exchange};

/// Region of every service.
pub const REGION: &str = "us-east-1";

/// Access key of the owner of the emulator's only account.
pub const ACCESS_KEY: &str = "test";

/// Secret of [`ACCESS_KEY`]. The emulator does not check signatures, so the client signs nothing.
pub const SECRET_KEY: &str = "test";

/// Date that requests claim to be signed on.
const DAY: &str = "20260101";

/// Client of one emulator.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
    key: &'static str,
}

/// A service of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// DynamoDB.
    DynamoDb,
    /// SQS.
    Sqs,
    /// KMS.
    Kms,
    /// Lambda.
    Lambda,
    /// `CloudFormation`.
    CloudFormation,
}

/// Error that a service returns for a refused call.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Error code, without the namespace that some services put in front.
    pub code: String,
    /// Error message.
    pub message: String,
}

impl Client {
    /// Creates a client for the owner of the account at the emulator with this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, key: ACCESS_KEY }
    }

    /// Returns the same client with another access key.
    #[must_use]
    pub fn with_key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// Calls an operation of DynamoDB. Panics if it fails.
    pub async fn dynamodb(&self, operation: &str, input: &Value) -> Value {
        self.must(Service::DynamoDb, operation, input).await
    }

    /// Calls an operation of SQS. Panics if it fails.
    pub async fn sqs(&self, operation: &str, input: &Value) -> Value {
        self.must(Service::Sqs, operation, input).await
    }

    /// Sends a request to Lambda and returns the answer.
    pub async fn lambda(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(Service::Lambda, method, &format!("/2015-03-31/{path}"), &[], body).await
    }

    /// Calls an operation of `CloudFormation` on a stack and returns the XML answer. Panics if it fails.
    pub async fn stack(&self, operation: &str, stack: &str) -> String {
        let form = format!("Action={operation}&StackName={stack}&Version=2010-05-15");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.send(Service::CloudFormation, "POST", "/", &headers, &form).await;
        assert_eq!(answer.status, 200, "{operation} of {stack}: {}", answer.text());
        answer.text()
    }

    /// Calls an operation of DynamoDB, SQS or KMS and returns its output or its error.
    pub async fn call(&self, service: Service, operation: &str, input: &Value) -> Result<Value, Refusal> {
        let target = format!("{}.{operation}", service.target());
        let answer = self.send(service, "POST", "/", &[("x-amz-target", &target)], &input.to_string()).await;
        if answer.status == 200 { Ok(answer.json()) } else { Err(Refusal::of(&answer)) }
    }

    async fn send(
        &self,
        service: Service,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (authorization, date) = (self.authorization(service), format!("{DAY}T000000Z"));
        let signed = [headers, &[("x-amz-date", date.as_str()), ("authorization", &authorization)]].concat();
        let answer = exchange(self.address, method, path, &signed, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}"))
    }

    async fn must(&self, service: Service, operation: &str, input: &Value) -> Value {
        let answer = self.call(service, operation, input).await;
        answer.unwrap_or_else(|refusal| panic!("{operation} of {input:#}: {refusal}"))
    }

    /// Returns an `authorization` header that names the access key and the service. Its signature consists of
    /// zeros.
    fn authorization(&self, service: Service) -> String {
        let credential = format!("{}/{DAY}/{REGION}/{}/aws4_request", self.key, service.name());
        format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature={:064}", 0)
    }
}

impl Service {
    fn target(self) -> &'static str {
        match self {
            Self::DynamoDb => "DynamoDB_20120810",
            Self::Sqs => "AmazonSQS",
            Self::Kms => "TrentService",
            Self::Lambda | Self::CloudFormation => panic!("{self:?} has no operations in JSON"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Sqs => "sqs",
            Self::Kms => "kms",
            Self::Lambda => "lambda",
            Self::CloudFormation => "cloudformation",
        }
    }
}

impl Refusal {
    fn of(answer: &Answer) -> Self {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |names: [&str; 2]| {
            names.iter().find_map(|name| body[*name].as_str()).unwrap_or_default().to_owned()
        };
        let code = text(["__type", "code"]);
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        Self { status: answer.status, code, message: text(["message", "Message"]) }
    }
}

//! The SDK's clients, with time limits: without them, the SDK waits for an answer for ever.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::meter::Meter;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one try of a call may take: a healthy one takes some milliseconds.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// How long a call may take in all.
const OPERATION: Duration = Duration::from_secs(5);
/// How often a call is tried.
const ATTEMPTS: u32 = 3;
/// The longest pause before the second try; it doubles from one to the next.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What the SDK finds in its variables, its files, and the machine it runs on.
pub(crate) async fn config() -> SdkConfig {
    loader().load().await
}

/// An emulator that takes anybody's word for who they are.
pub(crate) async fn emulated(url: &str) -> SdkConfig {
    let anybody = Credentials::new("test", "test", None, None, "emulator");
    loader().endpoint_url(url).region(Region::from_static("us-east-1")).credentials_provider(anybody).load().await
}

fn loader() -> ConfigLoader {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts(Duration::ZERO))
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACK_OFF))
}

/// The clients of both services, with a meter on them if there is one.
pub(crate) fn clients(config: &SdkConfig, meter: Option<&Meter>) -> (aws_sdk_dynamodb::Client, aws_sdk_sqs::Client) {
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(config);
    let mut sqs = aws_sdk_sqs::config::Builder::from(config);
    if let Some(meter) = meter {
        dynamodb = dynamodb.interceptor(meter.clone());
        sqs = sqs.interceptor(meter.clone());
    }
    (aws_sdk_dynamodb::Client::from_conf(dynamodb.build()), aws_sdk_sqs::Client::from_conf(sqs.build()))
}

/// The time limits of a call that must not take longer than that in all.
pub(crate) fn within(limit: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).operation_timeout(limit).build()
}

/// The time limits of a call that may be held by the other side for so long before it is answered.
pub(crate) fn timeouts(held: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(held + ATTEMPT).operation_timeout(held + OPERATION).build()
}

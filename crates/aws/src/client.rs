//! Clients of the AWS SDK, with timeouts. Without timeouts the SDK waits forever.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::meter::Meter;

/// Maximum time to connect to a service of AWS.
const CONNECT: Duration = Duration::from_secs(1);
/// Maximum duration of one try of a call. A try normally takes some milliseconds.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// Maximum duration of a call with all its tries.
const OPERATION: Duration = Duration::from_secs(5);
/// Maximum number of tries of a call.
const ATTEMPTS: u32 = 3;
/// Maximum pause before the second try. The pause doubles with each further try.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Loads the SDK's configuration from environment variables, files and the machine's metadata service.
pub(crate) async fn config() -> SdkConfig {
    loader().load().await
}

/// Returns the configuration for an emulator that accepts any credentials.
pub(crate) async fn emulated(url: &str) -> SdkConfig {
    let anybody = Credentials::new("test", "test", None, None, "emulator");
    loader()
        .endpoint_url(url)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(anybody)
        .load()
        .await
}

fn loader() -> ConfigLoader {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts(Duration::ZERO))
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACK_OFF))
}

/// Creates the clients of DynamoDB and SQS. The meter counts their calls.
pub(crate) fn clients(
    config: &SdkConfig,
    meter: Option<&Meter>,
) -> (aws_sdk_dynamodb::Client, aws_sdk_sqs::Client) {
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(config);
    let mut sqs = aws_sdk_sqs::config::Builder::from(config);
    if let Some(meter) = meter {
        dynamodb = dynamodb.interceptor(meter.clone());
        sqs = sqs.interceptor(meter.clone());
    }
    (aws_sdk_dynamodb::Client::from_conf(dynamodb.build()), aws_sdk_sqs::Client::from_conf(sqs.build()))
}

/// Returns the timeouts of a call that takes at most `limit` with all its tries.
pub(crate) fn within(limit: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(limit)
        .build()
}

/// Returns the timeouts of a call whose response the service may delay by `held`.
pub(crate) fn timeouts(held: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(held + ATTEMPT)
        .operation_timeout(held + OPERATION)
        .build()
}

//! Configuration of endpoints and queues, from the request's body to the record. Accepted configuration reads
//! back unchanged and contains no secret in the clear. Errors quote nothing of it.
#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nobat_core::config::endpoint::{
    Endpoint, EndpointSubmission, EndpointUpdate, EndpointUpdateContext, MAX_BASE,
};
use nobat_core::config::queue::{QueueConfig, QueueSubmission};
use nobat_core::json::decode::read_object;
use nobat_core::limits::{Limits, MAX_RESERVATION_AHEAD};
use nobat_core::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};
use nobat_core::secrets::webhook::WebhookSecret;
use nobat_core::types::field_error::FieldError;
use nobat_core::types::http_url::HttpUrl;
use nobat_core::types::time::Timestamp;
use nobat_delivery::{Client, Guard};
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;

use crate::hiding::{SECRET, hidden};

mod hiding;

/// 2026-12-01T08:00:00Z
const NOW: i64 = 1_796_112_000_000;
const MAX_TIMEOUT: Duration = Duration::from_hours(12);
/// Maximum size of a record, in bytes.
const MAX_RECORD: usize = 64 * 1024;

static KINDS: LazyLock<Handlers> =
    LazyLock::new(|| Handlers::new().with(Http::new(Client::new(Guard::default()))));
static VAULT: LazyLock<Vault> =
    LazyLock::new(|| Vault::new(MasterKey::new([7; MASTER_KEY_BYTES]), Vec::new()));

fuzz_target!(|body: &[u8]| {
    match read_endpoint(body) {
        Ok(update) => check(&update),
        Err(reasons) => assert!(!reasons.is_empty()),
    }
    if let Ok(config) = read_queue(body) {
        assert_eq!(
            QueueConfig::from_text(&config.to_text(), config.version).expect("the record reads back"),
            config
        );
        check_limits(&config.limits);
    }
    check_secrecy(body);
});

/// Returns the endpoint, or all error texts.
fn read_endpoint(body: &[u8]) -> Result<EndpointUpdate, Vec<String>> {
    let submission: EndpointSubmission = read_object(body).map_err(|error| vec![error.to_string()])?;
    let context = EndpointUpdateContext {
        current: None,
        kinds: &*KINDS,
        max_timeout: MAX_TIMEOUT,
        seal: &|secret| VAULT.seal("endpoint/default/e", secret, [1; 12]),
        random: random_bytes(body),
        now: Timestamp::from_millis(NOW),
    };
    submission.into_endpoint(&context).map_err(error_texts)
}

/// Returns the random bytes of the generated secret. They depend on the whole body, so that no body can contain the secret.
fn random_bytes(body: &[u8]) -> [u8; WebhookSecret::BYTES] {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let hash = hasher.finish().to_le_bytes();
    std::array::from_fn(|index| hash[index % hash.len()])
}

fn read_queue(body: &[u8]) -> Result<QueueConfig, Vec<String>> {
    let submission: QueueSubmission = read_object(body).map_err(|error| vec![error.to_string()])?;
    submission.queue_config("/limits", &QueueConfig::default()).map_err(error_texts)
}

fn error_texts(errors: Vec<FieldError>) -> Vec<String> {
    assert!(
        errors.iter().all(|error| error.pointer.is_empty() || error.pointer.starts_with('/')),
        "{errors:?}"
    );
    errors.into_iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect()
}

fn check(EndpointUpdate { endpoint, made }: &EndpointUpdate) {
    let text = endpoint.to_text();
    assert_eq!(Endpoint::from_text(&text, endpoint.version).expect("the record reads back"), *endpoint);
    assert!(text.len() <= MAX_RECORD, "{} bytes", text.len());
    assert!(endpoint.url.as_str().len() <= MAX_BASE, "{}", endpoint.url);
    assert_eq!(HttpUrl::parse(endpoint.url.as_str()).expect("the URL parses again"), endpoint.url);
    for path in [None, Some(""), Some("?a=b"), Some("/"), Some("/a?b")] {
        assert!(
            endpoint.at(path).expect("the path joins the URL").same_destination(&endpoint.url),
            "{}",
            endpoint.url
        );
    }
    assert!(
        endpoint.timeout.is_none_or(|timeout| !timeout.is_zero() && timeout <= MAX_TIMEOUT),
        "{:?}",
        endpoint.timeout
    );
    assert!(
        endpoint
            .batch
            .is_none_or(|batch| batch.max_items.get() <= 100 && batch.max_wait <= MAX_RESERVATION_AHEAD),
        "{:?}",
        endpoint.batch
    );
    assert_eq!(endpoint.secrets.live(Timestamp::from_millis(NOW)).count(), 1);
    assert!(made.as_ref().is_none_or(|made| !text.contains(&made.to_text())));
    check_limits(&endpoint.limits);
}

fn check_limits(limits: &Limits) {
    assert!(limits.rate.is_none_or(|rate_limit| !rate_limit.period.is_zero()), "{limits:?}");
    assert!(
        limits.breaker.is_none_or(|breaker| breaker.failure_rate > 0.0 && breaker.failure_rate <= 1.0),
        "{limits:?}"
    );
}

/// Replaces every text but the URL by a secret. Neither errors nor the record may contain it.
fn check_secrecy(body: &[u8]) {
    let Some(body) = hidden(body, |name, _| name == "url") else { return };
    match read_endpoint(&body) {
        Ok(update) => assert!(!update.endpoint.to_text().contains(SECRET), "{:?}", update.endpoint),
        Err(reasons) => assert!(!reasons.iter().any(|reason| reason.contains(SECRET)), "{reasons:?}"),
    }
}

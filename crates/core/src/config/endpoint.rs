//! Endpoint: a receiving server with a name, and the settings for calls to it.

mod endpoint_test;
mod submission;

pub use endpoint_test::{
    EndpointTest, EndpointTester, NoEndpointTester, TestError, TestRequest, TestResponse, TestResult,
};
pub use submission::{BatchSubmission, EndpointSubmission, EndpointUpdate, EndpointUpdateContext};

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::record::{Record, RecordKind, RecordName};
use crate::limits::codec::StoredLimits;
use crate::limits::{BatchPolicy, Limits};
use crate::secrets::secret_set::SecretSet;
use crate::secrets::vault::Sealed;
use crate::task::codec::StoredRetry;
use crate::task::retry::RetryPolicy;
use crate::types::http_status::Statuses;
use crate::types::http_url::{HttpUrl, InvalidUrl};
use crate::types::name::{Name, Tenant};
use crate::types::time::Timestamp;
use crate::types::unreadable::Unreadable;

/// Endpoint of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Base URL, without a query. A task calls this URL, followed by the task's path, if any.
    pub url: HttpUrl,
    /// Headers of every request. Their values are sealed, because they can be secret.
    pub headers: BTreeMap<String, Sealed>,
    /// Secrets that sign requests.
    pub secrets: SecretSet,
    /// Maximum duration of an attempt, for tasks without their own timeout.
    pub timeout: Option<Duration>,
    /// Retry policy, for tasks without their own retry policy.
    pub retry: Option<RetryPolicy>,
    /// Meaning of each response status.
    pub answers: ResponsePolicy,
    /// Start rate, concurrency and circuit breaker.
    pub limits: Limits,
    /// Batch settings. `None` if each task goes in a request of its own.
    pub batch: Option<BatchPolicy>,
    /// State: open, paused or gone.
    pub status: EndpointStatus,
    /// Certificate authorities in PEM. If set, these authorities replace the authorities of the operating
    /// system.
    pub authority: Option<String>,
    /// Time at which the endpoint was created.
    pub created_at: Timestamp,
    /// Number of writes to the record. Starts at 1.
    pub version: u64,
}

/// Meaning of each response status. After a status in neither list, the task fails without a retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponsePolicy {
    /// Statuses that mean success.
    pub success_statuses: Statuses,
    /// Statuses that mean that a later attempt may succeed.
    pub retry_statuses: Statuses,
}

/// Meaning of a response for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseClass {
    /// The task succeeded.
    Success,
    /// A later attempt may succeed.
    Retry,
    /// No later attempt can succeed.
    Final,
}

/// State of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointStatus {
    /// Workers call the endpoint.
    #[default]
    Open,
    /// A client paused the endpoint. The endpoint's tasks are held.
    Paused,
    /// The endpoint responded with 410 (Gone). The endpoint's tasks are held.
    Gone,
}

impl Endpoint {
    /// Returns the `place` argument of [`Vault::seal`](crate::secrets::vault::Vault::seal) for this
    /// endpoint's secrets and header values. The text is unique, because names contain no `/`.
    pub fn secret_context(tenant: &Tenant, name: &Name) -> String {
        format!("endpoint/{tenant}/{name}")
    }

    /// Returns the URL that a task with this path calls. Without a path, or with an empty path, this is the
    /// registered URL.
    pub fn at(&self, path: Option<&str>) -> Result<HttpUrl, InvalidUrl> {
        self.url.join(path.unwrap_or_default())
    }

    /// Returns true if both endpoints have the same URL and the same creation time. The creation time differs
    /// if the endpoint was removed and created again.
    pub fn is_same_destination(&self, other: &Self) -> bool {
        self.url == other.url && self.created_at == other.created_at
    }

    /// Returns true if the endpoint is neither paused nor gone.
    pub fn is_open(&self) -> bool {
        self.status == EndpointStatus::Open
    }

    /// Returns the name of the endpoint's record.
    pub fn record_name(tenant: &Tenant, name: &Name) -> RecordName {
        RecordName { tenant: Some(tenant.clone()), kind: RecordKind::Endpoint, name: name.clone() }
    }

    /// Returns the endpoint's record.
    pub fn record(&self, tenant: &Tenant, name: &Name) -> Record {
        Record { name: Self::record_name(tenant, name), version: self.version, body: self.to_text() }
    }

    /// Returns the stored form: compact JSON, the same in every backend.
    pub fn to_text(&self) -> String {
        serde_json::to_string(&Stored::from(self))
            .unwrap_or_else(|_| unreachable!("texts, numbers and times always serialize"))
    }

    /// Inverse of [`Endpoint::to_text`].
    pub fn from_text(text: &str, version: u64) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_str(text).map_err(|_| Unreadable("an endpoint"))?;
        Ok(stored.with_version(version))
    }
}

/// Returns true if a task may append the text to its endpoint's URL. The text is a path with an optional
/// query, and cannot lead above that URL.
///
/// The text is empty or begins with `/` or `?`. It is printable ASCII without `\` and `#`, and has at most
/// [`MAX_PATH`] bytes after encoding. No segment is `.` or `..`, plain or percent-encoded, because the URL
/// Standard treats both spellings alike. Some servers also split segments at `%2f` and `%5c`, or ignore the
/// text after a `;`. Segments that such a server reads as `.` or `..` are refused too.
pub fn is_path(text: &str) -> bool {
    let (path, _) = text.split_once('?').unwrap_or((text, ""));
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
    let decoded = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "/")
        .replace("%3b", ";");
    let is_relative = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    let is_short = text.bytes().map(encoded_length).sum::<usize>() <= MAX_PATH;
    is_short
        && (path.is_empty() || path.starts_with('/'))
        && text.bytes().all(is_plain)
        && !decoded.split('/').any(is_relative)
}

/// Returns the number of bytes that a URL needs for this byte of a path: 3 if a URL percent-encodes the byte,
/// otherwise 1.
fn encoded_length(byte: u8) -> usize {
    if matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}') { 3 } else { 1 }
}

/// Maximum length of a path in bytes, after encoding.
pub const MAX_PATH: usize = 1_024;

/// Maximum length of an endpoint's URL in bytes. Together with a path of [`MAX_PATH`] bytes, such a URL is
/// still valid.
pub const MAX_BASE: usize = 1_024;

impl ResponsePolicy {
    /// Returns the meaning of a response with this status.
    pub fn meaning(&self, status: u16) -> ResponseClass {
        if self.success_statuses.contains(status) {
            ResponseClass::Success
        } else if self.retry_statuses.contains(status) {
            ResponseClass::Retry
        } else {
            ResponseClass::Final
        }
    }
}

impl Default for ResponsePolicy {
    /// Success: 200 to 299. Retry: 408, 425, 429, and 500 or higher, because the same request may succeed
    /// later.
    fn default() -> Self {
        let statuses = |texts: &[&str]| {
            let read = |text: &&str| {
                text.parse().unwrap_or_else(|_| unreachable!("a test parses the default statuses"))
            };
            Statuses::new(texts.iter().map(read).collect())
        };
        Self {
            success_statuses: statuses(&["200-299"]),
            retry_statuses: statuses(&["408", "425", "429", ">=500"]),
        }
    }
}

/// Stored form of an [`Endpoint`]. The record holds the version.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: HttpUrl,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Sealed>,
    #[serde(default)]
    secrets: SecretSet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<StoredRetry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    success_statuses: Option<Statuses>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_statuses: Option<Statuses>,
    #[serde(flatten)]
    limits: StoredLimits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<StoredBatch>,
    #[serde(default)]
    status: EndpointStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    created_at: Timestamp,
}

/// Stored form of batch settings: maximum items, maximum wait in milliseconds, per-item results.
#[derive(Serialize, Deserialize)]
struct StoredBatch(NonZeroU32, u64, bool);

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Endpoint> for Stored {
    fn from(endpoint: &Endpoint) -> Self {
        let usual = ResponsePolicy::default();
        let ResponsePolicy { success_statuses, retry_statuses } = endpoint.answers.clone();
        Self {
            url: endpoint.url.clone(),
            headers: endpoint.headers.clone(),
            secrets: endpoint.secrets.clone(),
            timeout_ms: endpoint.timeout.map(millis),
            retry: endpoint.retry.as_ref().map(StoredRetry::from),
            success_statuses: Some(success_statuses)
                .filter(|success_statuses| *success_statuses != usual.success_statuses),
            retry_statuses: Some(retry_statuses)
                .filter(|retry_statuses| *retry_statuses != usual.retry_statuses),
            limits: endpoint.limits.into(),
            batch: endpoint
                .batch
                .map(|batch| StoredBatch(batch.max_items, millis(batch.max_wait), batch.per_item_results)),
            status: endpoint.status,
            authority: endpoint.authority.clone(),
            created_at: endpoint.created_at,
        }
    }
}

impl Stored {
    fn with_version(self, version: u64) -> Endpoint {
        let usual = ResponsePolicy::default();
        let batch = |StoredBatch(max_items, wait, per_item_results)| BatchPolicy {
            max_items,
            max_wait: Duration::from_millis(wait),
            per_item_results,
        };
        Endpoint {
            url: self.url,
            headers: self.headers,
            secrets: self.secrets,
            timeout: self.timeout_ms.map(Duration::from_millis),
            retry: self.retry.map(RetryPolicy::from),
            answers: ResponsePolicy {
                success_statuses: self.success_statuses.unwrap_or(usual.success_statuses),
                retry_statuses: self.retry_statuses.unwrap_or(usual.retry_statuses),
            },
            limits: self.limits.into(),
            batch: self.batch.map(batch),
            status: self.status,
            authority: self.authority,
            created_at: self.created_at,
            version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BreakerPolicy, RateLimit};
    use crate::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};
    use crate::task::retry::Schedule;

    fn plain() -> Endpoint {
        Endpoint {
            url: "https://billing.example/api".parse().unwrap(),
            headers: BTreeMap::new(),
            secrets: SecretSet::default(),
            timeout: None,
            retry: None,
            answers: ResponsePolicy::default(),
            limits: Limits::default(),
            batch: None,
            status: EndpointStatus::Open,
            authority: None,
            created_at: Timestamp::from_millis(1_800_000_000_123),
            version: 1,
        }
    }

    fn elaborate() -> Endpoint {
        let sealed = Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new()).seal("", b"x", [1; 12]);
        let count = |count| NonZeroU32::new(count).unwrap();
        let statuses = |text: &str| Statuses::new(vec![text.parse().unwrap()]);
        Endpoint {
            headers: [("authorization".to_owned(), sealed.clone())].into(),
            secrets: SecretSet::default().with(sealed, Duration::ZERO, Timestamp::EPOCH).unwrap(),
            timeout: Some(Duration::from_millis(1_234)),
            retry: Some(RetryPolicy {
                schedule: Schedule::Delays(vec![Duration::from_secs(5)]),
                max_age: Some(Duration::from_hours(1)),
            }),
            answers: ResponsePolicy { success_statuses: statuses("200"), retry_statuses: statuses("!501") },
            limits: Limits {
                rate: Some(RateLimit {
                    rate: count(10),
                    period: Duration::from_millis(1_500),
                    burst: count(3),
                }),
                concurrency: Some(count(4)),
                breaker: Some(BreakerPolicy {
                    failure_rate: 0.25,
                    window: Duration::from_secs(7),
                    minimum_calls: count(2),
                    open_duration: Duration::from_secs(3),
                }),
            },
            batch: Some(BatchPolicy {
                max_items: count(100),
                max_wait: Duration::from_secs(5),
                per_item_results: true,
            }),
            status: EndpointStatus::Gone,
            authority: Some("-----BEGIN CERTIFICATE-----".to_owned()),
            version: 7,
            ..plain()
        }
    }

    #[test]
    fn endpoints_are_read_back_as_stored() {
        for endpoint in [plain(), elaborate()] {
            assert_eq!(Endpoint::from_text(&endpoint.to_text(), endpoint.version).unwrap(), endpoint);
        }
        let usual = r#"{"url":"https://billing.example/api","secrets":[],"status":"open","created_at":"2027-01-15T08:00:00.123Z"}"#;
        assert_eq!(plain().to_text(), usual, "default values are not stored");
        assert!(Endpoint::from_text("{}", 1).is_err());
    }

    #[test]
    fn secret_context_names_tenant_and_endpoint() {
        let (tenant, name) = (Tenant::new("acme").unwrap(), Name::new("billing").unwrap());
        assert_eq!(
            Endpoint::secret_context(&tenant, &name),
            "endpoint/acme/billing",
            "stored secrets were sealed for this context"
        );
        assert_eq!(plain().record(&tenant, &name).name, Endpoint::record_name(&tenant, &name));
    }

    #[test]
    fn path_that_leaves_the_url_is_refused() {
        for path in [
            "",
            "?a=b",
            "?a=/../b",
            "/",
            "/charge",
            "/a/b?c=../d&e=%2e%2e",
            "/a..b/.c",
            "/%2e%2e%2e",
            "/a%2fb",
            "//a",
        ] {
            assert!(is_path(path), "{path}");
        }
        let (long, growing) =
            (format!("/{}", "a".repeat(MAX_PATH)), format!("/{}", "{".repeat(MAX_PATH / 2)));
        for path in [
            "charge",
            "@example.com/",
            ":8080/",
            "/..",
            "/.",
            "/a/../b",
            "/a/%2E./b",
            "/%2e",
            "/..%2fadmin",
            "/a/..%5C..%5cb",
            "/..;/admin",
            "/.%2e%3Bx/a",
            "/a/.%2e",
            "/a b",
            "/a\tb",
            "/a#b",
            "/a\\..\\b",
            "/\u{e9}",
            "http://example.com/",
            &long,
            &growing,
        ] {
            assert!(!is_path(path), "{path}");
        }
        assert_eq!(
            plain().at(Some("/charge?now=1")).unwrap().as_str(),
            "https://billing.example/api/charge?now=1"
        );
        for path in [None, Some("")] {
            assert_eq!(
                plain().at(path).unwrap(),
                plain().url,
                "without a path, the registered URL is unchanged"
            );
        }
    }

    #[test]
    fn status_lists_decide_the_meaning_of_a_response() {
        let usual = ResponsePolicy::default();
        for (status, meaning) in [
            (200, ResponseClass::Success),
            (299, ResponseClass::Success),
            (301, ResponseClass::Final),
            (400, ResponseClass::Final),
            (408, ResponseClass::Retry),
            (410, ResponseClass::Final),
            (425, ResponseClass::Retry),
            (429, ResponseClass::Retry),
            (500, ResponseClass::Retry),
            (599, ResponseClass::Retry),
        ] {
            assert_eq!(usual.meaning(status), meaning, "{status}");
        }
        let own = elaborate().answers;
        assert_eq!(
            [200, 201, 404, 501].map(|status| own.meaning(status)),
            [ResponseClass::Success, ResponseClass::Retry, ResponseClass::Retry, ResponseClass::Final]
        );
    }
}

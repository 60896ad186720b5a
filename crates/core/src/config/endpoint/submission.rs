//! Conversion of an endpoint from a client's request to the stored form.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use crate::config::endpoint::{Endpoint, EndpointStatus, MAX_BASE, ResponsePolicy};
use crate::config::kind::{KindError, KindRegistry, Target};
use crate::json::Json;
use crate::limits::{BatchPolicy, BreakerSubmission, Limits, LimitsSubmission, MAX_RESERVATION_AHEAD};
use crate::secrets::secret_set::SecretSet;
use crate::secrets::vault::Sealed;
use crate::secrets::webhook::WebhookSecret;
use crate::task::ErrorCode;
use crate::task::callback::HTTP;
use crate::task::retry_submission::RetrySubmission;
use crate::types::bounds::Bounds;
use crate::types::field_error::{FieldError, ValidationErrors};
use crate::types::http_status::Statuses;
use crate::types::http_url::HttpUrl;
use crate::types::time::Timestamp;

/// Configuration of an endpoint. A request replaces the whole configuration: omitted fields reset to their
/// defaults, except `secret` and `paused`, which keep their values.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointSubmission {
    /// Base URL with the scheme `http` or `https`. A task calls this URL, followed by the task's path, if
    /// any. A slash at the end is optional. The URL has no query, no fragment, and no segment `.` or `..`. At
    /// most 1,024 bytes of printable ASCII.
    #[cfg_attr(feature = "openapi", schema(format = "uri", max_length = 1024))]
    pub url: String,
    /// Headers of every request. These headers replace a task's headers of the same names. nobat encrypts the
    /// stored values and never shows the values. `null` keeps the stored value, but only if the scheme, host
    /// and port of `url` stay the same.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_headers")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, Option<String>>>, required = false))]
    pub headers: Option<BTreeMap<String, Option<String>>>,
    /// Secret that signs requests: `whsec_` and 24 to 64 random bytes in base64. This secret replaces all
    /// current secrets at once. If omitted, the current secrets stay in use. For a new endpoint without a
    /// secret, nobat generates a secret, which the response shows once.
    #[cfg_attr(
        feature = "openapi",
        schema(
            pattern = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|([A-Za-z0-9+/]{4})?[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
        )
    )]
    pub secret: Option<String>,
    /// Maximum duration of an attempt in seconds, for tasks without their own timeout. Default 30. At least
    /// 0.001.
    #[cfg_attr(feature = "openapi", schema(minimum = 0.001))]
    pub timeout: Option<f64>,
    /// Retry policy, for tasks without their own retry policy.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<RetrySubmission>, required = false))]
    pub retry: Option<RetrySubmission>,
    /// Statuses that mean success: 1 to 20 ranges. Default `200-299`.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 20))]
    pub success_statuses: Option<Vec<String>>,
    /// Statuses after which a later attempt may succeed: at most 20 ranges, such as `>=500` or `!501`.
    /// Default 408, 425, 429 and `>=500`. After a status in neither list, the task fails without a retry.
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub retry_statuses: Option<Vec<String>>,
    /// Rate and concurrency limits of calls to the endpoint. No limits by default.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<LimitsSubmission>, required = false))]
    pub limits: Option<LimitsSubmission>,
    /// Circuit breaker: it holds tasks when too many attempts fail. Enabled by default.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BreakerSubmission>, required = false))]
    pub circuit_breaker: Option<BreakerSubmission>,
    /// Batch settings. By default each task goes in a request of its own.
    #[serde(default, deserialize_with = "crate::json::decode::maybe_object")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BatchSubmission>, required = false))]
    pub batch: Option<BatchSubmission>,
    /// Certificate authorities for this endpoint, instead of the authorities of the operating system. Up to
    /// ten certificates in PEM, at most 16,384 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 16384))]
    pub ca_certificates: Option<String>,
    /// True to pause the endpoint: the endpoint's tasks are held. False to resume the endpoint. If omitted,
    /// the value does not change.
    pub paused: Option<bool>,
}

/// Settings for batches, which send several tasks in one request. The request body is an array of the tasks'
/// bodies. If `per_item_results` is set, the request body is an array of `{"id", "body"}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchSubmission {
    /// Maximum number of tasks in one request. Default 100. From 1 to 100. A request contains fewer tasks if
    /// their bodies together would exceed 1 MiB.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>, minimum = 1, maximum = 100))]
    pub max_items: Option<f64>,
    /// Maximum time for which the first task of a batch waits for other tasks, in seconds. Default 5. From 0
    /// to 900.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 900))]
    pub max_wait: Option<f64>,
    /// True if the endpoint's response reports the outcome of each item: `{"results": [{"id", "status"}]}`.
    /// Default `false`.
    pub per_item_results: Option<bool>,
}

/// Maximum and default of [`BatchSubmission::max_items`]. One submission can contain the same number of
/// tasks.
const MAX_ITEMS: NonZeroU32 = NonZeroU32::new(100).expect("100 is not zero");
/// Default of [`BatchSubmission::max_wait`].
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Data that the server adds to an [`EndpointSubmission`].
pub struct EndpointUpdateContext<'a> {
    /// Stored endpoint of that name, if there is one.
    pub current: Option<&'a Endpoint>,
    /// Kinds that this installation runs, to check the URL and the headers.
    pub kinds: &'a dyn KindRegistry,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Seals a secret for this endpoint.
    pub seal: &'a (dyn Fn(&[u8]) -> Sealed + Sync),
    /// Random bytes for a generated secret.
    pub random: [u8; WebhookSecret::BYTES],
    /// Current time.
    pub now: Timestamp,
}

/// Checked endpoint, ready to be stored.
#[derive(Debug)]
pub struct EndpointUpdate {
    /// The endpoint. Its version is one higher than the stored version.
    pub endpoint: Endpoint,
    /// Generated secret, if the endpoint needed one.
    pub made: Option<WebhookSecret>,
}

/// Value of a header.
enum Value {
    New(String),
    Kept(Sealed),
}

impl Value {
    /// Returns the text to check. A kept value gives an empty text, because nobat checked that value when the
    /// client sent it.
    fn text(&self) -> &str {
        match self {
            Self::New(text) => text,
            Self::Kept(_) => "",
        }
    }
}

impl EndpointSubmission {
    /// Returns the endpoint, or all errors in the request.
    pub fn into_endpoint(
        self,
        receiving: &EndpointUpdateContext<'_>,
    ) -> Result<EndpointUpdate, Vec<FieldError>> {
        let mut wrong = ValidationErrors::default();
        let current = receiving.current;
        if self.url.contains(['?', '#']) {
            wrong.add(
                "/url",
                "expected a URL without query and fragment, because nobat appends paths to this URL",
            );
        }
        let url = wrong.url(&self.url);
        let headers = headers(self.headers.unwrap_or_default(), url.as_ref(), current, &mut wrong);
        wrong.call(url.as_ref(), &headers, receiving.kinds);
        let given = self.secret.map(|text| text.parse::<WebhookSecret>()).transpose();
        let given = given.unwrap_or_else(|error| {
            wrong.add("/secret", error.to_string());
            None
        });
        let made = (given.is_none() && current.is_none()).then(|| WebhookSecret::new(receiving.random));
        let timeout = self.timeout.and_then(|timeout| {
            wrong.take("/timeout", Bounds::timeout(receiving.max_timeout).seconds(timeout))
        });
        let retry = self.retry.map(|retry| wrong.retry("/retry", &retry));
        let usual = ResponsePolicy::default();
        if self.success_statuses.as_ref().is_some_and(Vec::is_empty) {
            wrong.add(
                "/success_statuses",
                "expected at least one range; without a success status, no task can succeed",
            );
        }
        let success_statuses = self
            .success_statuses
            .map_or(usual.success_statuses, |texts| statuses("/success_statuses", texts, &mut wrong));
        let retry_statuses = self
            .retry_statuses
            .map_or(usual.retry_statuses, |texts| statuses("/retry_statuses", texts, &mut wrong));
        let limits = self.limits.unwrap_or_default().limits("/limits", &mut wrong);
        let breaker = self.circuit_breaker.unwrap_or_default().policy("/circuit_breaker", &mut wrong);
        let batch = self.batch.map(|batch| batch.checked(&mut wrong));
        if let Some(Err(detail)) =
            self.ca_certificates.as_deref().map(|pem| receiving.kinds.check_authority(pem))
        {
            wrong.add("/ca_certificates", detail);
        }
        let Some(url) = url.filter(|_| wrong.0.is_empty()) else { return Err(wrong.0) };
        let secrets = match given.as_ref().or(made.as_ref()).map(|secret| (receiving.seal)(secret.as_bytes()))
        {
            Some(sealed) => {
                SecretSet::default().with(sealed, Duration::ZERO, receiving.now).unwrap_or_default()
            }
            None => current.map(|current| current.secrets.clone()).unwrap_or_default(),
        };
        let sealed = |(name, value)| match value {
            Value::New(text) => (name, (receiving.seal)(text.as_bytes())),
            Value::Kept(sealed) => (name, sealed),
        };
        let endpoint = Endpoint {
            headers: headers.into_iter().map(sealed).collect(),
            secrets,
            timeout,
            retry,
            answers: ResponsePolicy { success_statuses, retry_statuses },
            limits: Limits { breaker, ..limits },
            batch,
            status: status(self.paused, &url, current),
            authority: self.ca_certificates,
            created_at: current.map_or(receiving.now, |current| current.created_at),
            version: current.map_or(0, |current| current.version) + 1,
            url,
        };
        Ok(EndpointUpdate { endpoint, made })
    }
}

impl BatchSubmission {
    fn checked(&self, wrong: &mut ValidationErrors) -> BatchPolicy {
        let max_items = self
            .max_items
            .and_then(|count| wrong.take("/batch/max_items", Bounds::count(MAX_ITEMS.get()).whole(count)));
        let max_wait = self.max_wait.and_then(|seconds| {
            wrong.take("/batch/max_wait", Bounds::delay(MAX_RESERVATION_AHEAD).seconds(seconds))
        });
        BatchPolicy {
            max_items: max_items.unwrap_or(MAX_ITEMS),
            max_wait: max_wait.unwrap_or(MAX_WAIT),
            per_item_results: self.per_item_results.unwrap_or(false),
        }
    }
}

/// Returns the headers to store. `null` keeps a stored value only for the same scheme, host and port.
/// Otherwise a client could change the URL to its own server and receive the stored secrets.
fn headers(
    given: BTreeMap<String, Option<String>>,
    url: Option<&HttpUrl>,
    current: Option<&Endpoint>,
    wrong: &mut ValidationErrors,
) -> BTreeMap<String, Value> {
    let mut headers = BTreeMap::new();
    // A URL that cannot be parsed has its own error already.
    let is_elsewhere = current.zip(url).is_some_and(|(current, url)| !url.same_destination(&current.url));
    for (name, value) in given {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        // Header names ignore case: all spellings are one header.
        let name = name.to_ascii_lowercase();
        if name == "idempotency-key" {
            let detail = "an endpoint cannot set `Idempotency-Key`, because each task needs its own key; send `idempotency_key` in the payload of the task";
            wrong.add(&pointer, detail);
            continue;
        }
        if value.is_none() && is_elsewhere {
            wrong.add(
                &pointer,
                "`null` keeps the stored value, but the scheme, host or port of `url` has changed; send the value",
            );
            continue;
        }
        let value = value.map(Value::New).or_else(|| current?.headers.get(&name).cloned().map(Value::Kept));
        match value {
            Some(value) if !headers.contains_key(&name) => drop(headers.insert(name, value)),
            Some(_) => wrong.add(&pointer, "the header is given twice; send it once"),
            None => wrong.add(&pointer, "`null` keeps the stored value, but none is stored; send a value"),
        }
    }
    headers
}

fn statuses(pointer: &str, texts: Vec<String>, wrong: &mut ValidationErrors) -> Statuses {
    if texts.len() > Statuses::MAX {
        wrong.add(pointer, format!("expected at most {} ranges", Statuses::MAX));
    }
    let mut ranges = Vec::new();
    for (place, text) in texts.into_iter().enumerate() {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(error) => wrong.add(&format!("{pointer}/{place}"), format!("{error}")),
        }
    }
    Statuses::new(ranges)
}

/// Returns the new status. A gone endpoint opens again if a client changes its URL or sets `paused` to
/// `false`.
fn status(paused: Option<bool>, url: &HttpUrl, current: Option<&Endpoint>) -> EndpointStatus {
    match (paused, current.map(|current| current.status).unwrap_or_default()) {
        (Some(true), _) => EndpointStatus::Paused,
        (Some(false), _) => EndpointStatus::Open,
        (None, EndpointStatus::Gone) if current.is_some_and(|current| current.url != *url) => {
            EndpointStatus::Open
        }
        (None, status) => status,
    }
}

impl ValidationErrors {
    /// Parses the URL of an endpoint. If the URL cannot be parsed, adds an error and returns `None`.
    fn url(&mut self, text: &str) -> Option<HttpUrl> {
        let parsed = HttpUrl::parse(text).map_err(|invalid| {
            self.0.push(FieldError {
                code: Some(ErrorCode::INVALID_URL),
                ..FieldError::new("/url", invalid.to_string())
            });
        });
        let url = parsed.ok()?;
        if url.as_str().len() > MAX_BASE || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.add("/url", format!("expected up to {MAX_BASE} printable ASCII characters without spaces"));
        }
        Some(url)
    }

    /// Checks the URL and the headers like those of an `http` task, because such tasks call the endpoint.
    fn call(&mut self, url: Option<&HttpUrl>, headers: &BTreeMap<String, Value>, kinds: &dyn KindRegistry) {
        #[derive(serde::Serialize)]
        struct Call<'a> {
            url: Option<&'a HttpUrl>,
            headers: BTreeMap<&'a str, &'a str>,
        }
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.text())).collect();
        let Ok(probe) = Json::from_value(&Call { url, headers }) else { return };
        if let Err(KindError::Payload(invalid)) = kinds.check(&HTTP, &probe, Target::Payload) {
            // A URL that could not be parsed (`None`) has its own error already.
            self.0.extend(invalid.into_iter().filter(|invalid| url.is_some() || invalid.pointer != "/url"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::decode::read_object;
    use crate::secrets::vault::{MASTER_KEY_BYTES, MasterKey, Vault};
    use crate::task::Wait;
    use crate::types::name::Name;

    struct Elsewhere;

    impl KindRegistry for Elsewhere {
        fn check(&self, _: &Name, payload: &Json, _: Target) -> Result<Option<Wait>, KindError> {
            if payload.get().contains("127.0.0.1") {
                Err(KindError::Payload(vec![FieldError::new("/url", "blocked")]))
            } else {
                Ok(None)
            }
        }

        fn check_authority(&self, pem: &str) -> Result<(), String> {
            if pem == "good" { Ok(()) } else { Err("expected the text `good`".to_owned()) }
        }
    }

    fn vault() -> Vault {
        Vault::new(MasterKey::new([1; MASTER_KEY_BYTES]), Vec::new())
    }

    fn put(json: &str, current: Option<&Endpoint>) -> Result<EndpointUpdate, Vec<String>> {
        let vault = vault();
        let receiving = EndpointUpdateContext {
            current,
            kinds: &Elsewhere,
            max_timeout: Duration::from_mins(1),
            seal: &|secret| vault.seal("", secret, [7; 12]),
            random: [9; WebhookSecret::BYTES],
            now: Timestamp::EPOCH + Duration::from_secs(current.map_or(1, |_| 2)),
        };
        let submission: EndpointSubmission = read_object(json.as_bytes()).unwrap();
        submission
            .into_endpoint(&receiving)
            .map_err(|wrong| wrong.into_iter().map(|invalid| invalid.pointer).collect())
    }

    fn opened(sealed: &Sealed) -> Vec<u8> {
        vault().open("", sealed).unwrap()
    }

    #[test]
    fn new_endpoint_gets_a_secret_and_an_update_keeps_it() {
        let EndpointUpdate { endpoint, made } =
            put(r#"{"url": "https://billing.example/api/"}"#, None).unwrap();
        assert_eq!(
            (endpoint.url.as_str(), endpoint.version, endpoint.status),
            ("https://billing.example/api/", 1, EndpointStatus::Open)
        );
        assert!(endpoint.limits.breaker.is_some(), "the circuit breaker is enabled by default");
        let secret = |endpoint: &Endpoint| {
            endpoint.secrets.live(Timestamp::EPOCH).map(|kept| opened(&kept.sealed)).collect::<Vec<_>>()
        };
        assert_eq!(secret(&endpoint), [made.unwrap().as_bytes().to_vec()]);
        let again = put(r#"{"url": "https://billing.example/v2"}"#, Some(&endpoint)).unwrap();
        assert!(again.made.is_none());
        assert_eq!((again.endpoint.version, again.endpoint.created_at), (2, endpoint.created_at));
        assert_eq!(again.endpoint.secrets, endpoint.secrets);
        let own = WebhookSecret::new([3; WebhookSecret::BYTES]);
        let given = put(
            &format!(r#"{{"url": "https://billing.example/", "secret": "{}"}}"#, own.to_text()),
            Some(&endpoint),
        )
        .unwrap();
        assert!(given.made.is_none(), "a secret that the client set is not shown");
        assert_eq!(secret(&given.endpoint), [own.as_bytes().to_vec()]);
    }

    #[test]
    fn header_values_are_sealed_and_kept() {
        let first = put(
            r#"{"url": "https://billing.example", "headers": {"Authorization": "Bearer hunter2"}}"#,
            None,
        )
        .unwrap()
        .endpoint;
        assert!(!first.to_text().contains("hunter2"));
        assert_eq!(opened(&first.headers["authorization"]), b"Bearer hunter2");
        let kept = put(
            r#"{"url": "https://billing.example", "headers": {"authorization": null, "x-a": "b"}}"#,
            Some(&first),
        )
        .unwrap();
        assert_eq!(kept.endpoint.headers["authorization"], first.headers["authorization"]);
        assert_eq!(opened(&kept.endpoint.headers["x-a"]), b"b");
        for (url, is_there) in [
            ("https://BILLING.example/api/v2", true),
            ("HTTPS://billing.example:443", true),
            ("http://billing.example", false),
            ("https://billing.example:8443/", false),
            ("https://billing.example.attacker.example/", false),
        ] {
            let moved =
                put(&format!(r#"{{"url": "{url}", "headers": {{"authorization": null}}}}"#), Some(&first));
            let expected = if is_there { None } else { Some(vec!["/headers/authorization".to_owned()]) };
            assert_eq!(moved.err(), expected, "a stored value goes to no other destination: {url}");
        }
        let without = put(r#"{"url": "https://billing.example"}"#, Some(&first)).unwrap();
        assert!(without.endpoint.headers.is_empty(), "omitted headers are removed");
        for (json, pointer) in
            [(r#"{"x-a": null}"#, "/headers/x-a"), (r#"{"X-A": "b", "x-a": "c"}"#, "/headers/x-a")]
        {
            let wrong =
                put(&format!(r#"{{"url": "https://billing.example", "headers": {json}}}"#), Some(&first))
                    .unwrap_err();
            assert_eq!(wrong, [pointer]);
        }
    }

    #[test]
    fn batch_settings_are_stored_with_defaults() {
        let batch = |json: &str| {
            put(&format!(r#"{{"url": "https://billing.example", "batch": {json}}}"#), None)
                .unwrap()
                .endpoint
                .batch
        };
        let of = |max_items, seconds, per_item_results| {
            Some(BatchPolicy {
                max_items: NonZeroU32::new(max_items).unwrap(),
                max_wait: Duration::from_secs(seconds),
                per_item_results,
            })
        };
        assert_eq!((batch("null"), batch("{}")), (None, of(100, 5, false)));
        let trusted =
            put(r#"{"url": "https://billing.example", "ca_certificates": "good"}"#, None).unwrap().endpoint;
        assert_eq!(trusted.authority.as_deref(), Some("good"));
        assert_eq!(batch(r#"{"max_items": 7, "max_wait": 0, "per_item_results": true}"#), of(7, 0, true));
    }

    #[test]
    fn pause_lasts_until_a_client_ends_it() {
        let url = r#""url": "https://billing.example""#;
        let paused = put(&format!("{{{url}, \"paused\": true}}"), None).unwrap().endpoint;
        let status = |json: &str, current: &Endpoint| put(json, Some(current)).unwrap().endpoint.status;
        assert_eq!(paused.status, EndpointStatus::Paused);
        assert_eq!(status(&format!("{{{url}}}"), &paused), EndpointStatus::Paused);
        assert_eq!(status(&format!("{{{url}, \"paused\": false}}"), &paused), EndpointStatus::Open);
        let gone = Endpoint { status: EndpointStatus::Gone, ..paused };
        assert_eq!(status(&format!("{{{url}}}"), &gone), EndpointStatus::Gone);
        assert_eq!(
            status(r#"{"url": "https://billing.example/v2"}"#, &gone),
            EndpointStatus::Open,
            "another URL opens a gone endpoint"
        );
        assert_eq!(status(&format!("{{{url}, \"paused\": false}}"), &gone), EndpointStatus::Open);
    }

    #[test]
    fn all_invalid_fields_are_named() {
        let json = r#"{"url": "https://127.0.0.1/?a", "secret": "hunter2", "timeout": 61, "retry": {"multiplier": 0}, "success_statuses": [],
            "retry_statuses": ["5xx"], "limits": {"burst": 2}, "circuit_breaker": {"open_duration": 0},
            "batch": {"max_items": 101, "max_wait": 901}, "ca_certificates": "bad"}"#;
        let mut wrong = put(json, None).unwrap_err();
        wrong.sort();
        let all = [
            "/batch/max_items",
            "/batch/max_wait",
            "/ca_certificates",
            "/circuit_breaker/open_duration",
            "/limits/rate",
            "/retry/multiplier",
            "/retry_statuses/0",
            "/secret",
            "/success_statuses",
            "/timeout",
            "/url",
            "/url",
        ];
        assert_eq!(wrong, all);
        let (long, growing) = (
            format!("https://billing.example/{}", "a".repeat(1_024)),
            format!("https://billing.example/{}", "{".repeat(400)),
        );
        for url in [
            "https://billing.example/ ",
            "https://billing.example/a b",
            "https://b\u{fc}cher.example",
            " https://billing.example",
            "http:///x",
            "http:billing.example",
            "https://billing.example/a/../b",
            &long,
            &growing,
        ] {
            assert_eq!(put(&format!(r#"{{"url": "{url}"}}"#), None).unwrap_err(), ["/url"], "{url}");
        }
        let many = ["\"200\""; 21].join(",");
        assert_eq!(
            put(&format!(r#"{{"url": "https://billing.example", "success_statuses": [{many}]}}"#), None)
                .unwrap_err(),
            ["/success_statuses"]
        );
    }
}

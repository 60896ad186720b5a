//! Tests of the HTTP handler with real connections.

use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use nobat_core::config::kind::{KindError, Target};
use nobat_core::submission::{Submission, SubmissionContext};
use nobat_core::task::Task;
use nobat_core::task::lifecycle::Retry;
use nobat_core::types::id::TaskId;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;
use nobat_delivery::SendError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::response::pause;
use super::*;
use crate::admission::plan::AttemptPlan;
use crate::handler::MAX_RESULT;
use crate::handler::context::TaskContext;
use crate::handler::failure::Failure;
use crate::handler::registry::{AnyHandler, Handlers};
use crate::handlers::http::Http;
use crate::handlers::http::response::settle;
use crate::handlers::noop::Noop;

fn handler() -> Http {
    Http::new(Client::new(Guard::new(vec!["127.0.0.0/8".parse().unwrap()])))
}

fn context() -> TaskContext {
    let intake = SubmissionContext {
        tenant: &Tenant::default(),
        id: TaskId::new(Timestamp::EPOCH, 7),
        fingerprint: None,
        submitted_by: None,
        max_payload: None,
        max_timeout: Duration::from_secs(30),
        kinds: &Handlers::new().with(Noop),
        endpoint: None,
        then_endpoint: None,
        queue: None,
        hops: 0,
        now: Timestamp::EPOCH,
    };
    let submission = Submission { kind: "noop".to_owned(), ..Submission::default() };
    let task = submission.into_task(&intake).unwrap();
    TaskContext::new(&Task { attempt: 2, ..task }, &AttemptPlan::default())
}

fn json(text: impl Into<String>) -> Json {
    Json::from_text(text.into()).unwrap()
}

async fn run(payload: String) -> Result<String, Failure> {
    AnyHandler::run(&handler(), &json(payload), &context()).await.map(|result| result.get().to_owned())
}

/// Starts a server that answers every request with these bytes. Returns its URL and the requests that it
/// gets.
async fn server(answer: impl Into<Vec<u8>>) -> (String, mpsc::UnboundedReceiver<String>) {
    let (said, requests) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=s3cret", listener.local_addr().unwrap());
    let answer = answer.into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            said.send(read(&mut stream).await).ok();
            stream.write_all(&answer).await.ok();
        }
    });
    (url, requests)
}

async fn read(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !is_whole(&request) {
        request.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn response(status: u16, head: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
}

async fn answer_to(response: String) -> Result<String, Failure> {
    let (url, _requests) = server(response).await;
    run(format!(r#"{{"url": "{url}"}}"#)).await
}

#[tokio::test]
async fn json_body_is_sent_unchanged_with_identifying_headers() {
    let (url, mut requests) = server(response(200, "", "")).await;
    run(format!(r#"{{"url": "{url}", "headers": {{"X-A": "b"}}, "body": {{"n": 1.00, "a":[ ]}}}}"#))
        .await
        .unwrap();
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let id = context().name.id;
    let agent = concat!("user-agent: nobat/", env!("CARGO_PKG_VERSION"));
    assert_eq!(head.lines().next(), Some("POST /hook?token=s3cret HTTP/1.1"));
    for line in ["x-a: b", "content-type: application/json", agent, "nobat-attempt: 2"] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert!(
        head.contains(&format!("idempotency-key: {id}\r\n"))
            && head.contains(&format!("nobat-task-id: {id}\r\n")),
        "{head}"
    );
    assert_eq!(body, r#"{"n": 1.00, "a":[ ]}"#);
}

#[tokio::test]
async fn body_is_encoded_for_its_content_type() {
    for (headers, body, sent) in [
        (r#"{"content-type": "text/plain"}"#, r#""a\nb""#, "a\nb"),
        (r#"{"Content-Type": "application/x-www-form-urlencoded"}"#, r#""a=b""#, "a=b"),
        (r#"{"content-type": "application/vnd.api+json; charset=utf-8"}"#, r#""a\nb""#, r#""a\nb""#),
        (r#"{"content-type": "text/plain"}"#, r#"{"a": 1}"#, r#"{"a": 1}"#),
        ("{}", r#""text""#, r#""text""#),
        ("{}", "null", ""),
    ] {
        let (url, mut requests) = server(response(204, "", "")).await;
        run(format!(r#"{{"url": "{url}", "method": "PUT", "headers": {headers}, "body": {body}}}"#))
            .await
            .unwrap();
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("PUT ") && request.ends_with(&format!("\r\n\r\n{sent}")), "{request}");
        assert_eq!(request.contains("content-type"), body != "null");
    }
}

#[tokio::test]
async fn response_body_is_stored_as_json_or_text() {
    let head = "content-type: application/json; charset=utf-8\r\nset-cookie: s3cret\r\nx-a: 1\r\nX-A: 2\r\n";
    let kept = |body: &str| {
        format!(
            r#"{{"status":201,"headers":{{"content-length":"{}","content-type":"application/json; charset=utf-8","x-a":"1, 2"}}"#,
            body.len()
        )
    };
    for (body, shown) in [
        (r#"{"n": 1.0}"#, r#"{"n": 1.0}"#),
        ("{oops", r#""{oops""#),
        ("", r#""""#),
        (r#""\ud800""#, r#""\"\\ud800\"""#),
    ] {
        let result = answer_to(response(201, head, body)).await.unwrap();
        assert_eq!(result, format!(r#"{},"body":{shown},"truncated":false}}"#, kept(body)));
    }
    let plain = answer_to(response(200, "", "{\"n\": 1}\u{1b}[31m\r\n")).await.unwrap();
    assert!(plain.contains(r#""body":"{\"n\": 1}�[31m\r\n""#), "{plain}");
}

#[tokio::test]
async fn longest_response_fits_into_the_result() {
    let wide = (0..90)
        .map(|number| format!("x-{number}: {}\r\n", "\u{e9}\"".repeat(50)))
        .collect::<Vec<_>>()
        .concat();
    for body in ["\0", "\"", "\u{1f}", "\u{80}"] {
        let whole = answer_to(response(200, &wide, &body.repeat(64 * 1024 / body.len()))).await.unwrap();
        assert!(whole.len() <= MAX_RESULT && whole.ends_with(r#""truncated":false}"#), "{}", whole.len());
    }
    let head = "content-type: application/json\r\n";
    let cut = answer_to(response(200, head, &format!("[{}1]", "1,".repeat(64 * 1024)))).await.unwrap();
    assert!(cut.contains(r#""body":"[1,1,"#) && cut.ends_with(r#""truncated":true}"#));
}

#[tokio::test]
async fn temporary_status_is_retried_and_permanent_status_is_final() {
    for status in [408, 425, 429, 500, 502, 503, 599] {
        let failure = answer_to(response(status, "", "s3cret")).await.unwrap_err();
        assert_eq!(
            failure,
            Failure::retry(&format!("http_{status}"), format!("the destination answered {status}"))
        );
    }
    for status in [400, 401, 404, 409, 410, 422] {
        let failure = answer_to(response(status, "retry-after: 7\r\n", "s3cret")).await.unwrap_err();
        assert_eq!(
            failure,
            Failure::permanent(&format!("http_{status}"), format!("the destination answered {status}"))
        );
    }
    let moved = answer_to(response(307, "location: http://127.0.0.1/\r\n", "")).await.unwrap_err();
    assert_eq!(
        moved,
        Failure::permanent("http_307", "the destination answered 307; redirects are not followed")
    );
    let busy = answer_to(response(503, "retry-after: 7\r\n", "")).await.unwrap_err();
    assert_eq!(busy.retry, Retry::After(Duration::from_secs(7)));
}

#[test]
fn missing_response_is_final_only_for_a_blocked_address() {
    let settled = |error| settle(Err(error), &ResponsePolicy::default(), false, UNIX_EPOCH).unwrap_err();
    assert_eq!(
        (settled(SendError::BlockedAddress).retry, settled(SendError::Dns).retry),
        (Retry::Never, Retry::Backoff)
    );
    assert_eq!(settled(SendError::Timeout).error.code.as_str(), "timeout");
    assert_eq!(settled(SendError::Timeout).held, None);
    assert_eq!(
        settled(SendError::LocalResources).held,
        Some(HeldReason::ResourceExhausted),
        "the task is held, not failed"
    );
}

#[test]
fn pause_is_a_day_at_most() {
    let day = Duration::from_hours(24);
    for (signal, granted) in [
        ("86400", day),
        ("86401", day),
        ("99999999999999999999999999", day),
        ("Fri, 31 Dec 9999 23:59:59 GMT", day),
    ] {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(signal))]);
        assert_eq!(pause(&headers, UNIX_EPOCH), Some(granted), "{signal}");
    }
    assert_eq!(pause(&HeaderMap::new(), UNIX_EPOCH), None);
}

fn wrong(payload: &str) -> Vec<(String, Option<&'static str>)> {
    let unfit = AnyHandler::check(&Http::new(Client::new(Guard::default())), &json(payload), Target::Payload)
        .unwrap_err();
    let KindError::Payload(wrong) = unfit else { panic!("{unfit:?}") };
    wrong.into_iter().map(|wrong| (wrong.pointer, wrong.code)).collect()
}

#[test]
fn invalid_payload_is_refused_with_all_its_errors() {
    let payload = r#"{"url": "http://169.254.169.254/", "headers": {"Host": "a", "x/y": "b", "x-a": "b\n"}, "timeout": 0}"#;
    let pointers = ["/url", "/headers/Host", "/headers/x-a", "/headers/x~1y", "/timeout"];
    let found = wrong(payload);
    assert_eq!(found.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), pointers);
    assert_eq!(found[0].1, Some("blocked_address"));
    assert_eq!(wrong(r#"{"url": "ftp://example.com"}"#), [("/url".to_owned(), Some("invalid_url"))]);
    let url = r#""url": "https://example.com/""#;
    for (payload, pointer) in [
        (r#"{"body": {"a": [1]}, "url": 5}"#, "/url"),
        (r#"{"method": "GET"}"#, "/url"),
        (&format!(r#"{{{url}, "method": "CONNECT"}}"#), "/method"),
        (&format!(r#"{{{url}, "headers": {{"x-a": 1}}}}"#), "/headers/x-a"),
        (&format!(r#"{{{url}, "headers": {{"x-a": "1", "x-a": "2"}}}}"#), ""),
        (&format!(r#"{{{url}, "timeout": -1}}"#), "/timeout"),
        (&format!(r#"{{{url}, "uri": ""}}"#), "/uri"),
    ] {
        assert_eq!(wrong(payload)[0].0, pointer, "{payload}");
    }
}

#[test]
fn valid_payload_is_accepted() {
    let fits = |payload: &str| {
        AnyHandler::check(&Http::new(Client::new(Guard::default())), &json(payload), Target::Payload).is_ok()
    };
    assert!(fits(r#"{"url": "https://example.com/hook"}"#));
    assert!(fits(
        r#"{"method": "GET", "url": "http://example.com", "headers": {"x-a": "b"}, "body": null, "timeout": 0.5}"#
    ));
}

#[tokio::test]
async fn stored_payload_that_became_invalid_is_final() {
    let failure = run(r#"{"url": "http://10.0.0.1/"}"#.to_owned()).await.unwrap_err();
    assert_eq!((failure.error.code.as_str(), failure.retry), ("blocked_address", Retry::Never));
    let failure =
        run(r#"{"url": "http://127.0.0.1/", "headers": {"te": "s3cret"}}"#.to_owned()).await.unwrap_err();
    assert_eq!((failure.error.code.as_str(), failure.retry), ("invalid_payload", Retry::Never));
}

#[tokio::test]
async fn payload_timeout_shortens_the_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let failure = run(format!(r#"{{"url": "{url}", "timeout": 0.05}}"#)).await.unwrap_err();
    assert_eq!((failure.error.code.as_str(), failure.retry), ("timeout", Retry::Backoff));
}

#[tokio::test]
async fn cancellation_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let payload = json(format!(r#"{{"url": "http://{}/"}}"#, listener.local_addr().unwrap()));
    let (handler, context) = (handler(), context());
    let call = AnyHandler::run(&handler, &payload, &context);
    let cancel = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await;
        context.cancel();
        stream
    };
    let (outcome, mut stream) = tokio::join!(call, cancel);
    assert_eq!(outcome.unwrap_err().error.code.as_str(), "canceled");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
}

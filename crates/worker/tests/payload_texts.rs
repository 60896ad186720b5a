//! Error texts for the payloads of the built-in kinds.

use nobat_core::config::kind::{KindError, KindRegistry, Target};
use nobat_core::json::Json;
use nobat_core::types::name::Name;
use nobat_delivery::{Client, Guard};
use nobat_worker::handler::registry::Handlers;
use nobat_worker::handlers::http::Http;
use nobat_worker::handlers::noop::Noop;

/// Returns the errors of a payload, each as `pointer: text`.
fn errors(kind: &str, payload: &str) -> Vec<String> {
    let handlers = Handlers::new().with(Noop).with(Http::new(Client::new(Guard::new(Vec::new()))));
    match handlers.check(
        &Name::new(kind).unwrap(),
        &Json::from_text(payload.to_owned()).unwrap(),
        Target::Payload,
    ) {
        Ok(_) => Vec::new(),
        Err(KindError::Payload(invalid)) => {
            invalid.iter().map(|invalid| format!("{}: {}", invalid.pointer, invalid.detail)).collect()
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn invalid_noop_payload_is_refused_with_field_and_reason() {
    for (payload, error) in [
        ("7", ": expected an object"),
        (r#"{"sleep": "x"}"#, "/sleep: expected a number"),
        (r#"{"sleep": -1}"#, "/sleep: expected seconds from 0 to 31622400"),
        (r#"{"sleep": 31622400.1}"#, "/sleep: expected seconds from 0 to 31622400"),
        (r#"{"sleep": 1e400}"#, "/sleep: the number is too large"),
        (r#"{"fail": -1}"#, "/fail: expected a whole number from 0 to 4294967295"),
        (r#"{"fail": 4294967296}"#, "/fail: expected a whole number from 0 to 4294967295"),
        (r#"{"panic": true}"#, "/panic: expected a whole number from 0 to 4294967295"),
    ] {
        assert_eq!(errors("noop", payload), [error], "{payload}");
    }
    for payload in [r#"{"sleep": 0}"#, r#"{"sleep": 31622400}"#, r#"{"fail": 4294967295}"#, "null"] {
        assert_eq!(errors("noop", payload), Vec::<String>::new(), "{payload}");
    }
}

#[test]
fn invalid_http_payload_is_refused_with_field_and_reason() {
    let with = |field: &str| format!(r#"{{"url": "https://example.com", {field}}}"#);
    for (field, error) in [
        (r#""method": 7"#, "/method: expected a string"),
        (r#""method": {"GET": null}"#, "/method: expected a string"),
        (r#""headers": []"#, "/headers: expected an object"),
        (r#""headers": {"x-a": 1}"#, "/headers/x-a: expected a string"),
        (r#""timeout": true"#, "/timeout: expected a number"),
        (r#""timeout": 0"#, "/timeout: expected seconds from 0.001 to 31622400"),
        (r#""timeout": 1e308"#, "/timeout: expected seconds from 0.001 to 31622400"),
        (r#""success_statuses": "200""#, "/success_statuses: expected an array"),
        (r#""success_statuses": [200]"#, "/success_statuses/0: expected a string"),
        (r#""path": 7"#, "/path: expected a string"),
    ] {
        assert_eq!(errors("http", &with(field)), [error], "{field}");
    }
    for field in [r#""timeout": 0.001"#, r#""timeout": 31622400"#, r#""method": "GET""#] {
        assert_eq!(errors("http", &with(field)), Vec::<String>::new(), "{field}");
    }
}

//! Headers to send: accepted headers arrive unchanged and add no others.
//!
//! The input is `name:value|name:value`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use nobat_delivery::headers;

/// Prefixes of headers that frame the message, belong to one hop, or are set by nobat.
const RESERVED: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "nobat-",
    "proxy-",
    "webhook-",
    "x-forwarded-",
];

fuzz_target!(|text: &str| {
    let given: BTreeMap<String, String> = text
        .split('|')
        .filter_map(|header| header.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match headers::read(&given) {
        Ok(headers) => {
            let mut wire = Vec::from(b"POST / HTTP/1.1\r\n");
            for (name, value) in &headers {
                wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
            }
            wire.extend(b"\r\n");
            let mut arrived = [httparse::EMPTY_HEADER; headers::MAX_HEADERS];
            let mut request = httparse::Request::new(&mut arrived);
            assert_eq!(
                request.parse(&wire),
                Ok(httparse::Status::Complete(wire.len())),
                "the head ends at its last byte"
            );
            assert_eq!((request.headers.len(), headers.len()), (given.len(), given.len()));
            for (name, value) in &given {
                let arrived = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case(name))
                    .expect("the header arrives");
                assert_eq!(arrived.value.trim_ascii(), value.as_bytes().trim_ascii());
                let name = name.to_lowercase();
                assert!(
                    !RESERVED.iter().any(|reserved| name == *reserved
                        || (reserved.ends_with('-') && name.starts_with(reserved)))
                );
            }
            assert!(headers.values().all(http::HeaderValue::is_sensitive));
        }
        Err(wrong) => {
            assert!(!wrong.is_empty() && wrong.len() <= given.len() + 1);
            assert!(
                wrong.iter().all(|wrong| wrong.name.as_ref().is_none_or(|name| given.contains_key(name)))
            );
        }
    }
});

use super::*;
use proptest::prelude::*;

fn defaults() -> Defaults {
    Defaults { id: "made".to_owned(), time: Timestamp::EPOCH }
}

fn read(text: &str, is_structured: bool) -> Result<CloudEvent, Vec<String>> {
    let raw: &RawValue = serde_json::from_str(text).unwrap();
    CloudEvent::from_json(raw, is_structured, &defaults())
        .map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
}

fn binary(attributes: &[(&str, &str)], content_type: Option<&str>, body: &[u8]) -> CloudEvent {
    let required = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    let all =
        required.iter().chain(attributes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    CloudEvent::from_binary(all, content_type, body, &defaults()).unwrap()
}

#[test]
fn plain_event_gets_the_missing_attributes() {
    let event = read(r#"{"type": "order.created", "data": {"n": 1.10}}"#, false).unwrap();
    assert_eq!(
        event.to_json().get(),
        r#"{"specversion":"1.0","id":"made","source":"/","type":"order.created","time":"1970-01-01T00:00:00.000Z","data":{"n": 1.10}}"#
    );
}

#[test]
fn structured_event_keeps_attributes_and_bytes_of_data() {
    let text = r#"{"specversion":"1.0","id":"a","source":"/s","type":"t","subject":"x","time":"2026-12-01T08:00:00+05:00","datacontenttype":"application/json","comexampleflag":true,"comexamplenumber":-7,"dataschema":"https://x/y","traceparent":"00-é","data":[1e300, 0.10,{"a":null}]}"#;
    let event = read(text, true).unwrap();
    assert_eq!(event.to_json().get(), text);
    assert_eq!(CloudEvent::from_stored(&event.to_json()), Ok(event));
}

#[test]
fn null_is_an_absent_attribute_but_a_value_of_data() {
    let event = read(r#"{"type":"t","subject":null,"x":null,"data":null}"#, false).unwrap();
    assert!(event.subject.is_none() && event.others.is_empty());
    assert_eq!(event.data, Some(EventData::Json(Json::null())));
}

#[test]
fn invalid_events_are_refused() {
    let rows = [
        (r"[]", false, ""),
        ("{}", false, "/type"),
        (r#"{"type":""}"#, false, "/type"),
        (r#"{"type":7}"#, false, "/type"),
        (r#"{"type":"t","specversion":"0.3"}"#, false, "/specversion"),
        (r#"{"type":"t","id":"1","source":"/s"}"#, true, "/specversion"),
        (r#"{"specversion":"1.0","type":"t","source":"/s"}"#, true, "/id"),
        (r#"{"specversion":"1.0","type":"t","id":"1"}"#, true, "/source"),
        (r#"{"type":"t","time":"yesterday"}"#, false, "/time"),
        (r#"{"type":"t","Upper":"x"}"#, false, "/Upper"),
        (r#"{"type":"t","with_underscore":"x"}"#, false, "/with_underscore"),
        (r#"{"type":"t","object":{}}"#, false, "/object"),
        (r#"{"type":"t","number":1.5}"#, false, "/number"),
        (r#"{"type":"t","number":3000000000}"#, false, "/number"),
        (r#"{"type":"t","data":1,"data_base64":"AA=="}"#, false, "/data_base64"),
        (r#"{"type":"t","data_base64":"not base64"}"#, false, "/data_base64"),
        (r#"{"type":"t","subject":"a\u0000b"}"#, false, "/subject"),
        (r#"{"type":"t","type":"u"}"#, false, ""),
        (r#"{"type":"t","data":[1e400]}"#, false, "/data"),
    ];
    for (text, is_structured, pointer) in rows {
        let pointers = read(text, is_structured).unwrap_err();
        assert!(pointers.contains(&pointer.to_owned()), "{text}: {pointers:?}");
    }
    let long = format!(r#"{{"type":"{}"}}"#, "t".repeat(256));
    assert_eq!(read(&long, false).unwrap_err(), ["/type"]);
}

#[test]
fn body_of_binary_mode_becomes_data() {
    let json = binary(&[], Some("application/json; charset=utf-8"), br#"{"a": 1.0}"#);
    assert_eq!(json.data, Some(EventData::Json(Json::from_text(r#"{"a": 1.0}"#.to_owned()).unwrap())));
    let suffix = binary(&[], Some("application/vnd.shop+json"), b"7");
    assert_eq!(suffix.data, Some(EventData::Json(Json::from_text("7".to_owned()).unwrap())));
    let text = binary(&[], Some("text/plain"), "é".as_bytes());
    assert_eq!(text.data, Some(EventData::Json(Json::from_value("é").unwrap())));
    let bytes = binary(&[("subject", "x")], Some("image/png"), &[0xff, 0]);
    assert_eq!(bytes.data, Some(EventData::Base64("/wA=".to_owned())));
    assert_eq!(binary(&[], Some("application/json"), b"").data, None);
    let broken = CloudEvent::from_binary([("type".to_owned(), "t".to_owned())], None, b"{", &defaults());
    assert!(broken.unwrap_err().iter().any(|error| error.pointer == "/data"));
}

proptest! {
    #[test]
    fn event_is_read_back_as_written(
        id in "[a-zé ]{1,10}", source in "/[a-z]{0,9}", event_type in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}",
        extension in "[^\\p{Cc}]{0,9}", data in "[^\\p{Cc}]{0,9}",
    ) {
        let text = serde_json::json!({
            "specversion": "1.0", "id": id, "source": source, "type": event_type, "ext": extension,
            "data": {"text": data},
        });
        let raw = serde_json::value::to_raw_value(&text).unwrap();
        if let Ok(event) = CloudEvent::from_json(&raw, true, &defaults()) {
            prop_assert_eq!(CloudEvent::from_stored(&event.to_json()), Ok(event));
        }
    }
}

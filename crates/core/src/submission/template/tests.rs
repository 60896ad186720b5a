use serde_json::{Value, json};

use super::*;
use crate::events::cloud_event::Defaults;
use crate::types::time::Timestamp;

fn filled(template: &Value, body: EventBody, event: &Value) -> Result<Value, Vec<String>> {
    let raw = serde_json::value::to_raw_value(event).unwrap();
    let defaults = Defaults { id: "1".to_owned(), time: Timestamp::EPOCH };
    let event = CloudEvent::from_json(&raw, false, &defaults).unwrap();
    let json = event.to_json();
    fill(&Json::from_value(template).unwrap(), body, &TemplateEvent { event: &event, json: &json })
        .map(|submission| serde_json::from_str(submission.payload.unwrap().get()).unwrap())
        .map_err(|errors| errors.into_iter().map(|error| error.pointer).collect())
}

fn event() -> Value {
    json!({"type": "order.created", "source": "/shop", "subject": "order 7", "data": {"order_id": 7, "lines": [{"sku": "a"}]}})
}

#[test]
fn http_task_sends_the_whole_event_by_default() {
    let payload = filled(&json!({"kind": "http", "endpoint": "stock"}), EventBody::Event, &event()).unwrap();
    assert_eq!(payload["headers"], json!({"content-type": "application/cloudevents+json"}));
    assert_eq!(payload["body"]["data"], event()["data"]);
    assert_eq!(payload["body"]["specversion"], "1.0");
}

#[test]
fn http_task_sends_the_data_with_attributes_as_headers() {
    let template = json!({"kind": "http", "endpoint": "stock", "payload": {"path": "/orders", "headers": {"CE-Source": "own"}}});
    let payload = filled(&template, EventBody::Data, &event()).unwrap();
    assert_eq!(payload["path"], "/orders");
    assert_eq!(payload["body"], event()["data"]);
    assert_eq!(
        payload["headers"],
        json!({
            "CE-Source": "own", "ce-specversion": "1.0", "ce-id": "1", "ce-type": "order.created",
            "ce-subject": "order%207", "ce-time": "1970-01-01T00:00:00.000Z",
        })
    );
    let bytes = json!({"type": "t", "datacontenttype": "image/png", "data_base64": "/wA="});
    let payload = filled(&json!({"kind": "http", "endpoint": "stock"}), EventBody::Data, &bytes).unwrap();
    assert_eq!(
        (&payload["body_base64"], &payload["headers"]["content-type"]),
        (&json!("/wA="), &json!("image/png"))
    );
}

#[test]
fn body_of_the_template_is_kept() {
    let template = json!({"kind": "http", "payload": {"url": "https://x.example", "body": {"order": {"$event": "/data/order_id"}}}});
    let payload = filled(&template, EventBody::Event, &event()).unwrap();
    assert_eq!(payload, json!({"url": "https://x.example", "body": {"order": 7}}));
    let get = json!({"kind": "http", "payload": {"url": "https://x.example", "method": "GET"}});
    let payload = filled(&get, EventBody::Event, &event()).unwrap();
    assert_eq!(payload, json!({"url": "https://x.example", "method": "GET"}));
}

#[test]
fn placeholders_are_replaced_by_values_of_the_event() {
    let template = json!({"kind": "mail", "payload": {
        "id": {"$event": "/data/order_id"}, "first": [{"$event": "/data/lines/0/sku"}],
        "none": {"$event": "/data/missing"}, "bad_index": {"$event": "/data/lines/00"},
        "whole": {"$event": "/subject"}, "text": "$event is a word",
    }});
    let payload = filled(&template, EventBody::Event, &event()).unwrap();
    assert_eq!(
        payload,
        json!({"id": 7, "first": ["a"], "none": null, "bad_index": null, "whole": "order 7", "text": "$event is a word"})
    );
    let without = filled(&json!({"kind": "mail"}), EventBody::Event, &event()).unwrap();
    assert_eq!(without["type"], "order.created", "the payload is the event");
}

#[test]
fn numbers_keep_their_digits() {
    let template =
        Json::from_text(r#"{"kind":"mail","payload":{"a":{"$event":"/data"},"b":1.10}}"#.to_owned()).unwrap();
    let raw: &RawValue = serde_json::from_str(r#"{"type":"t","data":12345678901234567890.10}"#).unwrap();
    let defaults = Defaults { id: "1".to_owned(), time: Timestamp::EPOCH };
    let event = CloudEvent::from_json(raw, false, &defaults).unwrap();
    let json = event.to_json();
    let submission =
        fill(&template, EventBody::Event, &TemplateEvent { event: &event, json: &json }).unwrap();
    assert_eq!(submission.payload.unwrap().get(), r#"{"a":12345678901234567890.10,"b":1.10}"#);
}

#[test]
fn invalid_templates_are_refused() {
    let rows = [
        (json!({"kind": "http", "run_at": "2026-12-01T08:00:00Z"}), "/run_at"),
        (json!({"kind": "http", "expires_at": "2026-12-01T08:00:00Z"}), "/expires_at"),
        (json!({"kind": "http", "colour": 1}), "/colour"),
        (json!({"payload": {}}), "/kind"),
        (json!({"kind": "mail", "payload": {"a": {"$event": 7}}}), "/payload"),
        (json!({"kind": "mail", "payload": {"a": {"$event": "/x", "b": 1}}}), "/payload"),
        (json!({"kind": "http", "payload": {"headers": {"a": 1}}}), "/payload/headers/a"),
        (json!({"kind": "http", "payload": []}), "/payload"),
    ];
    for (template, pointer) in rows {
        assert_eq!(
            filled(&template, EventBody::Event, &event()),
            Err(vec![pointer.to_owned()]),
            "{template}"
        );
    }
}

//! Events and subscriptions: topic, filter, template and event, separated by tabs. Accepted events read back
//! as written, and a filled template is a readable payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nobat_core::config::subscription::EventBody;
use nobat_core::events::cloud_event::{CloudEvent, Defaults};
use nobat_core::events::filter::Filter;
use nobat_core::events::topic::Topic;
use nobat_core::json::Json;
use nobat_core::submission::template::{TemplateEvent, fill};
use nobat_core::types::field_error::FieldError;
use nobat_core::types::time::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(4, '\t');
    let mut next = || parts.next().unwrap_or_default();
    let (topic, filter, template, event) = (next(), next(), next(), next());
    let topic = topic.parse::<Topic>().ok();
    let filter = Json::from_text(filter.to_owned()).ok().map(|filter| Filter::read(&filter, topic.as_ref()));
    if let Some(Err(errors)) = &filter {
        check(errors);
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(event) else { return };
    for is_structured in [false, true] {
        let defaults = Defaults { id: "made".to_owned(), time: Timestamp::EPOCH };
        let event = match CloudEvent::from_json(raw, is_structured, &defaults) {
            Ok(event) => event,
            Err(errors) => {
                check(&errors);
                continue;
            }
        };
        let json = event.to_json();
        assert_eq!(CloudEvent::from_stored(&json).as_ref(), Ok(&event));
        if let Some(topic) = &topic {
            topic.matches(&event.event_type);
        }
        if let (Some(Ok(filter)), Ok(value)) = (&filter, serde_json::from_str::<Value>(json.get())) {
            // The result depends on the input. The comparison must end.
            let _ = filter.matches(&value);
        }
        let Ok(template) = Json::from_text(template.to_owned()) else { continue };
        for body in [EventBody::Event, EventBody::Data] {
            match fill(&template, body, &TemplateEvent { event: &event, json: &json }) {
                Ok(submission) => {
                    assert!(submission.payload.is_some_and(|payload| Json::from_outside(&payload).is_ok()));
                }
                Err(errors) => check(&errors),
            }
        }
    }
});

fn check(errors: &[FieldError]) {
    assert!(!errors.is_empty());
    assert!(
        errors.iter().all(|error| error.pointer.is_empty() || error.pointer.starts_with('/')),
        "{errors:?}"
    );
}

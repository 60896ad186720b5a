//! Error texts of every field of every request body in the OpenAPI document. They name the expected JSON type
//! and the true bounds.

use serde_json::{Value, json};

use crate::completions::called;
use crate::world::{Answer, World};

/// Placeholder in a body for the tried value, so that a number is sent as it is written.
const HERE: &str = "the tried value";

/// Words of Rust that mean nothing to a client.
const RUST: [&str; 20] = [
    "struct",
    "enum",
    "tuple",
    "unit",
    "map",
    "sequence",
    "seq",
    "option",
    "variant",
    "newtype",
    "identifier",
    "u8",
    "u16",
    "u32",
    "u64",
    "i64",
    "usize",
    "f32",
    "f64",
    "nonzero",
];

/// One value of each JSON type, and a number that fits no numeric type of Rust.
const VALUES: [(&str, &str); 6] = [
    ("boolean", "true"),
    ("number", "7"),
    ("number", "1e400"),
    ("string", r#""hunter2""#),
    ("array", r#"["hunter2"]"#),
    ("object", r#"{"hunter2": {"hunter2": 1}}"#),
];

/// Field of a request body.
struct Field {
    method: String,
    path: String,
    pointer: String,
    schema: Value,
    /// Body with [`HERE`] in this field.
    body: Value,
}

impl Field {
    async fn send(&self, (world, key): &(World, String), value: &str) -> Answer {
        let body = self.body.to_string().replace(&format!("\"{HERE}\""), value);
        match self.path.rsplit('/').next() {
            Some(route @ ("complete" | "fail")) => {
                called(world, "acme").await.report(world, route, &body).await
            }
            _ => world.ask_with(key, &self.method, &self.path, &body).await,
        }
    }

    /// Returns the error texts for this value. Empty if the server accepts the value.
    async fn refusals(&self, world: &(World, String), value: &str) -> Vec<String> {
        let answer = self.send(world, value).await;
        if answer.status != 422 {
            assert!(
                matches!(answer.status, 200..=202 | 404 | 409),
                "{}: {value}: {}",
                self.name(),
                answer.text()
            );
            return Vec::new();
        }
        let problem = answer.json();
        assert!(
            !problem.to_string().contains("hunter2:")
                && !problem["errors"].to_string().contains(r#""hunter2""#),
            "{problem}"
        );
        let own = |error: &&Value| error["pointer"].as_str().unwrap().starts_with(&self.pointer);
        problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(own)
            .map(|error| error["detail"].as_str().unwrap().to_owned())
            .collect()
    }

    fn name(&self) -> String {
        format!("{} {} {}", self.method, self.path, self.pointer)
    }

    fn types(&self) -> Vec<&str> {
        match &self.schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// Returns every field of every body in the document.
fn fields() -> Vec<Field> {
    let document: Value = serde_json::from_str(&nobat_api::openapi().to_json().unwrap()).unwrap();
    let mut fields = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            let named = path.replace("{name}", "billing");
            let id = if path.contains("keys") {
                "key_7c0vs8m2rq5x1h9d3w6e4kbtza"
            } else if path.contains("events") {
                "event_01jd8rkz5m3q4v9x2y7w6t0abc"
            } else {
                "task_01jd8rkz5m3q4v9x2y7w6t0abc"
            };
            let root = Field {
                method: method.to_uppercase(),
                path: named.replace("{id}", id),
                pointer: String::new(),
                schema: resolved(&document, schema),
                body: json!(HERE),
            };
            below(&document, &root, &mut fields);
        }
    }
    fields
}

/// Collects the fields inside a field.
fn below(document: &Value, parent: &Field, fields: &mut Vec<Field>) {
    let put = |value: &Value| {
        let text = parent.body.to_string().replace(&format!("\"{HERE}\""), &value.to_string());
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let mut add = |step: &str, schema: &Value, around: Value| {
        let (schema, pointer) = (resolved(document, schema), format!("{}/{step}", parent.pointer));
        let field = Field {
            method: parent.method.clone(),
            path: parent.path.clone(),
            pointer,
            schema,
            body: put(&around),
        };
        below(document, &field, fields);
        fields.push(field);
    };
    for (name, schema) in parent.schema["properties"].as_object().into_iter().flatten() {
        let mut around = least(&parent.schema);
        around[name] = json!(HERE);
        add(name, schema, around);
    }
    if parent.schema["items"].is_object() {
        add("0", &parent.schema["items"], json!([HERE]));
    }
}

/// Returns the schema of a reference, whether or not it also allows `null`.
fn resolved(document: &Value, schema: &Value) -> Value {
    let choices = schema["oneOf"].as_array().into_iter().flatten().find(|choice| choice["type"] != "null");
    match choices.unwrap_or(schema)["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => choices.unwrap_or(schema).clone(),
    }
}

/// Returns the smallest object that a schema allows.
fn least(schema: &Value) -> Value {
    let sample = |name: &str| match name {
        "kind" => json!("noop"),
        "url" => json!("https://example.com"),
        "tasks" => json!([{"kind": "noop"}]),
        "scopes" => json!(["work"]),
        "rate" => json!(1),
        "type" | "subscription" | "header" | "user" => json!("x"),
        "verify" => json!({"networks": ["203.0.113.7"]}),
        "topic" => json!("#"),
        "task" => json!({"kind": "noop"}),
        "error" => json!({"message": "declined"}),
        "message" => json!("declined"),
        other => panic!("no sample of {other}"),
    };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Value::Object(required.map(|name| (name.to_owned(), sample(name))).collect())
}

/// Starts a server. Returns it with a key that may change everything in it.
async fn world() -> (World, String) {
    let world = World::guarded().await;
    let key = world.key("acme", "tasks:write,tasks:replay,config:write,admin").await;
    (world, key)
}

#[tokio::test]
async fn error_texts_name_no_rust_types() {
    let world = world().await;
    let fields = fields();
    assert!(fields.len() > 80, "{}", fields.len());
    for field in &fields {
        let types = field.types();
        for (json_type, value) in VALUES {
            let refusals = field.refusals(&world, value).await;
            let fits = types.is_empty()
                || types.contains(&json_type)
                || json_type == "number" && types.contains(&"integer");
            assert!(fits || !refusals.is_empty(), "{} takes {value}", field.name());
            for text in refusals {
                let words = text.split(|character: char| !character.is_alphanumeric());
                let of_rust: Vec<&str> = words.filter(|word| RUST.contains(word)).collect();
                assert!(of_rust.is_empty(), "{}: {value}: {text}", field.name());
            }
        }
    }
}

#[tokio::test]
async fn bounds_in_error_texts_match_the_check_and_the_document() {
    let world = world().await;
    let mut checked = 0;
    for field in fields() {
        let Some(step) = step(&field) else { continue };
        let (minimum, maximum) = (field.schema["minimum"].as_f64(), field.schema["maximum"].as_f64());
        let texts = field.refusals(&world, "1e308").await;
        let [text] = texts.as_slice() else { panic!("{}: {texts:?}", field.name()) };
        let Some((from, to)) = text.split_once(" from ").and_then(|(_, bounds)| bounds.split_once(" to "))
        else {
            assert_eq!(text, "expected a number above 0 and up to 1", "{}", field.name());
            continue;
        };
        // The text may give a reason after the bounds, and may also accept 0.
        let to = to.split(':').next().unwrap_or_default();
        let (from, to): (f64, f64) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!((minimum.unwrap_or(from), maximum.unwrap_or(to)), (from, to), "{}: {text}", field.name());
        let zero = text.starts_with("expected 0, or ").then_some(0.0);
        for accepted in [zero.unwrap_or(from), from, to] {
            assert!(
                field.refusals(&world, &accepted.to_string()).await.is_empty(),
                "{}: {text}: {accepted}",
                field.name()
            );
        }
        for refused in [from - step, to + 1.0, -1e308] {
            assert_eq!(
                field.refusals(&world, &refused.to_string()).await,
                [text.as_str()],
                "{}: {refused}",
                field.name()
            );
        }
        if step >= 1.0 {
            assert_eq!(
                field.refusals(&world, &(from + 0.5).to_string()).await,
                [text.as_str()],
                "{}: a fraction",
                field.name()
            );
        }
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

/// Distance below the lower bound at which a number must be refused. `None` if the field takes no numbers.
fn step(field: &Field) -> Option<f64> {
    let types = field.types();
    if types.contains(&"integer") {
        return Some(1.0);
    }
    types.contains(&"number").then_some(0.000_5)
}

use serde_json::{Value, json};

use super::*;

fn read_filter(filter: &Value) -> Result<Filter, Vec<FieldError>> {
    Filter::read(&Json::from_value(filter).unwrap(), Some(&"order.*".parse().unwrap()))
}

/// Event with which the tests compare filters.
fn event() -> Value {
    json!({
        "specversion": "1.0",
        "id": "7",
        "source": "/shop",
        "type": "order.created",
        "subject": "order/7",
        "data": {
            "state": "running",
            "region": "eu-west-1",
            "file": "dir/images/logo.PNG",
            "amount": 150,
            "price": 3.0e2,
            "empty": "",
            "nothing": null,
            "paid": false,
            "path": "C:\\new*\\x",
            "tags": ["new", "vip", 5],
            "none": [],
            "mixed": [{"sku": 1}, {}],
            "account": 123_456_789_012_i64,
            "lines": [{"sku": "a", "count": 1}, {"sku": "b", "count": 2}],
            "nested": {"deep": {"leaf": 1}},
        },
    })
}

/// One row for each kind of rule in "Comparison operators for use in event patterns" and "Creating event
/// patterns" of the EventBridge user guide: a condition on `data`, and whether it holds.
#[test]
fn filters_match_by_the_rules_of_eventbridge() {
    let rows = [
        // Values.
        (json!({"state": ["running"]}), true),
        (json!({"state": ["stopped", "running"]}), true),
        (json!({"state": ["Running"]}), false),
        (json!({"empty": [""]}), true),
        (json!({"nothing": [null]}), true),
        (json!({"state": [null]}), false),
        (json!({"paid": [false]}), true),
        (json!({"paid": [true]}), false),
        (json!({"price": [300]}), true),
        (json!({"price": [300.0]}), true),
        (json!({"amount": ["150"]}), false),
        (json!({"state": ["running"], "region": ["us-east-1"]}), false),
        (json!({"missing": ["running"]}), false),
        // Arrays of an event.
        (json!({"tags": ["vip"]}), true),
        (json!({"tags": ["old", 5]}), true),
        (json!({"tags": ["old"]}), false),
        (json!({"lines": {"sku": ["b"], "count": [2]}}), true),
        (json!({"lines": {"sku": ["a"], "count": [2]}}), false),
        (json!({"none": {"sku": [{"exists": false}]}}), true),
        (json!({"mixed": {"sku": [{"exists": false}]}}), false),
        (json!({"mixed": {"count": [{"exists": false}]}}), true),
        (json!({"account": [123_456_789_012_i64]}), true),
        // Prefix and suffix.
        (json!({"region": [{"prefix": "eu-"}]}), true),
        (json!({"region": [{"prefix": "us-"}]}), false),
        (json!({"region": [{"prefix": {"equals-ignore-case": "EU-"}}]}), true),
        (json!({"file": [{"suffix": ".png"}]}), false),
        (json!({"file": [{"suffix": {"equals-ignore-case": ".png"}}]}), true),
        (json!({"amount": [{"prefix": "1"}]}), false),
        (json!({"state": [{"equals-ignore-case": "RUNNING"}]}), true),
        // Anything but.
        (json!({"state": [{"anything-but": "stopped"}]}), true),
        (json!({"state": [{"anything-but": "running"}]}), false),
        (json!({"state": [{"anything-but": ["stopped", "running"]}]}), false),
        (json!({"amount": [{"anything-but": [100, 200]}]}), true),
        (json!({"amount": [{"anything-but": 150}]}), false),
        (json!({"missing": [{"anything-but": "running"}]}), false),
        (json!({"region": [{"anything-but": {"prefix": "eu-"}}]}), false),
        (json!({"region": [{"anything-but": {"prefix": ["us-", "ap-"]}}]}), true),
        (json!({"file": [{"anything-but": {"suffix": ".PNG"}}]}), false),
        (json!({"state": [{"anything-but": {"equals-ignore-case": ["RUNNING", "x"]}}]}), false),
        (json!({"file": [{"anything-but": {"wildcard": "*/lib/*"}}]}), true),
        (json!({"file": [{"anything-but": {"wildcard": "*/images/*"}}]}), false),
        (json!({"tags": [{"anything-but": ["new", "vip", 5]}]}), false),
        (json!({"tags": [{"anything-but": ["new"]}]}), true),
        // Numbers.
        (json!({"amount": [{"numeric": [">", 100]}]}), true),
        (json!({"amount": [{"numeric": [">", 150]}]}), false),
        (json!({"amount": [{"numeric": [">=", 150, "<", 200]}]}), true),
        (json!({"amount": [{"numeric": [">", 0, "<=", 5]}]}), false),
        (json!({"price": [{"numeric": ["=", 3.0e2]}]}), true),
        (json!({"amount": [{"numeric": ["<", 200]}]}), true),
        (json!({"state": [{"numeric": [">", 0]}]}), false),
        // Existence of a leaf.
        (json!({"state": [{"exists": true}]}), true),
        (json!({"missing": [{"exists": true}]}), false),
        (json!({"missing": [{"exists": false}]}), true),
        (json!({"state": [{"exists": false}]}), false),
        (json!({"nothing": [{"exists": true}]}), true),
        (json!({"none": [{"exists": false}]}), true),
        (json!({"nested": [{"exists": true}]}), false),
        (json!({"nested": {"deep": {"leaf": [{"exists": true}]}}}), true),
        (json!({"missing": {"deep": [{"exists": false}]}}), true),
        (json!({"state": {"deep": [{"exists": false}]}}), true),
        // Wildcards.
        (json!({"file": [{"wildcard": "dir/*.PNG"}]}), true),
        (json!({"file": [{"wildcard": "dir/*/logo.*"}]}), true),
        (json!({"file": [{"wildcard": "*.jpg"}]}), false),
        (json!({"file": [{"wildcard": "dir/images/logo.PNG"}]}), true),
        (json!({"file": [{"wildcard": "dir/images"}]}), false),
        (json!({"path": [{"wildcard": "C:\\\\new\\*\\\\*"}]}), true),
        (json!({"state": [{"wildcard": "run*running"}]}), false),
        // Alternatives.
        (json!({"$or": [{"state": ["stopped"]}, {"region": ["eu-west-1"]}]}), true),
        (json!({"$or": [{"state": ["stopped"]}, {"region": ["us-east-1"]}]}), false),
        (json!({"paid": [true], "$or": [{"state": ["running"]}, {"amount": [150]}]}), false),
        (json!({"$or": [{"state": ["x"]}, {"$or": [{"amount": [150]}, {"amount": [1]}]}]}), true),
    ];
    for (condition, expected) in rows {
        let filter = read_filter(&json!({"data": condition}))
            .unwrap_or_else(|errors| panic!("{condition} {errors:?}"));
        assert_eq!(filter.matches(&event()).unwrap(), expected, "{condition}");
    }
}

#[test]
fn filter_selects_by_attributes_and_data() {
    let filter = read_filter(&json!({
        "source": [{"prefix": "/shop"}],
        "type": ["order.created", "order.paid"],
        "$or": [{"subject": [{"prefix": "invoice/"}]}, {"data": {"amount": [{"numeric": [">", 100]}]}}],
    }));
    assert!(filter.unwrap().matches(&event()).unwrap());
    assert!(read_filter(&json!({})).unwrap().matches(&event()).unwrap(), "no condition matches every event");
}

#[test]
fn invalid_filters_are_refused() {
    let rows = [
        (json!([]), ""),
        (json!("x"), ""),
        (json!({"data": "x"}), "/data"),
        (json!({"data": {}}), "/data"),
        (json!({"data": {"a": []}}), "/data/a"),
        (json!({"data": {"a": [[1]]}}), "/data/a/0"),
        (json!({"data": {"a": [{}]}}), "/data/a/0"),
        (json!({"data": {"a": [{"prefix": "x", "suffix": "y"}]}}), "/data/a/0"),
        (json!({"data": {"a": [{"cidr": "10.0.0.0/24"}]}}), "/data/a/0/cidr"),
        (json!({"data": {"a": [{"prefix": 7}]}}), "/data/a/0/prefix"),
        (json!({"data": {"a": [{"exists": "yes"}]}}), "/data/a/0/exists"),
        (json!({"data": {"a": [{"anything-but": []}]}}), "/data/a/0/anything-but"),
        (json!({"data": {"a": [{"anything-but": {"numeric": [">", 1]}}]}}), "/data/a/0/anything-but"),
        (json!({"data": {"a": [{"wildcard": "a**b"}]}}), "/data/a/0/wildcard"),
        (json!({"data": {"a": [{"wildcard": "a\\b"}]}}), "/data/a/0/wildcard"),
        (json!({"data": {"a": [{"numeric": []}]}}), "/data/a/0/numeric"),
        (json!({"data": {"a": [{"numeric": [">"]}]}}), "/data/a/0/numeric"),
        (json!({"data": {"a": [{"numeric": ["<", 5, ">", 0]}]}}), "/data/a/0/numeric"),
        (json!({"data": {"a": [{"numeric": ["=", 5, "<", 9]}]}}), "/data/a/0/numeric"),
        (json!({"data": {"a": [{"numeric": [">", 6_000_000_000_i64]}]}}), "/data/a/0/numeric"),
        (json!({"$or": [{"type": ["order.created"]}]}), "/$or"),
        (json!({"$or": {"type": ["order.created"]}}), "/$or"),
        (json!({"data": {"a/b": "x"}}), "/data/a~1b"),
    ];
    for (filter, pointer) in rows {
        let errors = read_filter(&filter).unwrap_err();
        assert_eq!(errors[0].pointer, pointer, "{filter} {errors:?}");
    }
    let twice = Json::from_text(r#"{"data": {"a": [1], "a": [2]}}"#.to_owned()).unwrap();
    assert!(Filter::read(&twice, None).is_err());
    let long = Json::from_value(&json!({"data": {"a": ["x".repeat(9_000)]}})).unwrap();
    assert!(Filter::read(&long, None).is_err());
}

#[test]
fn filter_that_matches_no_event_is_refused() {
    let rows = [
        json!({"type": ["invoice.paid", "payment.received"]}),
        json!({"type": [7]}),
        json!({"type": [{"exists": false}]}),
        json!({"source": {"host": ["x"]}}),
        json!({"specversion": ["0.3"]}),
        json!({"time": [{"numeric": [">", 0]}]}),
        json!({"detail": {"state": ["x"]}}),
        json!({"detail-type": ["x"]}),
        json!({"data": {"a": [{"numeric": [">", 5, "<", 3]}]}}),
        json!({"data": {"a": [{"numeric": [">", 5, "<=", 5]}]}}),
    ];
    for filter in rows {
        let errors = read_filter(&filter).unwrap_err();
        assert!(errors[0].detail.starts_with("can match no event"), "{filter} {errors:?}");
    }
    for filter in [
        json!({"type": ["invoice.paid", "order.paid"]}),
        json!({"subject": [{"exists": false}]}),
        json!({"$or": [{"type": ["invoice.paid"]}, {"data": {"a": [1]}}]}),
    ] {
        assert!(read_filter(&filter).is_ok(), "{filter}");
    }
}

#[test]
fn comparison_with_too_many_values_ends() {
    let filter = read_filter(&json!({"data": {"a": vec![1; 250]}})).unwrap();
    let event = json!({"data": {"a": vec![0; 100_000]}});
    assert_eq!(filter.matches(&event), Err(TooManyValues));
    let elements = vec![json!({"x": {"y": 1}}); 50_000];
    let filter = read_filter(&json!({"data": {"x": {"z": [{"exists": false}]}}})).unwrap();
    assert!(filter.matches(&json!({"data": elements})).is_ok());
    assert!(read_filter(&json!({"data": {"a": vec![1; 301]}})).is_err());
}

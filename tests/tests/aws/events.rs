use nobat_tests::aws::stack::Stack;
use nobat_tests::harness::receiver::Receiver;
use serde_json::json;

on_each_deployment![event_creates_a_task_for_each_subscription];

async fn event_creates_a_task_for_each_subscription(stack: &Stack) {
    let receiver = Receiver::start().await.unwrap();
    for (name, topic) in [("stock", "shop.#"), ("mail", "shop.order.created"), ("other", "invoice.*")] {
        let task = json!({"kind": "http", "payload": {"url": receiver.url(&format!("/{name}"))}});
        let path = format!("/v1/subscriptions/{name}");
        let created = stack.put(&path, &json!({"topic": topic, "task": task})).await;
        assert!(created.status < 300, "{}", created.text());
    }
    let event = json!({"type": "shop.order.created", "source": "/shop", "id": "7", "data": {"order_id": 7}});
    let accepted = stack.post("/v1/events", &event).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let keeper = json!({"id": accepted.json()["id"].as_str().unwrap().replace("event_", "task_")});
    let ended = stack.ended(&keeper).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    for path in ["/stock", "/mail"] {
        let request = receiver.wait_for(path, 1).await.remove(0);
        assert_eq!(request.json()["data"], event["data"]);
    }
    let again = stack.post("/v1/events", &event).await;
    assert_eq!((again.status, &again.json()["id"]), (202, &accepted.json()["id"]));
    let shown = stack.get(&format!("/v1/events/{}", accepted.json()["id"].as_str().unwrap())).await.json();
    let tasks = shown["tasks"].as_array().unwrap();
    let names: Vec<_> = tasks.iter().map(|task| task["subscription"].as_str().unwrap()).collect();
    assert_eq!((names, &shown["status"]), (vec!["mail", "stock"], &json!("fanned_out")), "{shown}");
}

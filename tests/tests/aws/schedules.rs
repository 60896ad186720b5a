use nobat_tests::aws::stack::{Stack, reached};
use serde_json::{Value, json};

on_each_deployment![schedule_creates_a_task_for_each_planned_time];

async fn schedule_creates_a_task_for_each_planned_time(stack: &Stack) {
    let schedule = json!({"every": 2, "task": {"kind": "noop"}});
    let created = stack.put("/v1/schedules/often", &schedule).await;
    assert!(created.status < 300, "{}", created.text());
    let get = async || stack.get("/v1/schedules/often").await.json();
    let started = |schedule: &Value| {
        let decisions = schedule["last"].as_array().unwrap();
        decisions.iter().filter(|decision| decision["status"] == "succeeded").count()
    };
    let schedule = reached("three planned times are decided", get, |schedule| started(schedule) >= 3).await;
    assert_eq!(stack.delete("/v1/schedules/often").await.status, 200);
    let mut times: Vec<_> =
        schedule["last"].as_array().unwrap().iter().map(|d| d["planned_at"].to_string()).collect();
    times.dedup();
    assert_eq!(times.len(), schedule["last"].as_array().unwrap().len(), "{schedule}");
}

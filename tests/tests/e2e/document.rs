use nobat_tests::harness::World;
use nobat_tests::harness::program::workspace;
use serde_json::Value;

#[tokio::test]
async fn readiness_shows_every_queue_with_its_limits() {
    let world = World::start().await;
    let ready = world.get("/readyz").await.json();
    let queues = ready["queues"].as_array().unwrap();
    let names: Vec<&str> = queues.iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["write", "read_record", "read_task", "read_scan", "body_bytes", "key_lookup", "endpoint_test"]
    );
    for queue in queues {
        let [length, limit, of_tenant, refused] = ["length", "limit", "tenant_limit", "refused"]
            .map(|field| queue[field].as_u64().unwrap_or_else(|| panic!("{queue}")));
        assert!(length <= limit && of_tenant <= limit && limit > 0 && refused == 0, "{queue}");
    }
    world.end().await;
}

#[tokio::test]
async fn the_openapi_document_is_served_as_it_is_checked_in() {
    let world = World::start().await;
    let answer = world.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let checked_in = std::fs::read_to_string(workspace().join("openapi.json")).unwrap();
    assert_eq!(answer.json(), serde_json::from_str::<Value>(&checked_in).unwrap());
    assert!(answer.json()["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    world.end().await;
}

#[tokio::test]
async fn healthy_program_reports_health_and_readiness() {
    let world = World::start().await;
    assert_eq!((world.get("/healthz").await.status, world.get("/readyz").await.status), (200, 200));
    world.end().await;
}

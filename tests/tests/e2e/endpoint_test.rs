//! Load on `POST /v1/endpoints/{name}/test`.

use futures_util::future::join_all;
use nobat_tests::harness::World;
use nobat_tests::harness::receiver::{Gate, Reply};
use serde_json::json;

#[tokio::test]
async fn concurrent_endpoint_tests_are_limited() {
    let world = World::start().await;
    let gate = Gate::default();
    for name in ["one", "two", "three", "four", "five"] {
        world.receiver.script(&format!("/{name}/"), [Reply::status(200).behind(&gate)]);
        let endpoint = json!({"url": world.receiver.url(&format!("/{name}")), "limits": {"concurrency": 1}});
        assert_eq!(world.ask("PUT", &format!("/v1/endpoints/{name}"), &endpoint).await.status, 201);
    }
    let test =
        async |name: &str| world.post(&format!("/v1/endpoints/{name}/test"), &json!({"path": "/"})).await;
    let crowd = join_all((0..20).map(|_| test("one")));
    let rest = async {
        world.receiver.wait_for("/one/", 2).await;
        // Two tests of each of four endpoints then run, which is the tenant's maximum.
        let others = join_all(["two", "two", "three", "three", "four", "four"].map(&test));
        let last = async {
            for name in ["two", "three", "four"] {
                world.receiver.wait_for(&format!("/{name}/"), 2).await;
            }
            let refused = test("five").await;
            gate.open();
            refused
        };
        futures_util::future::join(others, last).await
    };
    let (crowd, (others, last)) = futures_util::future::join(crowd, rest).await;
    assert_eq!(crowd.iter().filter(|answer| answer.status == 200).count(), 2);
    assert!(others.iter().all(|answer| answer.status == 200));
    for refused in crowd.iter().filter(|answer| answer.status != 200).chain([&last]) {
        assert_eq!(
            (refused.problem(), refused.header("retry-after")),
            ((429, "too_many_tests".to_owned()), "1")
        );
    }
    assert_eq!(world.receiver.received("/one/").len(), 2, "refused tests are not sent");
    assert_eq!(test("five").await.status, 200, "ended tests make room for new ones");
    world.end().await;
}

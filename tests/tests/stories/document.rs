use nobat_tests::world::World;
use nobat_tests::world::program::workspace;
use serde_json::Value;

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
async fn a_program_that_is_well_says_so() {
    let world = World::start().await;
    assert_eq!((world.get("/healthz").await.status, world.get("/readyz").await.status), (200, 200));
    world.end().await;
}

//! The program, a name server that the test controls, and an internal server that must not be reached. Only
//! `.ci/run` runs this test. It needs its own network and mount namespaces, in which a public address is this
//! machine's and names are looked up here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nobat_tests::harness::names::{Names, Sort};
use nobat_tests::harness::program::Program;
use nobat_tests::harness::receiver::{Receiver, Reply};
use nobat_tests::harness::{OPEN, World, attempts};
use nobat_tests::scratch::Scratch;
use nobat_tests::size::size;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Environment variable that is set for the process inside the namespaces.
const INSIDE: &str = "REBINDING_INSIDE";
/// Public address, which is this machine's inside the namespaces.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4));
/// Script that sets up the namespaces and continues as the test. `$0` is the test program, `$1` a file for
/// `resolv.conf`.
const SETUP: &str = "ip link set lo up
ip addr add 1.2.3.4/32 dev lo
echo 'nameserver 127.0.0.1' > \"$1\"
mount --bind \"$1\" /etc/resolv.conf
exec \"$0\" --include-ignored --nocapture";

/// Server that counts connections.
struct Internal(Arc<AtomicUsize>);

impl Internal {
    async fn start(addresses: &[SocketAddr]) -> Self {
        let hits = Arc::new(AtomicUsize::new(0));
        for address in addresses {
            let (listener, hits) = (TcpListener::bind(address).await.unwrap(), Arc::clone(&hits));
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    hits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self(hits)
    }

    fn hits(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Returns the addresses of a name, after `before` earlier look-ups.
fn addresses_of(name: &str, sort: Sort, before: usize) -> Vec<IpAddr> {
    let addresses: &[&str] = match (name, sort) {
        ("mapped.test", Sort::Aaaa) => &["::ffff:127.0.0.1"],
        ("mixed.test", Sort::A) => &["1.2.3.4", "127.0.0.1"],
        ("metadata.test", Sort::A) => &["169.254.169.254"],
        ("six.test" | "crossed.test", Sort::Aaaa) => &["::1"],
        ("turning.test", Sort::Aaaa) if before % 5 == 4 => &["::1"],
        ("public.test" | "crossed.test", Sort::A) => &["1.2.3.4"],
        ("later.test", Sort::A) if before == 0 => &["1.2.3.4"],
        ("turning.test", Sort::A) if before.is_multiple_of(2) => &["1.2.3.4"],
        ("four.test" | "later.test" | "turning.test", Sort::A) => &["127.0.0.1"],
        _ => &[],
    };
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

fn call(url: &str) -> Value {
    json!({"kind": "http", "payload": {"url": url}, "retry": {"delays": [0.1, 0.1]}})
}

/// Runs this test again inside new namespaces.
fn run_in_namespaces() {
    // Built outside, because Cargo may need the network.
    Program::Nobat.path();
    let scratch = Scratch::new().unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "--net", "sh", "-ec", SETUP]);
    inside
        .arg(std::env::current_exe().unwrap())
        .arg(scratch.path().join("resolv.conf"))
        .env(INSIDE, "1")
        .stdin(Stdio::null());
    let output = inside.output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{said}");
}

#[tokio::test]
#[ignore = "needs unshare and ip, to create namespaces"]
async fn no_name_leads_the_program_to_an_internal_server() {
    if std::env::var_os(INSIDE).is_none() {
        return run_in_namespaces();
    }
    let mut before: HashMap<(String, bool), usize> = HashMap::new();
    let names = Names::start(Ipv4Addr::LOCALHOST.into(), move |name, sort| {
        // Many names act as one, because concurrent look-ups of the same name share an answer.
        let name = if name.starts_with("turning") { "turning.test" } else { name };
        let count = before.entry((name.to_owned(), sort == Sort::A)).or_default();
        *count += 1;
        Some(addresses_of(name, sort, *count - 1))
    });
    let names = names.await.unwrap();
    let public = Receiver::start_at(&SocketAddr::new(PUBLIC, 0).to_string()).await.unwrap();
    let port = public.address().port();
    let internal = Internal::start(
        &[format!("127.0.0.1:{port}"), format!("[::1]:{port}")].map(|address| address.parse().unwrap()),
    )
    .await;
    let mut world = World::with(&[]).await;
    let url = |name: &str, path: &str| format!("http://{name}:{port}{path}");

    // Positive control: the public server can be reached.
    let task = world.ended(&world.submit(&call(&url("public.test", "/there"))).await).await;
    assert_eq!((&task["status"], public.received("/there").len()), (&json!("succeeded"), 1), "{task:#}");

    let mut messages = Vec::new();
    for name in ["four.test", "six.test", "mapped.test", "mixed.test", "crossed.test", "metadata.test"] {
        // A port with a listener, and one without.
        for url in [url(name, "/"), format!("http://{name}:8/")] {
            let task = world.ended(&world.submit(&call(&url)).await).await;
            assert_eq!(
                (&task["status"], attempts(&task, "/error/code")),
                (&json!("failed"), vec!["blocked_address".to_owned()]),
                "{url}"
            );
            messages.push(task["error"]["message"].clone());
        }
        let endpoint = json!({"url": url(name, "/api")});
        assert_eq!(world.ask("PUT", "/v1/endpoints/inside", &endpoint).await.status / 100, 2);
        let task = world.submit(&json!({"kind": "http", "endpoint": "inside", "payload": {}})).await;
        assert_eq!(world.ended(&task).await["error"]["code"], "blocked_address", "{name}, as an endpoint");
        let task = world.submit(&json!({"kind": "noop", "callback": {"url": url(name, "/done")}})).await;
        world.ended(&task).await;
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "the message reveals nothing about the address: {messages:?}");
    for callback in world.tasks("queue=callbacks&").await {
        assert_eq!(world.ended(&callback).await["error"]["code"], "blocked_address");
    }
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "localhost"] {
        let refused = world.post("/v1/tasks", &call(&url(host, "/"))).await;
        assert!(
            refused.status == 422 && refused.text().contains("blocked_address"),
            "{host}: {}",
            refused.text()
        );
    }

    // The name is public at the first look-up and private at the next.
    public.script("/later", [Reply::status(500).header("connection", "close")]);
    let task = world.ended(&world.submit(&call(&url("later.test", "/later"))).await).await;
    assert_eq!(attempts(&task, "/error/code"), ["http_500", "blocked_address"]);
    public.script("/moved", [Reply::status(307).header("location", url("127.0.0.1", "/"))]);
    let task = world.ended(&world.submit(&call(&url("public.test", "/moved"))).await).await;
    assert_eq!(attempts(&task, "/error/code"), ["http_307"]);

    public.script("/turning", [Reply::status(200).header("connection", "close")]);
    let (mut tasks, asked) = (Vec::new(), names.asked());
    let count = size(200, 10_000);
    while tasks.len() < count {
        let turning = |number: usize| call(&url(&format!("turning{number}.test"), "/turning"));
        let many = json!({"tasks": (tasks.len()..tasks.len() + 100).map(turning).collect::<Vec<_>>()});
        tasks.extend(
            world.post("/v1/tasks/batch", &many).await.json()["data"].as_array().unwrap().iter().cloned(),
        );
    }
    let (mut reached, mut blocked) = (0, 0);
    for task in &tasks {
        let task = world.ended(task).await;
        match attempts(&task, "/error/code").as_slice() {
            [code] if code == "-" => reached += 1,
            [code] if code == "blocked_address" => blocked += 1,
            other => panic!("{other:?}: {task:#}"),
        }
    }
    assert_eq!((reached, reached + blocked), (public.received("/turning").len(), count));
    assert!(
        reached > count / 10 && blocked > count / 10,
        "{reached} tasks reached the server, and {blocked} were blocked"
    );
    assert!(names.asked() - asked > count, "every connection has its own look-up");
    assert_eq!(internal.hits(), 0);
    // Positive control: with permission, the internal server can be reached by name.
    world.stop().await;
    world.go_on_with(&OPEN).await;
    let mut task = call(&url("four.test", "/"));
    task["retry"] = json!({"max_attempts": 1});
    assert_ne!(world.ended(&world.submit(&task).await).await["error"]["code"], "blocked_address");
    assert_eq!(internal.hits(), 1);
    println!(
        "{reached} tasks reached the public server, {blocked} were blocked, and none reached the internal server"
    );
    world.end().await;
}

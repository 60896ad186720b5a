//! The limit: an axum handler that only makes one group-commit insert into SQLite (WAL, `synchronous=FULL`).

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

type Insert = (Vec<u8>, oneshot::Sender<i64>);

/// Serves until the process is killed.
pub(crate) async fn serve(data: &Path) -> anyhow::Result<()> {
    let connection = Connection::open(data)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.execute_batch("CREATE TABLE tasks (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")?;
    let (inserts, waiting) = sync_channel(16_384);
    std::thread::spawn(move || write(&connection, &waiting));
    let router = axum::Router::new().route("/v1/tasks", post(accept)).with_state(inserts);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::process::announce(listener.local_addr()?);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

async fn accept(State(inserts): State<SyncSender<Insert>>, body: axum::body::Bytes) -> (StatusCode, String) {
    let (sender, id) = oneshot::channel();
    if inserts.try_send((body.to_vec(), sender)).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    match id.await {
        Ok(id) => (StatusCode::ACCEPTED, format!("{{\"id\":{id}}}")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
    }
}

fn write(connection: &Connection, waiting: &Receiver<Insert>) {
    while let Ok(first) = waiting.recv() {
        let group: Vec<Insert> = [first].into_iter().chain(waiting.try_iter().take(1_023)).collect();
        // The ratios mean nothing if the limit fails, so the run ends.
        let ids = insert(connection, &group).expect("SQLite inserts");
        for ((_, sender), id) in group.into_iter().zip(ids) {
            let _ = sender.send(id);
        }
    }
}

fn insert(connection: &Connection, group: &[Insert]) -> rusqlite::Result<Vec<i64>> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.raw_execute()?;
    let mut ids = Vec::with_capacity(group.len());
    for (payload, _) in group {
        connection.prepare_cached("INSERT INTO tasks (payload) VALUES (?1)")?.execute([payload])?;
        ids.push(connection.last_insert_rowid());
    }
    connection.prepare_cached("COMMIT")?.raw_execute()?;
    Ok(ids)
}

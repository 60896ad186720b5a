//! Reads request bodies: of limited size, within a time limit.

use std::net::IpAddr;
use std::ops::Deref;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use futures_util::poll;
use http_body_util::BodyExt;
use nobat_core::auth::network::client_network;
use nobat_core::types::name::Tenant;

use crate::app::App;
use crate::http::error_code::Code;
use crate::http::problem::Problem;
use crate::quotas::body_budget::{BodyOwner, OverBudget, Reservation};

/// Maximum size of a body, in bytes: 256 KiB. A body of this size and the other fields of a task fit in one
/// record of every store.
const MAX_BYTES: usize = 256 * 1024;
/// Maximum size of the body of a provider's request to a source, in bytes: 1 MiB.
const MAX_WEBHOOK_BYTES: usize = 1024 * 1024;
/// Maximum time for a body to arrive, counted from the moment when the server starts to read the body.
const DEADLINE: Duration = Duration::from_secs(15);

/// Complete body of a request. The body counts against the tenant's budget until it is dropped.
pub(crate) struct Received {
    bytes: Bytes,
    reservation: Option<Reservation>,
}

impl Received {
    /// Frees the body, but not its share of the tenant's budget. For a caller that keeps a copy of the data.
    ///
    /// A small body is part of the connection's read buffer, and so are the headers. Hyper reads on into a
    /// second buffer during the request. A request that waits for the store should keep only one of them.
    pub(crate) fn into_reservation(self) -> Option<Reservation> {
        self.reservation
    }
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the complete body of a request that must contain JSON.
pub(crate) async fn json(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    check_media_type(headers)?;
    whole(app, tenant, headers, body).await
}

/// Returns the complete body of a request that may contain JSON. `None` if the body is empty.
pub(crate) async fn optional_json(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<Received>, Problem> {
    let body = whole(app, tenant, headers, body).await?;
    if body.is_empty() {
        return Ok(None);
    }
    check_media_type(headers)?;
    Ok(Some(body))
}

/// Returns the complete body of a request, of any media type.
pub(crate) async fn whole(
    app: &App,
    tenant: &Tenant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    read(app, BodyOwner::Tenant(tenant.clone()), MAX_BYTES, headers, body).await
}

/// Returns the complete body of a provider's request to a source, of any media type.
pub(crate) async fn webhook(
    app: &App,
    origin: Option<IpAddr>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    read(app, BodyOwner::Provider(origin.map(client_network)), MAX_WEBHOOK_BYTES, headers, body).await
}

async fn read(
    app: &App,
    owner: BodyOwner,
    max: usize,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Problem> {
    check_encoding(headers)?;
    // `Content-Length` gives the size before the server reads any of the body.
    if body.size_hint().lower() > max as u64 {
        return Err(too_large(max));
    }
    let mut collecting = pin!(collect(app, owner, max, body));
    // A body that arrived together with the request's head is ready at once and needs no timer.
    if let Poll::Ready(body) = poll!(collecting.as_mut()) {
        return body;
    }
    tokio::select! {
        body = collecting => body,
        () = app.clock.sleep(DEADLINE) => Err(Problem::new(Code::BodyTimeout, format!("expected the whole body within {} seconds", DEADLINE.as_secs()))),
    }
}

async fn collect(app: &App, owner: BodyOwner, max: usize, mut body: Body) -> Result<Received, Problem> {
    let first = chunk(&mut body).await?.unwrap_or_default();
    // A body in one piece needs no reservation: it is part of the connection's read buffer, which has its own
    // limit.
    if body.is_end_stream() {
        return received(first, None, max);
    }
    let mut reservation = app.bodies().reserve(owner);
    // Fails early, so that the server does not read a body for which the budget has no room.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(max);
    reservation.check_room(first.len() + announced).map_err(over_budget)?;
    reservation.grow(first.len()).map_err(over_budget)?;
    let mut whole = BytesMut::from(first);
    while let Some(chunk) = chunk(&mut body).await? {
        if whole.len() + chunk.len() > max {
            return Err(too_large(max));
        }
        reservation.grow(chunk.len()).map_err(over_budget)?;
        whole.extend_from_slice(&chunk);
    }
    received(whole.freeze(), Some(reservation), max)
}

/// Returns the next piece of the body. Ignores trailers.
async fn chunk(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(
                Code::MalformedBody,
                "the body ended early or its framing is invalid; send the complete body again",
            )
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn received(bytes: Bytes, reservation: Option<Reservation>, max: usize) -> Result<Received, Problem> {
    if bytes.len() > max { Err(too_large(max)) } else { Ok(Received { bytes, reservation }) }
}

fn over_budget(_: OverBudget) -> Problem {
    let detail = "the server holds too many request bodies; try again after the time in Retry-After";
    Problem::new(Code::Overloaded, detail).with_header("connection", "close".to_owned())
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("expected a body of at most {} KiB", max / 1024))
}

/// Refuses compressed bodies. A small compressed body can expand and fill the memory.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if plain {
        Ok(())
    } else {
        Err(Problem::new(Code::UnsupportedContentEncoding, "expected a body without Content-Encoding"))
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(one), None) => one == "application/json" || one.to_str().is_ok_and(is_json),
        _ => false,
    };
    if is_json {
        Ok(())
    } else {
        Err(Problem::new(Code::UnsupportedMediaType, "expected Content-Type: application/json"))
    }
}

/// Returns true for `application/json` with any parameters. A `charset` must be UTF-8, as JSON always is.
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    essence
        && parts
            .filter_map(|parameter| parameter.split_once('='))
            .all(|(name, value)| !is_charset(name) || is_utf8(value))
}

fn is_charset(name: &str) -> bool {
    name.trim().eq_ignore_ascii_case("charset")
}

pub(crate) fn is_utf8(value: &str) -> bool {
    value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_media_type_is_accepted_in_any_spelling() {
        for text in [
            "application/json",
            "Application/JSON",
            "application/json; charset=UTF-8",
            "application/json;charset=\"utf-8\";v=1",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "text/json",
            "application/json; charset=latin1",
            "application/jsonx",
            "application/problem+json",
            "json",
        ] {
            assert!(!is_json(text), "{text}");
        }
    }
}

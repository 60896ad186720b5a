//! Authentication and authorization: client address, API key and scope.
//!
//! Every route has an [`Authorized`] argument, except the health checks, the OpenAPI document, and the route
//! that receives webhooks, which the source verifies. The routes for completions have a
//! [`TokenHolder`](crate::auth::token_holder::TokenHolder) instead. These arguments admit or refuse clients before
//! the server reads the body.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use nobat_core::auth::api_key::{Key, KeyRejection, KeyText};
use nobat_core::auth::audit::Actor;
use nobat_core::auth::network;
use nobat_core::auth::scope::{Scope, Scopes};
use nobat_core::config::tenant::TenantSettings;
use nobat_core::types::authority::Authority;
use nobat_core::types::name::Tenant;
use nobat_core::types::time::Timestamp;

use crate::app::App;
use crate::auth::policy::{AccessPolicy, AuthMode, Peer};
use crate::auth::principal::Principal;
use crate::http::error_code::Code;
use crate::http::problem::Problem;

/// Scope as a type, so that a handler's arguments name the scope that it requires.
pub(crate) trait Permission: Send + Sync {
    /// Scope that the handler requires.
    const SCOPE: Scope;
}

macro_rules! permissions {
    ($($name:ident),*) => {
        $(#[doc = concat!("[`Scope::", stringify!($name), "`]")]
        pub(crate) struct $name;

        impl Permission for $name {
            const SCOPE: Scope = Scope::$name;
        })*
    };
}

permissions!(TasksWrite, TasksRead, TasksReplay, ConfigWrite, Admin);

/// Authenticated client that has the scope of `P`.
pub(crate) struct Authorized<P>(pub(crate) Principal, pub(crate) PhantomData<P>);

impl<P: Permission> FromRequestParts<App> for Authorized<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = caller(parts, app).await?;
        if !caller.scopes.contains(P::SCOPE) {
            let scope = P::SCOPE.as_str();
            return Err(Problem::new(
                Code::MissingScope,
                format!("this route requires a key with the scope {scope}"),
            ));
        }
        Ok(Self(caller, PhantomData))
    }
}

async fn caller(parts: &Parts, app: &App) -> Result<Principal, Problem> {
    let now = app.clock.now();
    let origin = admitted_origin(parts, app)?;
    if app.access_policy.keys == AuthMode::Never {
        let settings = TenantSettings::default();
        return Ok(Principal {
            tenant: Tenant::default(),
            scopes: Scopes::all(),
            actor: Actor::Operator,
            settings,
        });
    }
    let caller = if app.auth_cache().asks_for_keys(&app.backend, now).await? {
        let key = authenticate(parts, app, origin, now).await?;
        let settings = app.auth_cache().settings(&app.backend, &key.tenant, now).await?;
        Principal { tenant: key.tenant.clone(), scopes: key.scopes, actor: Actor::Key(key.id()), settings }
    } else {
        meant_for_this_machine(parts, origin)?;
        let tenant = Tenant::default();
        let settings = app.auth_cache().settings(&app.backend, &tenant, now).await?;
        Principal { tenant, scopes: Scopes::all(), actor: Actor::Anonymous, settings }
    };
    if let Some(rate) = caller.settings.request_rate {
        app.permits().take(&app.backend, &caller.tenant, rate, now).await?;
    }
    Ok(caller)
}

/// Returns the client's address, `None` if it is unknown. Fails if the server accepts no requests from it.
pub(crate) fn admitted_origin(parts: &Parts, app: &App) -> Result<Option<IpAddr>, Problem> {
    let origin = origin(parts, &app.access_policy);
    if network::admits(&app.access_policy.admitted, origin) {
        return Ok(origin);
    }
    Err(Problem::new(
        Code::AddressNotAllowed,
        "the server accepts no requests from this address; send the request from an allowed network",
    ))
}

/// Returns the client's address. Returns `None` if no [`Peer`] is set, or if a trusted proxy names no client.
pub(super) fn origin(parts: &Parts, access_policy: &AccessPolicy) -> Option<IpAddr> {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    // A value that is not text becomes an invalid element. If the value were skipped, the next element would
    // count as the client's address, and the client can forge that element.
    let forwarded =
        parts.headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    let elements: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    network::origin(peer, &access_policy.proxies, elements.into_iter())
}

async fn authenticate(
    parts: &Parts,
    app: &App,
    origin: Option<IpAddr>,
    now: Timestamp,
) -> Result<Arc<Key>, Problem> {
    let Some(text) = presented(parts)? else { return Err(unauthorized()) };
    let auth_cache = app.auth_cache();
    let key = match KeyText::from_str(text) {
        Ok(text) => auth_cache.key(&app.backend, &text, origin, now).await?,
        Err(_) => None,
    };
    match key.as_ref().map(|key| key.admit(origin, now)) {
        Some(Ok(())) => key.ok_or_else(unauthorized),
        Some(Err(KeyRejection::Elsewhere)) => Err(Problem::new(
            Code::AddressNotAllowed,
            "the key's `networks` do not contain this address; send the request from a network in this list, or use another key",
        )),
        Some(Err(KeyRejection::Over)) | None => {
            Err(auth_cache.count_failure(origin, now).err().unwrap_or_else(unauthorized))
        }
    }
}

/// Returns the text of a request's API key, if the request has one.
fn presented(parts: &Parts) -> Result<Option<&str>, Problem> {
    // Proxies and servers log URLs, so a key in a URL counts as leaked. The log line below must not repeat
    // the key.
    if parts.uri.query().is_some_and(|query| query.contains(KeyText::PREFIX)) {
        tracing::warn!(
            path = parts.uri.path(),
            "a request with an API key in the query string was refused; the key may be in logs, so revoke the key"
        );
        return Err(unauthorized());
    }
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let text = match (headers.next(), headers.next()) {
        (Some(one), None) => one.to_str().ok(),
        (Some(_), Some(_)) => return Err(unauthorized()),
        (None, _) => None,
    };
    let token = text
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(token.map(|(_, token)| token.trim()))
}

/// Headers that proxies add to the requests that they forward.
const FORWARDED: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    header::VIA,
];

/// Returns the same 401 for keys that are missing, mistyped, unknown, revoked or expired. Otherwise a client
/// could find out which keys exist.
pub(crate) fn unauthorized() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "the request has no valid API key; send one in the header `Authorization: Bearer nb_live_…`",
    )
}

/// Refuses a request that does not come from a program on this machine. Applies to a server without keys.
///
/// The request must come from a loopback address and name a loopback host. It must have no forwarding header,
/// and no `Origin` or `Sec-Fetch-Site` of another site. The reasons:
///
/// - A web page in a browser on this machine can point its own domain at this address (DNS rebinding). The
///   browser then sends that domain in `Host`, not `localhost`.
/// - A web page can also send a request whose response it cannot read. The browser then sets `Origin` or
///   `Sec-Fetch-Site`.
/// - Most proxies that forward requests of other clients add one of [`FORWARDED`].
fn meant_for_this_machine(parts: &Parts, origin: Option<IpAddr>) -> Result<(), Problem> {
    let headers = &parts.headers;
    let all =
        |name: HeaderName, is_allowed: fn(&HeaderValue) -> bool| headers.get_all(name).iter().all(is_allowed);
    let is_own_target = parts.uri.authority().is_none_or(|authority| is_loopback(authority.as_str()));
    let is_for_us =
        headers.contains_key(HOST) && all(HOST, |host| host.to_str().is_ok_and(is_loopback)) && is_own_target;
    let is_from_us = origin.is_some_and(|address| address.is_loopback())
        && !FORWARDED.iter().any(|name| headers.contains_key(name))
        && all(ORIGIN, is_own_origin)
        && all(SEC_FETCH_SITE, |site| site == "same-origin" || site == "none");
    if is_for_us && is_from_us {
        return Ok(());
    }
    let detail = "the server has no API keys and accepts only requests from its own machine to `localhost`; create a key with `nobat keys create`";
    Err(Problem::new(Code::MisdirectedRequest, detail))
}

/// Header in which a browser states if a page of the same origin sent the request (W3C Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns true if `Origin` names a page of this machine. Returns false for `null`.
fn is_own_origin(origin: &HeaderValue) -> bool {
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
    authority.is_some_and(is_loopback)
}

fn is_loopback(authority: &str) -> bool {
    Authority::parse(authority).is_some_and(|authority| authority.is_loopback())
}

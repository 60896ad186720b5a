//! HTTP client that can safely call untrusted destinations.
//!
//! Clients may submit tasks with any URL. This process must not call addresses that only it can reach: its
//! own machine, its network, its cloud's metadata service. A destination may answer with anything, for any
//! length of time.
//!
//! | question | where it is decided |
//! |---|---|
//! | May this URL be submitted? | [`destination`], from the text alone |
//! | Which addresses does a name have, and how many look-ups run at a time? | [`resolver`], within the limits of `lookup` |
//! | May these headers be sent? | [`headers`] |
//! | May this address be dialed? | [`guard`], called by [`connector`] for every connection; this check is the decisive one |
//! | Which certificate authorities are trusted for a destination? | the operating system's, or those of the request: [`ca_certificates`] |
//! | How much of a response is read, and how long does the client wait? | [`client`] |
//! | Which pause does a receiver ask for? | [`retry_after`] |
//!
//! Deliberately absent: proxies, redirects, cookies, and any connection that bypasses the guard.

pub mod ca_certificates;
pub mod client;
pub mod coding;
mod connect_error;
pub mod connector;
pub mod destination;
pub mod error;
pub mod guard;
pub mod headers;
mod lookup;
pub mod resolver;
pub mod retry_after;
mod reuse;
#[cfg(test)]
mod testing;

pub use client::{Answer, Client, Request};
pub use coding::Extent;
pub use coding::MAX_BODY;
pub use destination::{BadUrl, Destination};
pub use error::{SendError, TlsFault};
pub use guard::Guard;
pub use resolver::Resolve;
pub use resolver::SystemResolver;

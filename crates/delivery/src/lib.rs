//! The way out: an HTTP client that is safe to point at strangers.
//!
//! Whoever can submit a task can name any URL, so this process must not be talked into calling what only it can reach: its own
//! machine, its neighbours, its cloud's metadata service. And whoever answers can answer anything, for any length of time.
//!
//! | question | where it is decided |
//! |---|---|
//! | May this URL be submitted? | [`destination`], from the text alone |
//! | Which addresses does a name have, and how many look-ups are under way at a time? | [`resolver`], within the limits of `lookup` |
//! | May these headers be sent? | [`headers`] |
//! | May this address be dialled? | [`guard`], asked by [`connector`] for every connection; this is the one that counts |
//! | Who must vouch for a destination that speaks TLS? | the operating system's authorities, or those of the request: [`authority`] |
//! | How much of an answer is taken, and for how long is it waited for? | [`client`] |
//! | Which pause does a receiver ask for? | [`retry_after`] |
//!
//! What is absent: proxies, redirects, cookies, and any way to connect around the guard.

pub mod authority;
pub mod client;
mod coding;
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

pub use client::{Answer, Client, MAX_BODY, Request};
pub use coding::Extent;
pub use connector::Resolve;
pub use destination::{BadUrl, Destination};
pub use error::{SendError, TlsFault};
pub use guard::Guard;
pub use resolver::SystemResolver;

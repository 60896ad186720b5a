//! What bad input gets, over real sockets: RELIABILITY.md, section 2, A and B, row by row; and, in between, that good input
//! is still taken. No input may get a 5xx, and none may be half accepted.

mod anything;
mod fields;
mod json;
mod keys;
mod memory;
mod tasks;
mod transport;
mod world;

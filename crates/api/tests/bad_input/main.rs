//! What bad input gets, over real sockets: RELIABILITY.md, section 2, A, B and C, row by row; and, in between, that good input
//! is still taken. No input may get a 5xx, and none may be half accepted.

mod access;
mod anything;
mod callers;
mod endpoints;
mod explain;
mod fields;
mod json;
mod keys;
mod limits;
mod matrix;
mod memory;
mod moments;
mod secrets;
mod tasks;
mod texts;
mod transport;
mod world;

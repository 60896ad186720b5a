//! Answers to bad input over real sockets, row by row of RELIABILITY.md, section 2, A, B and C. Also checks
//! in between that the server still accepts valid input.
//!
//! No input may cause a 5xx, and none may be accepted in part.

mod access;
mod anything;
mod callers;
mod completions;
mod endpoints;
mod explain;
mod fields;
mod json;
mod keys;
mod limits;
mod lost_reply;
mod matrix;
mod memory;
mod moments;
mod schedules;
mod secrets;
mod sources;
mod tasks;
mod texts;
mod transport;
mod world;

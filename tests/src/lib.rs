//! Test suites of nobat: conformance of every backend, and invariants under every kind of fault.
#![expect(clippy::missing_panics_doc, reason = "every function of this crate panics if a check fails")]

pub mod aws;
pub mod conformance;
pub mod cost;
pub mod disk;
pub mod harness;
pub mod keys;
pub mod kill;
pub mod model;
pub mod neighbour;
pub mod noisy;
pub mod outage;
pub mod poison;
pub mod sample;
pub mod scratch;
pub mod serve;
pub mod shared;
pub mod simulation;
pub mod size;
pub mod slow;
pub mod time;
pub mod tools;
pub mod verifiers;

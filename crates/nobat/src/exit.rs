//! Exit codes that scripts can tell apart.

use std::process::ExitCode;

use crate::client::Refusal;

/// Text of `--help` about exit codes.
pub(crate) const HELP: &str = "Exit codes: 0 success; 1 failure; 2 wrong command line; 3 refused by the server (no such task, invalid input, \
wrong state); 4 the task ended, but not as succeeded; 5 the task had not ended in time";

pub(crate) const FAILURE: u8 = 1;
pub(crate) const REFUSED: u8 = 3;
pub(crate) const NOT_SUCCEEDED: u8 = 4;
pub(crate) const NOT_ENDED: u8 = 5;

/// Writes the error to standard error and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("nobat: {error:#}");
    if error.is::<Refusal>() { REFUSED.into() } else { FAILURE.into() }
}

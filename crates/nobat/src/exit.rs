//! Exit codes that scripts can tell apart.

use std::process::ExitCode;

use crate::client::Refusal;

/// What `--help` says of them.
pub(crate) const HELP: &str = "Exit codes: 0 done; 1 it did not work; 2 the command line is wrong; 3 nobat refused (no such task, invalid \
input, not in that state); 4 the task ended otherwise than succeeded; 5 the task had not ended when the time was up";

pub(crate) const FAILURE: u8 = 1;
pub(crate) const REFUSED: u8 = 3;
pub(crate) const NOT_SUCCEEDED: u8 = 4;
pub(crate) const NOT_ENDED: u8 = 5;

/// Says on standard error what went wrong, and gives the code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("nobat: {error:#}");
    if error.is::<Refusal>() { REFUSED.into() } else { FAILURE.into() }
}

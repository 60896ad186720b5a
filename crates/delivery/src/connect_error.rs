//! Errors of connections.

use std::io;

use rustix::io::Errno;

/// Reason why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the address is not public")]
    Blocked,
    #[error("the name could not be resolved")]
    Dns,
    #[error("connecting took too long")]
    Timeout,
    #[error("too many look-ups are under way")]
    Busy,
    #[error("connecting failed")]
    Io(#[source] io::Error),
}

/// Returns true if the error says that this process lacks handles, ports or memory.
pub(crate) fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| LOCAL.contains(&Errno::from_raw_os_error(code)))
}

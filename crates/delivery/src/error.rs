//! Reasons why a request got no response.

use std::error::Error;
use std::io;

use nobat_core::task::ErrorCode;
use nobat_core::types::held_reason::HeldReason;
use rustls::CertificateError;

use crate::connect_error::{ConnectError, is_local};

/// Reason why a request got no response, in the detail that clients may see.
///
/// No message contains data of the request. The error for a blocked address is the same with or without a
/// server at this address, so that clients cannot use errors to scan a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The request's timeout has passed.
    #[error("the destination did not answer in time")]
    Timeout,
    /// The destination refused the connection.
    #[error("the destination refused the connection")]
    ConnectionRefused,
    /// The destination closed the connection before its response was complete.
    #[error("the destination closed the connection before its response was complete")]
    ConnectionReset,
    /// The destination's name has no address.
    #[error("the name of the destination could not be resolved")]
    Dns,
    /// The destination's certificate is not trusted, or the TLS handshake failed.
    #[error("no trusted connection to the destination could be opened: {0}")]
    Tls(TlsFault),
    /// The guard does not permit the destination's address.
    #[error("the destination is not a public address")]
    BlockedAddress,
    /// The destination could not be reached for another reason.
    #[error("the destination could not be reached")]
    ConnectionFailed,
    /// This process lacks file handles, ports or memory, or runs too many DNS look-ups. This error says
    /// nothing about the destination.
    #[error("this process lacks the resources for the call")]
    LocalResources,
    /// The response is not HTTP, or its head exceeds the limits.
    #[error("the response of the destination is not valid HTTP, or its headers are too large")]
    Protocol,
}

/// TLS error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The certificate has expired or is not valid yet.
    #[error("the certificate has expired or is not valid yet")]
    Expired,
    /// The certificate is for another name.
    #[error("the certificate is for another name")]
    WrongName,
    /// The certificate's issuer is not trusted.
    #[error("no trusted authority signed the certificate")]
    UnknownIssuer,
    /// The certificate is invalid for another reason.
    #[error("the certificate is not valid")]
    Certificate,
    /// The certificate authorities of the request cannot be read.
    #[error("the certificate authorities configured for the destination cannot be read")]
    Authority,
    /// The peers have no common TLS parameters, or the destination does not speak TLS.
    #[error("the TLS handshake failed")]
    Handshake,
}

impl SendError {
    /// Returns a stable code, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Timeout => ErrorCode::TIMEOUT,
            Self::ConnectionRefused => ErrorCode::CONNECTION_REFUSED,
            Self::ConnectionReset => ErrorCode::CONNECTION_RESET,
            Self::Dns => ErrorCode::DNS,
            Self::Tls(_) => ErrorCode::TLS,
            Self::BlockedAddress => ErrorCode::BLOCKED_ADDRESS,
            Self::ConnectionFailed => ErrorCode::CONNECTION_FAILED,
            Self::LocalResources => HeldReason::ResourceExhausted.as_str(),
            Self::Protocol => ErrorCode::PROTOCOL,
        }
    }

    /// Finds the most specific cause. Errors of the connector and of TLS take precedence over errors of HTTP
    /// and of the socket.
    pub(crate) fn explain(error: &(dyn Error + 'static)) -> Self {
        let causes = || std::iter::successors(Some(error), |error| cause(*error));
        let exchange = || causes().find_map(of_exchange);
        let is_cut = || causes().any(<dyn Error>::is::<hyper::Error>).then_some(Self::ConnectionReset);
        causes()
            .find_map(of_this_process)
            .or_else(|| causes().find_map(of_connection))
            .or_else(exchange)
            .or_else(is_cut)
            .unwrap_or(Self::ConnectionFailed)
    }
}

/// Returns the cause of an error. `source()` of an `io::Error` would skip the error that it contains.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}

fn of_this_process(error: &(dyn Error + 'static)) -> Option<SendError> {
    let is_local = error.downcast_ref().is_some_and(is_local)
        || matches!(error.downcast_ref(), Some(ConnectError::Busy));
    is_local.then_some(SendError::LocalResources)
}

fn of_connection(error: &(dyn Error + 'static)) -> Option<SendError> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(SendError::Tls(of_tls(error)));
    }
    match error.downcast_ref()? {
        ConnectError::Blocked => Some(SendError::BlockedAddress),
        ConnectError::Dns => Some(SendError::Dns),
        ConnectError::Timeout => Some(SendError::Timeout),
        // The inner error distinguishes a refused connection from a reset. `of_this_process` has handled a
        // lack of local resources.
        ConnectError::Io(_) | ConnectError::Busy => None,
    }
}

fn of_tls(error: &rustls::Error) -> TlsFault {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                TlsFault::Expired
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => TlsFault::WrongName,
            Bad::UnknownIssuer => TlsFault::UnknownIssuer,
            _ => TlsFault::Certificate,
        },
        _ => TlsFault::Handshake,
    }
}

fn of_exchange(error: &(dyn Error + 'static)) -> Option<SendError> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_cut = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        return if error.is_parse() {
            Some(SendError::Protocol)
        } else {
            is_cut.then_some(SendError::ConnectionReset)
        };
    }
    of_socket(error.downcast_ref::<io::Error>()?.kind())
}

fn of_socket(kind: io::ErrorKind) -> Option<SendError> {
    use io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionRefused => Some(SendError::ConnectionRefused),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            Some(SendError::ConnectionReset)
        }
        Kind::TimedOut => Some(SendError::Timeout),
        // Hyper reports invalid chunks with these kinds.
        Kind::InvalidInput | Kind::InvalidData => Some(SendError::Protocol),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn lack_of_local_resources_is_not_a_destination_error() {
        let explained = |errno: Errno| {
            SendError::explain(&ConnectError::Io(io::Error::from_raw_os_error(errno.raw_os_error())))
        };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL] {
            assert_eq!(explained(errno), SendError::LocalResources, "{errno}");
        }
        assert_eq!(explained(Errno::CONNREFUSED), SendError::ConnectionRefused);
        assert_eq!(explained(Errno::NETUNREACH), SendError::ConnectionFailed);
        assert_eq!(SendError::explain(&ConnectError::Busy), SendError::LocalResources);
    }
}

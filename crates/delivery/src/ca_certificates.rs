//! Certificate authorities that are configured for one destination.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Maximum length of the PEM text, in bytes: 16 KiB.
pub const MAX_AUTHORITY: usize = 16 * 1024;
/// Maximum number of certificates in the PEM text.
const MAX_CERTIFICATES: usize = 10;

/// Reason why a PEM text is rejected. No message repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// The text is longer than [`MAX_AUTHORITY`].
    #[error("expected at most {MAX_AUTHORITY} bytes")]
    TooLong,
    /// The text is not PEM, contains no certificate, or contains more than 10.
    #[error("expected 1 to {MAX_CERTIFICATES} certificates in PEM, as in `-----BEGIN CERTIFICATE-----`")]
    NotPem,
    /// A PEM block does not contain an X.509 certificate.
    #[error("expected X.509 certificates; one of the PEM blocks is not a certificate")]
    NotACertificate,
}

/// Parses the trusted roots from PEM certificates.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore, InvalidAuthority> {
    if pem.len() > MAX_AUTHORITY {
        return Err(InvalidAuthority::TooLong);
    }
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidAuthority::NotPem)?;
    if certificates.is_empty() || certificates.len() > MAX_CERTIFICATES {
        return Err(InvalidAuthority::NotPem);
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|_| InvalidAuthority::NotACertificate)?;
    }
    Ok(roots)
}

/// Checks that the text contains certificate authorities that can be trusted for a destination.
pub fn check(pem: &str) -> Result<(), InvalidAuthority> {
    roots(pem).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pem_certificates_are_accepted() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        assert_eq!(check(&certificate), Ok(()));
        assert_eq!(check(&certificate.repeat(10)), Ok(()));
        assert_eq!(check(&certificate.repeat(11)), Err(InvalidAuthority::NotPem));
        for text in ["", "hunter2", &key.serialize_pem(), "-----BEGIN CERTIFICATE-----\nAA"] {
            assert_eq!(check(text), Err(InvalidAuthority::NotPem), "{text:.30}");
        }
        assert_eq!(
            check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err(InvalidAuthority::NotACertificate)
        );
        assert_eq!(check(&" ".repeat(MAX_AUTHORITY + 1)), Err(InvalidAuthority::TooLong));
    }
}

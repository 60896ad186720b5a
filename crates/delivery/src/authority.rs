//! Certificate authorities of a destination's own.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The longest text, in bytes.
pub const MAX_AUTHORITY: usize = 16 * 1024;
/// How many certificates can stand in it.
const MAX_CERTIFICATES: usize = 10;

/// Why a text names nobody who could be trusted. None of the sentences repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// It is longer than [`MAX_AUTHORITY`].
    #[error("expected at most {MAX_AUTHORITY} bytes")]
    TooLong,
    /// It does not read as PEM with a certificate, or holds too many of them.
    #[error("expected 1 to {MAX_CERTIFICATES} certificates in PEM, as in `-----BEGIN CERTIFICATE-----`")]
    NotPem,
    /// What stands in it is no certificate.
    #[error("expected X.509 certificates, and one of them is none")]
    NotACertificate,
}

/// Those who are named by PEM certificates.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore, InvalidAuthority> {
    if pem.len() > MAX_AUTHORITY {
        return Err(InvalidAuthority::TooLong);
    }
    let certificates: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| InvalidAuthority::NotPem)?;
    if certificates.is_empty() || certificates.len() > MAX_CERTIFICATES {
        return Err(InvalidAuthority::NotPem);
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|_| InvalidAuthority::NotACertificate)?;
    }
    Ok(roots)
}

/// Whether that text names authorities that a destination can be trusted by.
pub fn check(pem: &str) -> Result<(), InvalidAuthority> {
    roots(pem).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_certificates_and_nothing_else() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        assert_eq!(check(&certificate), Ok(()));
        assert_eq!(check(&certificate.repeat(10)), Ok(()));
        assert_eq!(check(&certificate.repeat(11)), Err(InvalidAuthority::NotPem));
        for text in ["", "hunter2", &key.serialize_pem(), "-----BEGIN CERTIFICATE-----\nAA"] {
            assert_eq!(check(text), Err(InvalidAuthority::NotPem), "{text:.30}");
        }
        assert_eq!(check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Err(InvalidAuthority::NotACertificate));
        assert_eq!(check(&" ".repeat(MAX_AUTHORITY + 1)), Err(InvalidAuthority::TooLong));
    }
}

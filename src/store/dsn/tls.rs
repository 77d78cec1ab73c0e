//! What `sslmode`, `sslrootcert`, `sslcert` and `sslkey` come to in rustls.
//!
//! libpq verifies the server only if it has a root certificate or is told to by `verify-ca` or `verify-full`; an agency's
//! connection string means what it means to psql, so neither do we. Differences: `allow` tries TLS first as `prefer` does;
//! a failed TLS handshake is never followed by a plain connection; without a root certificate the `verify-` modes trust the
//! operating system's roots instead of failing; a host name must be in the certificate's subject alternative names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::DsnError;

/// `sslmode`, in rising order of caution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where the roots that the server's certificate must lead to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// The server is not verified.
    None,
    /// A file of PEM certificates.
    File(PathBuf),
    /// What the operating system trusts.
    System,
}

/// All that a connection string says about TLS.
#[derive(Clone, Debug)]
pub(super) struct Ssl {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    /// Our own certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl Ssl {
    /// From the parameters; `home` is where libpq looks for its default files.
    pub(super) fn new(parameters: &super::Parameters, home: Option<&Path>) -> Result<Self, DsnError> {
        let given = |name: &str| parameters.get(name).map(String::as_str);
        let default = |file: &str| home.map(|home| home.join(".postgresql").join(file)).filter(|path| path.is_file());
        let mut mode = match given("sslmode") {
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            None | Some("prefer") => SslMode::Prefer,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(DsnError::invalid("sslmode", other, "disable, allow, prefer, require, verify-ca or verify-full")),
        };
        let roots = match given("sslrootcert") {
            Some("system") => {
                // As in libpq: public roots without a host name prove nothing.
                match given("sslmode") {
                    None => mode = SslMode::VerifyFull,
                    Some("verify-full") => {}
                    Some(weak) => return Err(DsnError::invalid("sslmode", weak, "verify-full where sslrootcert=system")),
                }
                Roots::System
            }
            Some(file) => Roots::File(file.into()),
            None => match default("root.crt") {
                Some(file) => Roots::File(file),
                None if mode >= SslMode::VerifyCa => Roots::System,
                None => Roots::None,
            },
        };
        let identity = match (given("sslcert").map(PathBuf::from).or_else(|| default("postgresql.crt")), given("sslkey")) {
            (None, None) => None,
            (None, Some(_)) => return Err(DsnError::Malformed("sslkey is given without sslcert".to_owned())),
            (Some(cert), key) => {
                let key = key.map(PathBuf::from).or_else(|| default("postgresql.key"));
                Some((cert, key.ok_or_else(|| DsnError::Malformed("sslcert is given without sslkey".to_owned()))?))
            }
        };
        Ok(Self { mode, roots, identity })
    }

    /// The mode as far as the certificate is concerned: with roots, every mode verifies at least the authority.
    pub(super) fn verifies(&self) -> Option<SslMode> {
        match (&self.roots, self.mode) {
            (Roots::None, _) | (_, SslMode::Disable) => None,
            (_, SslMode::VerifyFull) => Some(SslMode::VerifyFull),
            _ => Some(SslMode::VerifyCa),
        }
    }

    /// The certificates of the roots, DER.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, DsnError> {
        match &self.roots {
            Roots::None => Ok(Vec::new()),
            Roots::File(file) => certificates(file),
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
                    return Err(DsnError::Certificate(format!("the system's root certificates cannot be used: {why}; give sslrootcert")));
                }
                Ok(found.certs)
            }
        }
    }

    /// The configuration of the driver.
    pub(super) fn config(&self) -> Result<ClientConfig, DsnError> {
        let failed = |error: &dyn std::fmt::Display| DsnError::Certificate(format!("TLS cannot be set up: {error}"));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| failed(&error))?;
        let known = match self.verifies() {
            None => None,
            Some(mode) => {
                let mut store = RootCertStore::empty();
                let (added, _) = store.add_parsable_certificates(self.certificates()?);
                if added == 0 {
                    return Err(DsnError::Certificate("none of the root certificates can be read".to_owned()));
                }
                let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
                Some((inner.build().map_err(|error| failed(&error))?, mode == SslMode::VerifyFull))
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { known, provider }));
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| DsnError::Certificate(format!("the key {} cannot be used: {error}", key.display())))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| failed(&error))
            }
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, DsnError> {
    let failed = |error: &dyn std::fmt::Display| DsnError::Certificate(format!("the certificate {} cannot be used: {error}", file.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?.collect();
    let found = found.map_err(|error| failed(&error))?;
    if found.is_empty() { Err(failed(&"it holds no PEM certificate")) } else { Ok(found) }
}

/// Verifies as far as the mode demands; the handshake's own signatures are verified always.
#[derive(Debug)]
struct Verifier {
    /// The verifier, and whether the host name counts; absent where libpq would take any certificate.
    known: Option<(Arc<WebPkiServerVerifier>, bool)>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((known, name_counts)) = &self.known else {
            return Ok(ServerCertVerified::assertion());
        };
        match known.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: whoever fails there has a good chain.
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) if !name_counts => {
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

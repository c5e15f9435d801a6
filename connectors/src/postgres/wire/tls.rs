//! TLS to a server: whose certificates are believed, and the one hash of a certificate that SCRAM binds a login
//! to (tls-server-end-point, RFC 5929).

use super::error::WireError;
use crate::postgres::settings::TlsMode;
use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::path::Path;
use std::sync::Arc;
use x509_parser::oid_registry as oid;

#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    verifies: bool,
}

impl Tls {
    /// None where the line is to stay in the clear.
    pub(super) fn of(mode: TlsMode, ca_file: Option<&Path>) -> Result<Option<Self>, WireError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let (chain, pinned) = match mode {
            TlsMode::Off => return Ok(None),
            TlsMode::Require => (None, Vec::new()),
            TlsMode::VerifyFull => {
                let pinned = ca_file.map(read).transpose()?;
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(pinned.clone().map_or_else(system, Ok)?);
                let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                (Some(chain.build().map_err(|e| WireError::Tls(e.to_string()))?), pinned.unwrap_or_default())
            }
        };
        let verifies = chain.is_some();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| WireError::Tls(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { chain, pinned, algorithms }))
            .with_no_client_auth();
        Ok(Some(Self { config: Arc::new(config), verifies }))
    }

    /// Whether the other side has proven to be the server that was meant.
    pub(super) fn verifies(&self) -> bool {
        self.verifies
    }

    pub(super) fn connection(&self, host: &str) -> Result<ClientConnection, WireError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| WireError::Tls(format!("`{host}` is no name that a certificate can carry")))?;
        ClientConnection::new(self.config.clone(), name).map_err(|e| WireError::Tls(e.to_string()))
    }
}

/// A handshake that failed, told apart from a line that did.
pub(super) fn refused(host: &str, error: io::Error) -> WireError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => WireError::Tls(format!("{host}: {inner}")),
        None => WireError::Io(error),
    }
}

/// The hash that both ends of one TLS connection see, by the algorithm that the certificate was signed with;
/// none where that names no hash (Ed25519), and then a login cannot be bound.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let signed_with = &parsed.signature_algorithm.algorithm;
    // MD5 and SHA-1 are hashed with SHA-256 in their place, says the RFC.
    let (_, algorithm) = HASHES.iter().find(|(oids, _)| oids.contains(signed_with))?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, WireError> {
    let bad = |what: String| WireError::Tls(format!("{}: {what}", file.display()));
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(e.to_string()))?;
    if found.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(found) }
}

fn system() -> Result<Vec<CertificateDer<'static>>, WireError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
    Err(WireError::Tls(format!(
        "this machine has no CA certificates ({why}): install `ca-certificates`, or name the server's CA with `ca_file`"
    )))
}

/// As webpki, and it takes a certificate that stands itself in `ca_file`: servers often show one they made for
/// themselves, which marks itself as a CA and is refused in a server's place otherwise.
#[derive(Debug)]
struct Verifier {
    /// Absent: anyone is believed.
    chain: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.chain {
            Some(chain) if !self.pinned.contains(leaf) => {
                chain.verify_server_cert(leaf, intermediates, name, ocsp, now)
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

const HASHES: &[(&[oid::Oid<'static>], &digest::Algorithm)] = &[
    (
        &[
            oid::OID_PKCS1_MD5WITHRSAENC,
            oid::OID_PKCS1_SHA1WITHRSA,
            oid::OID_PKCS1_SHA256WITHRSA,
            oid::OID_SIG_ECDSA_WITH_SHA256,
        ],
        &digest::SHA256,
    ),
    (&[oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384], &digest::SHA384),
    (&[oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512], &digest::SHA512),
];

//! A certificate authority of this server's own, made at each start, and the certificate it gave to the server.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{Error, Result};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What accepts TLS, and the authority in PEM.
pub(crate) fn make(names: &[String]) -> Result<(TlsAcceptor, String)> {
    let ca_key = KeyPair::generate().map_err(Error::other)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Posthouse TDS test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key).map_err(Error::other)?;
    let issuer = Issuer::from_params(&ca, &ca_key);

    let key = KeyPair::generate().map_err(Error::other)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(Error::other)?;
    let common = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer).map_err(Error::other)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // TDS 7.4 wraps the handshake in packets of its own, and the tickets of TLS 1.3 come when it is over: servers of
    // that version speak TLS 1.2.
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .map_err(Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone(), ca_certificate.der().clone()], private)
        .map_err(Error::other)?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_certificate.pem()))
}

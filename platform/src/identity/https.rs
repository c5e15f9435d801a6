//! TLS for a web server: the coordinator's HTTP API, under its own CA or a certificate given to it.
//! TLS 1.2 is spoken as well, for the browsers and gateways of others; clients show no certificate here,
//! access is by token.

use super::verify::provider;
use super::{Identity, inside, secret};
use posthouse_protocol::problem::{Code, Problem};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

pub use tokio_rustls::TlsAcceptor;
/// A stream that [`TlsAcceptor`] accepted.
pub use tokio_rustls::server::TlsStream;

/// Serves with the chain and key of `identity`; made anew after a renewal.
pub fn acceptor(identity: &Identity) -> Result<TlsAcceptor, Problem> {
    with(identity.certified()?)
}

/// Serves with a PEM chain (leaf first) and its PEM key, which must be 0600.
pub fn acceptor_from(chain: &Path, key: &Path) -> Result<TlsAcceptor, Problem> {
    let bad = |path: &Path, cause: &str| Problem::new(Code::ConfigMissing).with("file", path.display()).cause(cause);
    let certificates = CertificateDer::pem_slice_iter(&secret::read_public(chain, CHAIN_BYTES_MAX)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| bad(chain, "it holds a damaged certificate"))?;
    if certificates.is_empty() {
        return Err(bad(chain, "it holds no certificate"));
    }
    let text = secret::read_secret(key, secret::SECRET_BYTES_MAX)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| bad(key, "it holds no private key"))?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)
        .map_err(|_| bad(key, "its kind of key is not supported"))?;
    let certified = CertifiedKey::new(certificates, signer);
    certified.keys_match().map_err(|_| bad(key, "it is not the key of the certificate"))?;
    with(Arc::new(certified))
}

fn with(certified: Arc<CertifiedKey>) -> Result<TlsAcceptor, Problem> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| inside("configure TLS", &e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

const CHAIN_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::{Authority, TlsKey, pem, write_public, write_secret};
    use super::*;
    use posthouse_protocol::id::NodeId;
    use posthouse_protocol::time::Timestamp;

    #[test]
    fn a_given_certificate_serves_and_one_of_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let name = NodeId::parse("centre.example").unwrap();
        let now = Timestamp(1_800_000_000_000);
        let authority = Authority::new(&name, TlsKey::generate().unwrap(), now).unwrap();
        let own = TlsKey::generate().unwrap();
        let issued = authority.issue(&own.request(&name).unwrap(), &name, now, 60_000, &[1; 16]).unwrap();
        write_public(&chain, pem("CERTIFICATE", &issued.chain[0]).as_bytes()).unwrap();
        write_secret(&key, pem("PRIVATE KEY", &own.to_pkcs8()).as_bytes()).unwrap();
        assert!(acceptor_from(&chain, &key).is_ok());
        write_secret(&key, pem("PRIVATE KEY", &TlsKey::generate().unwrap().to_pkcs8()).as_bytes()).unwrap();
        assert!(acceptor_from(&chain, &key).is_err());
        assert!(acceptor_from(&key, &key).is_err());
    }
}

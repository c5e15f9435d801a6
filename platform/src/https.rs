//! TLS for the coordinator's HTTP side: one certificate, no client certificates, versions 1.2 and 1.3
//! as browsers speak them. Who may read what is decided above it, by tokens.

use crate::identity::secret::{SECRET_BYTES_MAX, read_public, read_secret};
use crate::identity::verify::provider;
use crate::identity::{Identity, inside};
use posthouse_protocol::problem::{Code, Problem};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A certificate that can be changed while it serves.
pub struct Https {
    config: RwLock<Arc<ServerConfig>>,
}

/// What comes out of a handshake.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Https {
    /// With the certificate of this process under the pinned CA.
    pub fn of_identity(identity: &Identity) -> Result<Self, Problem> {
        Ok(Self { config: RwLock::new(Arc::new(config(identity.certified()?)?)) })
    }

    /// With a given certificate: PEM files, leaf first; the key's is kept secret like any other.
    pub fn of_files(certificate: &Path, key: &Path) -> Result<Self, Problem> {
        let bad =
            |file: &Path, cause: &str| Problem::new(Code::ConfigMissing).with("file", file.display()).cause(cause);
        let text = read_public(certificate, CHAIN_BYTES_MAX)?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad(certificate, "it holds a damaged certificate"))?;
        if chain.is_empty() {
            return Err(bad(certificate, "it holds no certificate"));
        }
        let text = read_secret(key, SECRET_BYTES_MAX)?;
        let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| bad(key, "it holds no private key"))?;
        let certified = CertifiedKey::from_der(chain, private, &provider())
            .map_err(|e| bad(certificate, &format!("it does not belong to the key: {e}")))?;
        Ok(Self { config: RwLock::new(Arc::new(config(certified)?)) })
    }

    /// New handshakes use this identity; open connections go on.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), Problem> {
        let config = Arc::new(config(identity.certified()?)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The handshake of one connection; one that is slow or wrong costs its own connection only.
    pub async fn accept(&self, stream: impl Stream + 'static) -> std::io::Result<Box<dyn Stream>> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(stream) => Ok(Box::new(stream?)),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

fn config(certified: impl Into<SingleCertAndKey>) -> Result<ServerConfig, Problem> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(certified.into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| inside("configure HTTPS", &e))?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

const CHAIN_BYTES_MAX: usize = 256 << 10;
const HANDSHAKE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Authority, TlsKey, pem, write_public, write_secret};
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
        assert!(Https::of_files(&chain, &key).is_ok());
        write_secret(&key, pem("PRIVATE KEY", &TlsKey::generate().unwrap().to_pkcs8()).as_bytes()).unwrap();
        assert!(Https::of_files(&chain, &key).is_err());
        assert!(Https::of_files(&key, &key).is_err());
    }
}

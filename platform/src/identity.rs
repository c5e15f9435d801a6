//! Who a process is: its TLS key, its certificate chain, and the one CA that it trusts.
//! A node's name is the one DNS SAN of its certificate, compared exactly; there are no wildcards and
//! no URI names. Keys never leave the machine they were made on.
//! [`authority`] issues certificates, [`verify`] judges those of others, [`secret`] keeps files 0600,
//! [`token`] is what a node joins with, [`ferry_key`] what is carried in files is sealed to.

pub mod authority;
pub mod ferry_key;
pub mod secret;
pub mod token;
pub mod verify;

pub use authority::{Authority, Issued};
pub use secret::{pem, read_public, read_secret, read_statement_key, write_public, write_secret, write_statement_key};
pub use token::JoinToken;

use crate::random::Random;
use posthouse_protocol::codec::sha256;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rcgen::PublicKeyData;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The key pair behind a certificate.
#[derive(Clone)]
pub struct TlsKey(Arc<rcgen::KeyPair>);

impl TlsKey {
    /// A new ECDSA P-256 key, which every TLS library and browser knows.
    pub fn generate() -> Result<Self, Problem> {
        let pair =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| inside("make a key", &e))?;
        Ok(Self(Arc::new(pair)))
    }
    /// A new key as the world makes them: [`TlsKey::generate`], or from the seed of a simulation.
    pub fn made_with(random: &dyn Random) -> Result<Self, Problem> {
        match random.key_seed() {
            Some(seed) => Self::from_seed(&seed),
            None => Self::generate(),
        }
    }
    /// An Ed25519 key from its seed: the same seed gives the same key, and signatures of one length,
    /// which keeps a simulation the same from run to run.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Problem> {
        Self::from_pkcs8(&secret::ed25519_pkcs8(seed))
    }
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Problem> {
        let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).map_err(|e| inside("read a key", &e))?;
        Ok(Self(Arc::new(pair)))
    }
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.0.serialize_der()
    }
    /// Subject public key info in DER.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
    /// PKCS#10 in DER that asks for a certificate with `node` as its one DNS SAN.
    pub fn request(&self, node: &NodeId) -> Result<Vec<u8>, Problem> {
        let params = authority::named(node).map_err(|e| inside("write a certificate request", &e))?;
        let request = params.serialize_request(self.pair()).map_err(|e| inside("write a certificate request", &e))?;
        Ok(request.der().to_vec())
    }
    pub(crate) fn pair(&self) -> &rcgen::KeyPair {
        &self.0
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsKey")
    }
}

/// A certified name: chain, key and the pinned CA.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    chain: Vec<CertificateDer<'static>>,
    key: TlsKey,
    authority: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
    certified: OnceLock<Arc<rustls::sign::CertifiedKey>>,
}

impl Identity {
    /// `chain` is DER, leaf first; `authority` the CA certificate that this process pins. Refuses a chain
    /// that is not for this key, does not lead to that CA, or does not name exactly one node.
    pub fn new(chain: Vec<Vec<u8>>, key: TlsKey, authority: Vec<u8>) -> Result<Self, Problem> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let authority = CertificateDer::from(authority);
        let bad = |cause: String| Problem::new(Code::CertificateInvalid).with("peer", "this node").cause(cause);
        let leaf = chain.first().ok_or_else(|| bad("it has no certificate".to_owned()))?;
        let facts = verify::facts(leaf).map_err(bad)?;
        if facts.public_key != key.public_key() {
            return Err(bad("it is for another key".to_owned()));
        }
        verify::leads_to(&chain, &authority, facts.not_after).map_err(bad)?;
        Ok(Self {
            node: facts.node,
            key,
            authority,
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain,
            certified: OnceLock::new(),
        })
    }

    /// From what [`Identity::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(IDENTITY_FILE);
        let text = read_secret(&path, IDENTITY_BYTES_MAX)?;
        let bad = |cause: &str| Problem::new(Code::ConfigMissing).with("file", path.display()).cause(cause);
        let chain = CertificateDer::pem_slice_iter(&text)
            .map(|cert| cert.map(|c| c.to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("it holds a damaged certificate"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| bad("it holds no private key"))?;
        let authority = read_certificate(&folder.join(AUTHORITY_FILE))?;
        Self::new(chain, TlsKey::from_pkcs8(key.secret_pkcs8_der())?, authority)
    }

    /// Key and chain in one file, replaced as one, so that a crash between a renewal's two halves
    /// can't leave a key without its certificate; the pinned CA beside it.
    pub fn save(&self, folder: &Path) -> Result<(), Problem> {
        write_public(&folder.join(AUTHORITY_FILE), secret::pem("CERTIFICATE", &self.authority).as_bytes())?;
        let mut text = String::new();
        for certificate in &self.chain {
            text.push_str(&secret::pem("CERTIFICATE", certificate));
        }
        text.push_str(&secret::pem("PRIVATE KEY", &self.key.to_pkcs8()));
        write_secret(&folder.join(IDENTITY_FILE), text.as_bytes())
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }
    pub fn key(&self) -> &TlsKey {
        &self.key
    }
    /// DER, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }
    pub fn authority_sha256(&self) -> [u8; 32] {
        sha256(&self.authority)
    }
    /// Of the leaf.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.chain.first().map(|leaf| sha256(leaf)).unwrap_or_default()
    }
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
    /// Whether a third of the certificate's life has passed, or it has ended.
    pub fn renew_due(&self, now: Timestamp) -> bool {
        now.since_ms(self.not_before) >= self.not_after.since_ms(self.not_before) / 3
    }
    pub fn expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
    /// For TLS; made once, as reading a key costs more than a handshake should.
    pub(crate) fn certified(&self) -> Result<Arc<rustls::sign::CertifiedKey>, Problem> {
        if let Some(made) = self.certified.get() {
            return Ok(made.clone());
        }
        let key = PrivateKeyDer::Pkcs8(self.key.to_pkcs8().into());
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|e| inside("read a key", &e))?;
        let made = Arc::new(rustls::sign::CertifiedKey::new(self.chain.clone(), signer));
        Ok(self.certified.get_or_init(|| made).clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The one certificate of a PEM file, as DER.
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, Problem> {
    let text = secret::read_public(path, IDENTITY_BYTES_MAX)?;
    CertificateDer::from_pem_slice(&text)
        .map(|certificate| certificate.to_vec())
        .map_err(|_| Problem::new(Code::ConfigMissing).with("file", path.display()).cause("it holds no certificate"))
}

pub(crate) fn inside(what: &str, error: &dyn fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(format!("failed to {what}: {error}"))
}

/// Chain and key of a node, 0600.
pub const IDENTITY_FILE: &str = "identity.pem";
/// The pinned CA certificate.
pub const AUTHORITY_FILE: &str = "authority.pem";
const IDENTITY_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn issued(authority: &Authority, name: &str) -> Identity {
        let key = TlsKey::generate().unwrap();
        let issued = authority.issue(&key.request(&node(name)).unwrap(), &node(name), NOW, 60_000, &[1; 16]).unwrap();
        Identity::new(issued.chain, key, authority.certificate().to_vec()).unwrap()
    }

    #[test]
    fn an_identity_reads_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW).unwrap();
        let identity = issued(&authority, "a.example");
        identity.save(folder.path()).unwrap();
        let read = Identity::load(folder.path()).unwrap();
        assert_eq!(read.chain(), identity.chain());
        assert_eq!(read.node(), identity.node());
        assert_eq!(read.key().to_pkcs8(), identity.key().to_pkcs8());
        assert_eq!(read.authority_sha256(), authority.certificate_sha256());
    }

    #[test]
    fn renewal_is_due_after_a_third_of_the_life() {
        let authority = Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW).unwrap();
        let identity = issued(&authority, "a.example");
        let life = identity.not_after().since_ms(identity.not_before());
        assert!(!identity.renew_due(identity.not_before().plus_ms(life / 3 - 1000)));
        assert!(identity.renew_due(identity.not_before().plus_ms(life / 3)));
        assert!(!identity.expired(identity.not_after()));
        assert!(identity.expired(identity.not_after().plus_ms(1)));
    }

    #[test]
    fn a_chain_for_another_key_or_another_ca_is_refused() {
        let authority = Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW).unwrap();
        let other = Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW).unwrap();
        let identity = issued(&authority, "a.example");
        let chain = || identity.chain().iter().map(|c| c.to_vec()).collect::<Vec<_>>();
        assert!(Identity::new(chain(), TlsKey::generate().unwrap(), authority.certificate().to_vec()).is_err());
        assert!(Identity::new(chain(), identity.key().clone(), other.certificate().to_vec()).is_err());
        assert!(Identity::new(Vec::new(), identity.key().clone(), authority.certificate().to_vec()).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_key() {
        let (a, b) = (TlsKey::from_seed(&[3; 32]).unwrap(), TlsKey::from_seed(&[3; 32]).unwrap());
        assert_eq!(a.public_key(), b.public_key());
        assert_ne!(a.public_key(), TlsKey::from_seed(&[4; 32]).unwrap().public_key());
    }
}

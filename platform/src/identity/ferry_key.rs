//! The key that what is carried in files is sealed to: X25519 as PKCS#8 in PEM, which `openssl pkey` reads.
//! Sealing is HPKE (RFC 9180, base mode, X25519, HKDF-SHA256, AES-256-GCM) as rustls brings it. It says nothing of who
//! sealed: that is signed beside it.

use super::secret::{SECRET_BYTES_MAX, pem, read_secret, write_secret};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use posthouse_protocol::problem::{Code, Problem};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
pub use rustls::crypto::hpke::{HpkeOpener, HpkeSealer};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// What others seal to.
pub type FerryPublicKey = [u8; 32];

pub struct FerryKey {
    private: HpkePrivateKey,
    public: FerryPublicKey,
}

impl FerryKey {
    /// From 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Problem> {
        let pair = PrivateKey::from_private_key(&X25519, seed).map_err(|e| super::inside("make a key", &e))?;
        let public = pair.compute_public_key().map_err(|e| super::inside("make a key", &e))?;
        let public = public.as_ref().try_into().map_err(|e| super::inside("make a key", &e))?;
        Ok(Self { private: HpkePrivateKey::from(seed.to_vec()), public })
    }

    /// The key kept at `path`; made from `seed` and kept there where there is none.
    pub fn kept(path: &Path, seed: &[u8; 32]) -> Result<Self, Problem> {
        if !path.exists() {
            write_secret(path, pem("PRIVATE KEY", &[PKCS8_PREFIX, seed.as_slice()].concat()).as_bytes())?;
        }
        let text = read_secret(path, SECRET_BYTES_MAX)?;
        let bad = || Problem::new(Code::ConfigMissing).with("file", path.display()).cause("it holds no X25519 key");
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| bad())?;
        let seed = der.secret_pkcs8_der().strip_prefix(PKCS8_PREFIX).ok_or_else(bad)?;
        Self::from_seed(seed.try_into().map_err(|_| bad())?)
    }

    pub fn public(&self) -> &FerryPublicKey {
        &self.public
    }

    /// Opens, in their order, what was sealed with this encapsulated secret. `info` says what it was sealed for.
    pub fn opener(&self, secret: &[u8], info: &[u8]) -> Result<Box<dyn HpkeOpener>, Problem> {
        let secret = EncapsulatedSecret(secret.to_vec());
        SUITE.setup_opener(&secret, info, &self.private).map_err(|e| super::inside("open what was sealed", &e))
    }
}

/// Seals to a key, piece by piece; with the encapsulated secret that its owner needs.
pub fn sealer(to: &FerryPublicKey, info: &[u8]) -> Result<(Vec<u8>, Box<dyn HpkeSealer>), Problem> {
    let (secret, sealer) =
        SUITE.setup_sealer(info, &HpkePublicKey(to.to_vec())).map_err(|e| super::inside("seal", &e))?;
    Ok((secret.0, sealer))
}

/// Length of an encapsulated secret.
pub const SECRET_BYTES: usize = 32;
/// What a sealed piece is longer by.
pub const SEAL_BYTES: usize = 16;
/// Everything of an X25519 PKCS#8 (version 1) before its private key.
const PKCS8_PREFIX: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_to_a_key_opens_with_it_in_order_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ferry.pem");
        let key = FerryKey::kept(&path, &[7; 32]).unwrap();
        // The file counts, not what would be made now.
        assert_eq!(FerryKey::kept(&path, &[8; 32]).unwrap().public(), key.public());
        let (secret, mut sealer) = sealer(key.public(), b"test").unwrap();
        assert_eq!(secret.len(), SECRET_BYTES);
        let first = sealer.seal(b"0", b"one").unwrap();
        let second = sealer.seal(b"1", b"two").unwrap();
        assert_eq!(first.len(), 3 + SEAL_BYTES);
        let mut opener = key.opener(&secret, b"test").unwrap();
        assert_eq!(opener.open(b"0", &first).unwrap(), b"one");
        assert_eq!(opener.open(b"1", &second).unwrap(), b"two");
        let mut turned = key.opener(&secret, b"test").unwrap();
        assert!(turned.open(b"1", &second).is_err());
        let other = FerryKey::from_seed(&[9; 32]).unwrap();
        assert!(other.opener(&secret, b"test").unwrap().open(b"0", &first).is_err());
        assert!(key.opener(&secret, b"else").unwrap().open(b"0", &first).is_err());
    }
}

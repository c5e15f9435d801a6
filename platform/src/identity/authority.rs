//! The coordinator's private CA: makes itself, and certifies a key that asks, for one exact name and a
//! bounded life. Nothing of a request but its key is taken over; who may have which name is decided
//! by the coordinator's membership.

use super::{TlsKey, inside, read_certificate, read_secret, secret, write_public, write_secret};
use posthouse_protocol::codec::sha256;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::time::Duration;

pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, TlsKeyPair>,
    key: TlsKey,
    not_after: Timestamp,
}

/// A certificate as it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// DER, leaf first, CA last.
    pub chain: Vec<Vec<u8>>,
    pub serial: [u8; 16],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub public_key_sha256: [u8; 32],
    pub certificate_sha256: [u8; 32],
}

impl Authority {
    /// A new CA of the coordinator `name`, valid for [`AUTHORITY_YEARS`].
    pub fn new(name: &NodeId, key: TlsKey, now: Timestamp) -> Result<Self, Problem> {
        let mut params = CertificateParams::default();
        params.not_before = date(rcgen::date_time_ymd(1970, 1, 1), now.plus_ms(-limits::CLOCK_SKEW_MS));
        params.not_after = date(rcgen::date_time_ymd(1970, 1, 1), now.plus_ms(AUTHORITY_YEARS * 366 * 86_400_000));
        params.distinguished_name = common_name(&format!("Posthouse CA {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Derived from the key, so that the same key makes the same certificate.
        params.serial_number = Some(SerialNumber::from_slice(&positive(&sha256(&key.public_key())[..16])));
        let certificate = params.self_signed(key.pair()).map_err(|e| inside("make the CA", &e))?;
        Self::from_parts(certificate.der().clone(), key)
    }

    /// Reads what [`Authority::save`] wrote.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(AUTHORITY_KEY_FILE);
        let text = read_secret(&path, secret::SECRET_BYTES_MAX)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| {
            Problem::new(Code::ConfigMissing).with("file", path.display()).cause("it holds no private key")
        })?;
        let key = TlsKey::from_pkcs8(key.secret_pkcs8_der())?;
        Self::from_parts(read_certificate(&folder.join(AUTHORITY_CERTIFICATE_FILE))?.into(), key)
    }

    pub fn save(&self, folder: &Path) -> Result<(), Problem> {
        let key = secret::pem("PRIVATE KEY", &self.key.to_pkcs8());
        write_secret(&folder.join(AUTHORITY_KEY_FILE), key.as_bytes())?;
        write_public(&folder.join(AUTHORITY_CERTIFICATE_FILE), self.certificate_pem().as_bytes())
    }

    fn from_parts(certificate: CertificateDer<'static>, key: TlsKey) -> Result<Self, Problem> {
        let bad = |cause: String| Problem::new(Code::CertificateInvalid).with("peer", "the CA").cause(cause);
        let (public_key, not_after) = super::verify::authority_facts(&certificate).map_err(bad)?;
        if public_key != key.public_key() {
            return Err(bad("it is for another key".to_owned()));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, TlsKeyPair(key.clone())).map_err(|e| inside("read the CA", &e))?;
        Ok(Self { certificate, issuer, key, not_after })
    }

    /// Certifies the key of a PKCS#10 for `node`, for `life_ms` from `now`. The request must be signed by
    /// its key and ask for exactly that name. `serial` is 16 random bytes.
    pub fn issue(
        &self,
        request: &[u8],
        node: &NodeId,
        now: Timestamp,
        life_ms: i64,
        serial: &[u8; 16],
    ) -> Result<Issued, Problem> {
        let refuse = |cause: &str| Problem::new(Code::CertificateInvalid).with("peer", node).cause(cause);
        if request.len() > REQUEST_BYTES_MAX {
            return Err(refuse("its certificate request is too long"));
        }
        let asked = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|e| refuse(&format!("its certificate request is not acceptable: {e}")))?;
        let wanted = named(node).map_err(|e| inside("write a certificate", &e))?;
        if asked.params.subject_alt_names != wanted.subject_alt_names {
            return Err(refuse("its certificate request is for another name"));
        }
        let algorithm = asked.public_key.algorithm();
        if *algorithm != rcgen::PKCS_ECDSA_P256_SHA256 && *algorithm != rcgen::PKCS_ED25519 {
            return Err(refuse("its key is neither ECDSA P-256 nor Ed25519"));
        }
        let (not_before, not_after) = (now.plus_ms(-limits::CLOCK_SKEW_MS), now.plus_ms(life_ms).min(self.not_after));
        let serial = positive(serial);
        let mut params = wanted;
        params.not_before = date(rcgen::date_time_ymd(1970, 1, 1), not_before);
        params.not_after = date(rcgen::date_time_ymd(1970, 1, 1), not_after);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.use_authority_key_identifier_extension = true;
        let certificate =
            params.signed_by(&asked.public_key, &self.issuer).map_err(|e| inside("sign a certificate", &e))?;
        Ok(Issued {
            public_key_sha256: sha256(&rcgen::PublicKeyData::subject_public_key_info(&asked.public_key)),
            certificate_sha256: sha256(certificate.der()),
            chain: vec![certificate.der().to_vec(), self.certificate.to_vec()],
            serial,
            not_before: whole_seconds(not_before),
            not_after: whole_seconds(not_after),
        })
    }

    /// DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
    pub fn certificate_pem(&self) -> String {
        secret::pem("CERTIFICATE", &self.certificate)
    }
    pub fn certificate_sha256(&self) -> [u8; 32] {
        sha256(&self.certificate)
    }
}

/// The parameters every node certificate shares: one DNS SAN, both TLS roles.
pub(super) fn named(node: &NodeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    // The subject has room for 64 characters only; the SAN alone counts.
    params.distinguished_name = common_name(&node.as_str().chars().take(64).collect::<String>());
    params.subject_alt_names = vec![SanType::DnsName(node.as_str().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// rcgen signs through its trait; the key is shared, not copied.
struct TlsKeyPair(TlsKey);

impl rcgen::PublicKeyData for TlsKeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair().der_bytes()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen::PublicKeyData::algorithm(self.0.pair())
    }
}
impl rcgen::SigningKey for TlsKeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        rcgen::SigningKey::sign(self.0.pair(), message)
    }
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// A serial number is a positive integer; its first byte is kept in 0x40..0x80, so that all have one length.
fn positive(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out[0] = out[0] & 0x3f | 0x40;
    out
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp(time.0.div_euclid(1000) * 1000)
}

/// `epoch` is 1970 in rcgen's type, which is not otherwise named here.
fn date<T: std::ops::Add<Duration, Output = T>>(epoch: T, time: Timestamp) -> T {
    epoch + Duration::from_millis(u64::try_from(whole_seconds(time).0).unwrap_or(0))
}

pub const AUTHORITY_KEY_FILE: &str = "ca.key";
pub const AUTHORITY_CERTIFICATE_FILE: &str = "ca.pem";
pub const AUTHORITY_YEARS: i64 = 20;
pub const REQUEST_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }
    fn authority() -> Authority {
        Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW).unwrap()
    }

    #[test]
    fn a_ca_reads_back_and_goes_on_issuing() {
        let folder = tempfile::tempdir().unwrap();
        let made = authority();
        made.save(folder.path()).unwrap();
        let read = Authority::load(folder.path()).unwrap();
        assert_eq!(read.certificate_sha256(), made.certificate_sha256());
        let key = TlsKey::generate().unwrap();
        let request = key.request(&node("a.example")).unwrap();
        let issued = read.issue(&request, &node("a.example"), NOW, 1000, &[9; 16]).unwrap();
        assert!(super::super::Identity::new(issued.chain, key, made.certificate().to_vec()).is_ok());
    }

    #[test]
    fn a_request_for_another_name_or_with_a_broken_signature_is_refused() {
        let authority = authority();
        let key = TlsKey::generate().unwrap();
        let mut request = key.request(&node("a.example")).unwrap();
        assert!(authority.issue(&request, &node("b.example"), NOW, 1000, &[1; 16]).is_err());
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(authority.issue(&request, &node("a.example"), NOW, 1000, &[1; 16]).is_err());
        assert!(authority.issue(&[0; 10], &node("a.example"), NOW, 1000, &[1; 16]).is_err());
        assert!(authority.issue(&[0x30; 10_000], &node("a.example"), NOW, 1000, &[1; 16]).is_err());
    }

    #[test]
    fn a_name_of_digits_and_dots_is_still_a_dns_name() {
        let authority = authority();
        let key = TlsKey::generate().unwrap();
        let name = node("10.0.0.1");
        let issued = authority.issue(&key.request(&name).unwrap(), &name, NOW, 1000, &[1; 16]).unwrap();
        assert_eq!(
            *super::super::Identity::new(issued.chain, key, authority.certificate().to_vec()).unwrap().node(),
            name
        );
    }

    #[test]
    fn no_certificate_outlives_its_ca() {
        let authority = authority();
        let key = TlsKey::generate().unwrap();
        let name = node("a.example");
        let issued = authority.issue(&key.request(&name).unwrap(), &name, NOW, i64::MAX, &[1; 16]).unwrap();
        assert_eq!(issued.not_after, authority.not_after);
    }

    #[test]
    fn the_same_seed_makes_the_same_ca() {
        let make = || Authority::new(&node("centre.example"), TlsKey::from_seed(&[1; 32]).unwrap(), NOW).unwrap();
        assert_eq!(make().certificate_sha256(), make().certificate_sha256());
    }
}

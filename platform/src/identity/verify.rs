//! Judges the certificates that others present, and keeps the true reason of a refusal: expired is told
//! apart from not yet valid (a clock error), from another CA, from another name, and from revoked.
//! The chain is verified before anything else in a certificate is looked at.

use crate::clock::Clock;
use posthouse_protocol::codec::sha256;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Names whose handshakes are refused; shared by an endpoint with all its handshakes.
#[derive(Clone, Default)]
pub struct Denied(Arc<RwLock<BTreeSet<NodeId>>>);

impl Denied {
    pub fn set(&self, names: impl IntoIterator<Item = NodeId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names.into_iter().collect();
    }
    pub fn contains(&self, name: &NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

/// Whom a handshake trusts.
#[derive(Clone)]
pub enum Trust {
    /// This CA certificate.
    Authority(CertificateDer<'static>),
    /// The CA certificate with this SHA-256, which must be in the chain presented.
    AuthoritySha256([u8; 32]),
}

/// One handshake's judge: made for it, asked by rustls, and afterwards holds why it refused.
pub struct Judge {
    trust: Trust,
    /// The name that must be presented; None accepts any certified name.
    expected: Option<NodeId>,
    /// Accept a peer without a certificate; what it may then do is decided by its ALPN.
    anonymous: bool,
    denied: Denied,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
    verdict: Mutex<Option<Problem>>,
}

impl Judge {
    pub fn new(
        trust: Trust,
        expected: Option<NodeId>,
        anonymous: bool,
        denied: Denied,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let verdict = Mutex::new(None);
        Arc::new(Self { trust, expected, anonymous, denied, clock, provider: provider(), verdict })
    }

    /// Why the last certificate was refused.
    pub fn refusal(&self) -> Option<Problem> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn decide(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], server: bool) -> Result<(), Error> {
        self.judge(leaf, rest, server).map_err(|problem| {
            let error = match problem.code {
                Code::CertificateExpired => CertificateError::Expired,
                Code::ClockWrong => CertificateError::NotValidYet,
                Code::NodeRevoked => CertificateError::Revoked,
                Code::WrongAuthority | Code::CertificateOfOther => CertificateError::UnknownIssuer,
                _ => CertificateError::ApplicationVerificationFailure,
            };
            *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            Error::InvalidCertificate(error)
        })
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], server: bool) -> Result<(), Problem> {
        let peer = self.expected.as_ref().map_or("the peer", NodeId::as_str);
        let invalid = |cause: String| Problem::new(Code::CertificateInvalid).with("peer", peer).cause(cause);
        if rest.len() > CHAIN_MAX || leaf.len() + rest.iter().map(|c| c.len()).sum::<usize>() > CHAIN_BYTES_MAX {
            return Err(invalid("its certificate chain is too long".to_owned()));
        }
        let authority = match &self.trust {
            Trust::Authority(certificate) => certificate.clone(),
            Trust::AuthoritySha256(hash) => match rest.iter().find(|c| sha256(c) == *hash) {
                Some(certificate) => certificate.clone().into_owned(),
                None => {
                    return Err(Problem::new(Code::WrongAuthority)
                        .with("peer", peer)
                        .cause("its CA is not the one whose fingerprint the token carries"));
                }
            },
        };
        let now = self.clock.now();
        let time_error = match self.chain(leaf, rest, &authority, unix(now), server) {
            Ok(()) => None,
            Err(Error::InvalidCertificate(error)) => match time_of(&error) {
                Some(edge) => {
                    // Dates are read before signatures: whether the chain is ours at all is asked again
                    // for a moment at which its dates hold.
                    self.chain(leaf, rest, &authority, edge, server).map_err(|e| self.stranger(peer, &e))?;
                    Some(error)
                }
                None => return Err(self.stranger(peer, &Error::InvalidCertificate(error))),
            },
            Err(error) => return Err(self.stranger(peer, &error)),
        };
        let facts = facts(leaf).map_err(invalid)?;
        if let Some(expected) = &self.expected
            && facts.node != *expected
        {
            return Err(match self.trust {
                Trust::AuthoritySha256(_) => Problem::new(Code::WrongAuthority),
                Trust::Authority(_) => Problem::new(Code::CertificateInvalid),
            }
            .with("peer", expected)
            .cause(format!("it is certified as {}", facts.node)));
        }
        if self.denied.contains(&facts.node) {
            return Err(Problem::new(Code::NodeRevoked).with("node", facts.node));
        }
        match time_error {
            None => Ok(()),
            Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                let seconds = facts.not_before.since_ms(now).max(0).div_euclid(1000);
                Err(Problem::new(Code::ClockWrong)
                    .with("seconds", format!("≥{seconds}"))
                    .with("peer", &facts.node)
                    .with("local_time", now)
                    .cause(format!("the certificate of {} is valid only from {}", facts.node, facts.not_before)))
            }
            Some(_) => Err(Problem::new(Code::CertificateExpired)
                .with("peer", &facts.node)
                .with("expired", facts.not_after)
                .with("local_time", now)
                .cause(format!("it ended at {}; the clock here says {now}", facts.not_after))),
        }
    }

    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        authority: &CertificateDer<'static>,
        at: UnixTime,
        server: bool,
    ) -> Result<(), Error> {
        let roots = roots(authority)?;
        if server {
            let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, rest, at, algorithms)
        } else {
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|e| Error::General(e.to_string()))?
                .verify_client_cert(leaf, rest, at)
                .map(|_| ())
        }
    }

    fn stranger(&self, peer: &str, error: &Error) -> Problem {
        let unknown = matches!(
            error,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
        );
        match (&self.trust, unknown) {
            (Trust::AuthoritySha256(_), true) => Problem::new(Code::WrongAuthority)
                .with("peer", peer)
                .cause("its certificate does not come from the CA that it shows"),
            (Trust::Authority(_), true) => Problem::new(Code::CertificateOfOther)
                .with("peer", peer)
                .cause("it was not issued by the CA that this node pinned when it joined"),
            _ => Problem::new(Code::CertificateInvalid).with("peer", peer).cause(error),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.decide(end_entity, intermediates, true).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        !self.anonymous
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.decide(end_entity, intermediates, false).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a node's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub node: NodeId,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Subject public key info in DER.
    pub public_key: Vec<u8>,
}

/// Reads a node's certificate; the reason reads well after "the certificate is not accepted:".
pub fn facts(certificate: &[u8]) -> Result<Facts, String> {
    use x509_parser::extensions::GeneralName;
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|e| e.to_string())?.ok_or("it carries no name")?;
    let node = match names.value.general_names.as_slice() {
        [GeneralName::DNSName(name)] => NodeId::parse(name).map_err(|e| e.to_string())?,
        _ => return Err("it does not carry exactly one DNS name".to_owned()),
    };
    Ok(Facts {
        node,
        not_before: Timestamp(parsed.validity().not_before.timestamp().saturating_mul(1000)),
        not_after: Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)),
        public_key: parsed.public_key().raw.to_vec(),
    })
}

/// Public key and end of a CA certificate.
pub(super) fn authority_facts(certificate: &[u8]) -> Result<(Vec<u8>, Timestamp), String> {
    let parsed = parse(certificate)?;
    if !parsed.is_ca() {
        return Err("it is not the certificate of a CA".to_owned());
    }
    let not_after = Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000));
    Ok((parsed.public_key().raw.to_vec(), not_after))
}

/// Whether `chain` is signed by `authority`, apart from dates.
pub(super) fn leads_to(
    chain: &[CertificateDer<'_>],
    authority: &CertificateDer<'static>,
    at: Timestamp,
) -> Result<(), String> {
    let (leaf, rest) = chain.split_first().ok_or("it has no certificate")?;
    let parsed = rustls::server::ParsedCertificate::try_from(leaf).map_err(|e| e.to_string())?;
    let algorithms = provider().signature_verification_algorithms.all;
    let roots = roots(authority).map_err(|e| e.to_string())?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, rest, unix(at), algorithms)
        .map_err(|e| e.to_string())
}

/// The cryptography of every handshake.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

fn parse(certificate: &[u8]) -> Result<x509_parser::certificate::X509Certificate<'_>, String> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err("it is not well-formed".to_owned()),
    }
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

/// For an error about dates, a moment at which the certificate's own dates hold.
fn time_of(error: &CertificateError) -> Option<UnixTime> {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(*not_after),
        CertificateError::NotValidYetContext { not_before, .. } => Some(*not_before),
        _ => None,
    }
}

fn unix(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(time.0).unwrap_or(0)))
}

/// Certificates beside the leaf, and the whole chain's size.
const CHAIN_MAX: usize = 4;
const CHAIN_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Authority, TlsKey};
    use rcgen::{CertificateParams, Issuer, SanType};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const DAY: i64 = 86_400_000;

    struct Fixed(Timestamp);
    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            self.0
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn authority() -> Authority {
        Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), NOW.plus_ms(-30 * DAY)).unwrap()
    }

    fn issued(authority: &Authority, name: &str, from: Timestamp, life_ms: i64) -> Vec<Vec<u8>> {
        let request = TlsKey::generate().unwrap().request(&node(name)).unwrap();
        authority.issue(&request, &node(name), from, life_ms, &[1; 16]).unwrap().chain
    }

    fn verdict(trust: Trust, expected: Option<&str>, chain: &[Vec<u8>], now: Timestamp, server: bool) -> Option<Code> {
        let judge = Judge::new(trust, expected.map(node), false, Denied::default(), Arc::new(Fixed(now)));
        let chain: Vec<_> = chain.iter().map(|c| CertificateDer::from(c.clone())).collect();
        let ok = judge.decide(&chain[0], &chain[1..], server).is_ok();
        let refusal = judge.refusal().map(|problem| problem.code);
        assert_eq!(ok, refusal.is_none());
        refusal
    }

    fn both(authority: &Authority, expected: Option<&str>, chain: &[Vec<u8>], now: Timestamp) -> Option<Code> {
        let trust = || Trust::Authority(authority.certificate().clone());
        let one = verdict(trust(), expected, chain, now, true);
        assert_eq!(one, verdict(trust(), expected, chain, now, false), "both directions judge alike");
        one
    }

    #[test]
    fn dates_names_and_cas_are_told_apart() {
        let (ours, theirs) = (authority(), authority());
        let good = issued(&ours, "a.example", NOW, DAY);
        assert_eq!(both(&ours, Some("a.example"), &good, NOW), None);
        assert_eq!(both(&ours, None, &good, NOW), None);
        assert_eq!(both(&ours, Some("b.example"), &good, NOW), Some(Code::CertificateInvalid));
        assert_eq!(both(&ours, Some("a.example"), &good, NOW.plus_ms(2 * DAY)), Some(Code::CertificateExpired));
        assert_eq!(both(&ours, Some("a.example"), &good, NOW.plus_ms(-2 * DAY)), Some(Code::ClockWrong));
        assert_eq!(both(&theirs, Some("a.example"), &good, NOW), Some(Code::CertificateOfOther));
        // Of another CA and out of date as well: the CA is what counts.
        assert_eq!(both(&theirs, Some("a.example"), &good, NOW.plus_ms(2 * DAY)), Some(Code::CertificateOfOther));
        // Out of date under another name: the name is what counts.
        assert_eq!(both(&ours, Some("b.example"), &good, NOW.plus_ms(2 * DAY)), Some(Code::CertificateInvalid));
    }

    #[test]
    fn a_revoked_name_is_refused_even_when_it_is_out_of_date() {
        let ours = authority();
        let chain = issued(&ours, "a.example", NOW, DAY);
        let denied = Denied::default();
        denied.set([node("a.example")]);
        for now in [NOW, NOW.plus_ms(2 * DAY)] {
            let trust = Trust::Authority(ours.certificate().clone());
            let judge = Judge::new(trust, None, false, denied.clone(), Arc::new(Fixed(now)));
            assert!(judge.decide(&chain[0].clone().into(), &[chain[1].clone().into()], false).is_err());
            assert_eq!(judge.refusal().unwrap().code, Code::NodeRevoked);
        }
    }

    #[test]
    fn joining_takes_the_ca_of_the_token_and_no_other() {
        let (ours, theirs) = (authority(), authority());
        let chain = issued(&ours, "centre.example", NOW, DAY);
        let by = |a: &Authority| Trust::AuthoritySha256(a.certificate_sha256());
        assert_eq!(verdict(by(&ours), Some("centre.example"), &chain, NOW, true), None);
        assert_eq!(verdict(by(&theirs), Some("centre.example"), &chain, NOW, true), Some(Code::WrongAuthority));
        // The right CA is shown, but the certificate is not from it.
        let forged = vec![issued(&theirs, "centre.example", NOW, DAY)[0].clone(), ours.certificate().to_vec()];
        assert_eq!(verdict(by(&ours), Some("centre.example"), &forged, NOW, true), Some(Code::WrongAuthority));
    }

    #[test]
    fn only_one_exact_dns_name_is_a_name() {
        let ours = authority();
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = SanType::URI("spiffe://x/a.example".try_into().unwrap());
        for names in [
            vec![],
            vec![dns("*.example")],
            vec![dns("A.example")],
            vec![dns("a.example"), dns("b.example")],
            vec![dns("a.example"), uri.clone()],
            vec![uri],
            vec![SanType::IpAddress("10.0.0.1".parse().unwrap())],
        ] {
            let chain = signed(&ours, names.clone());
            assert_eq!(both(&ours, Some("a.example"), &chain, NOW), Some(Code::CertificateInvalid), "{names:?}");
            assert_eq!(both(&ours, None, &chain, NOW), Some(Code::CertificateInvalid), "{names:?}");
        }
        assert_eq!(both(&ours, Some("a.example"), &signed(&ours, vec![dns("a.example")]), NOW), None);
    }

    #[test]
    fn damaged_long_and_foreign_certificates_are_refused() {
        let ours = authority();
        let good = issued(&ours, "a.example", NOW, DAY);
        let refused = |chain: &[Vec<u8>]| {
            let trust = || Trust::Authority(ours.certificate().clone());
            [true, false].iter().all(|server| verdict(trust(), None, chain, NOW, *server).is_some())
        };
        for (bit, byte) in (0..good[0].len()).step_by(7).enumerate() {
            let mut bad = good.clone();
            bad[0][byte] ^= 1 << (bit % 8);
            assert!(refused(&bad), "byte {byte}");
        }
        for bad in [vec![vec![]], vec![vec![0x30; 100]], vec![vec![0; 40_000]], vec![good[0].clone(); 9]] {
            assert!(refused(&bad));
        }
        // The CA's own certificate names no node.
        assert!(refused(&[ours.certificate().to_vec()]));
    }

    /// What a careless CA might sign.
    fn signed(authority: &Authority, names: Vec<SanType>) -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        authority.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("ca.key")).unwrap();
        let issuer =
            Issuer::from_ca_cert_der(authority.certificate(), rcgen::KeyPair::from_pem(&text).unwrap()).unwrap();
        let mut params: CertificateParams = super::super::authority::named(&node("a.example")).unwrap();
        params.subject_alt_names = names;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        vec![params.signed_by(&key, &issuer).unwrap().der().to_vec(), authority.certificate().to_vec()]
    }
}

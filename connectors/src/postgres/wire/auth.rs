//! From an open line to a session: start-up message, proof of who this is, key for cancelling. A password in the clear
//! leaves only where nobody else can read it.

use super::error::{ServerError, WireError, unsayable};
use super::gauss::{self, Challenge, Kept};
use super::link::{Head, Link};
use super::stream::Privacy;
use super::tls;
use crate::postgres::settings::Settings;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    In {
        process: i32,
        /// Whoever knows it may cancel what runs there.
        key: i32,
    },
    /// The server is an openGauss: it wants to be spoken to in [`gauss::VERSION`].
    SpeakGauss,
}

/// Ends where the server is ready for the first statement, whose message is read.
pub(super) fn login(
    link: &mut Link,
    settings: &Settings,
    privacy: Privacy,
    speak_gauss: bool,
) -> Result<Login, WireError> {
    let parameters =
        [("user", settings.user.as_str()), ("database", &settings.database), ("client_encoding", "UTF8"), NAME];
    frontend::startup_message(parameters, &mut link.out).map_err(unsayable)?;
    if speak_gauss && let Some(version) = link.out.get_mut(4..8) {
        version.copy_from_slice(&gauss::VERSION);
    }
    link.send()?;
    let mut proof = Proof { link, settings, privacy, speak_gauss, scram: None };
    let (mut process, mut key) = (0, 0);
    loop {
        let head = proof.link.head()?;
        if head.tag == backend::AUTHENTICATION_TAG {
            match proof.answer(head)? {
                Asked::Answered => continue,
                Asked::SpeakGauss => return Ok(Login::SpeakGauss),
            }
        }
        match proof.link.message_of(head)? {
            Message::BackendKeyData(data) => (process, key) = (data.process_id(), data.secret_key()),
            Message::ErrorResponse(error) => {
                proof.link.break_off();
                return Err(WireError::Server(Box::new(ServerError::parse(error.fields())?)));
            }
            Message::ReadyForQuery(_) => return Ok(Login::In { process, key }),
            _ => return Err(proof.link.garbled("something else in a login")),
        }
    }
}

struct Proof<'a> {
    link: &'a mut Link,
    settings: &'a Settings,
    privacy: Privacy,
    speak_gauss: bool,
    scram: Option<ScramSha256>,
}

enum Asked {
    Answered,
    SpeakGauss,
}

impl Proof<'_> {
    fn answer(&mut self, head: Head) -> Result<Asked, WireError> {
        let content = self.link.raw(head)?;
        let Some((request, rest)) = content.split_first_chunk::<4>() else {
            return Err(self.link.garbled("an authentication request without a number"));
        };
        match u32::from_be_bytes(*request) {
            OK if self.scram.is_none() => {}
            CLEARTEXT => self.cleartext()?,
            MD5 => {
                let salt = rest.try_into().map_err(|_| self.link.garbled("a salt of another length"))?;
                let password = self.password()?;
                self.send_password(md5_hash(self.settings.user.as_bytes(), &password, salt).as_bytes())?;
            }
            // A list of mechanisms is text; the number that openGauss begins with starts with a zero byte.
            SASL if rest.first().is_some_and(|first| *first != 0) => self.scram(rest)?,
            SASL if self.speak_gauss => self.gauss(rest, Kept::Sha256)?,
            SM3 if self.speak_gauss => self.gauss(rest, Kept::Sm3)?,
            SASL | SM3 => return Ok(Asked::SpeakGauss),
            SASL_CONTINUE if self.scram.is_some() => self.scram_continue(rest)?,
            SASL_FINAL if self.scram.is_some() => {
                let proven = self.scram.take().map_or(Ok(()), |mut scram| scram.finish(rest));
                proven.map_err(|_| unproven())?;
            }
            OK => return Err(unproven()),
            other => {
                let name = METHODS.iter().find(|(number, _)| *number == other).map_or("unknown", |(_, name)| *name);
                return Err(WireError::Auth(format!(
                    "the server asks for {name} (request {other}), which Posthouse does not have: \
                     let this account in by scram-sha-256 (openGauss: sha256) in pg_hba.conf"
                )));
            }
        }
        Ok(Asked::Answered)
    }

    fn cleartext(&mut self) -> Result<(), WireError> {
        if self.privacy != Privacy::Private {
            return Err(WireError::Auth(
                "the server asks for the password in the clear, on a line where others may read it: let this \
                 account in by scram-sha-256 in pg_hba.conf, or set `tls = \"verify-full\"`"
                    .to_owned(),
            ));
        }
        let password = self.password()?;
        self.send_password(&password)
    }

    fn scram(&mut self, mechanisms: &[u8]) -> Result<(), WireError> {
        let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
        let end_point = self.link.stream().certificate().and_then(tls::end_point);
        let (mechanism, binding) = match end_point {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))
            }
            _ if !offers(SCRAM_SHA_256) => {
                let offered = String::from_utf8_lossy(mechanisms).replace('\0', " ");
                return Err(WireError::Auth(format!("the server asks for SASL by {}", offered.trim())));
            }
            // Signed by the login, so that nobody in between can have left the binding out of the offer.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        let password = self.password()?;
        let scram = ScramSha256::new(&password, binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut self.link.out).map_err(unsayable)?;
        self.scram = Some(scram);
        self.link.send()
    }

    fn scram_continue(&mut self, challenge: &[u8]) -> Result<(), WireError> {
        let Some(scram) = &mut self.scram else { return Ok(()) };
        scram.update(challenge).map_err(|e| WireError::Auth(format!("the server's challenge: {e}")))?;
        frontend::sasl_response(scram.message(), &mut self.link.out).map_err(unsayable)?;
        self.link.send()
    }

    fn gauss(&mut self, content: &[u8], kept: Kept) -> Result<(), WireError> {
        let challenge = Challenge::parse(content, kept)
            .ok_or_else(|| WireError::Auth("the server's challenge is none of openGauss's".to_owned()))?;
        let password = self.password()?;
        self.send_password(challenge.answer(&password, kept).as_bytes())
    }

    fn send_password(&mut self, answer: &[u8]) -> Result<(), WireError> {
        frontend::password_message(answer, &mut self.link.out).map_err(unsayable)?;
        self.link.send()
    }

    fn password(&self) -> Result<Vec<u8>, WireError> {
        self.settings.password()?.ok_or_else(|| {
            WireError::Auth(format!(
                "the server asks for the password of `{}`: name the file that holds it with `password_file`",
                self.settings.user
            ))
        })
    }
}

fn unproven() -> WireError {
    WireError::Auth("the server did not prove that it knows the password".to_owned())
}

const NAME: (&str, &str) = ("application_name", "posthouse");

const OK: u32 = 0;
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
/// In openGauss: its SHA256 challenge.
const SASL: u32 = 10;
/// In openGauss: MD5 over the SHA-256 it keeps, without telling how often it hashed.
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;
const SM3: u32 = 13;
/// What else servers ask for, for the words of a refusal.
const METHODS: &[(u32, &str)] = &[
    (2, "Kerberos V5"),
    (6, "SCM credentials"),
    (7, "GSSAPI"),
    (8, "GSSAPI"),
    (9, "SSPI"),
    (SASL_CONTINUE, "openGauss's MD5 over SHA256"),
    (SASL_FINAL, "openGauss's RSA"),
];

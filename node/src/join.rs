//! Becoming a node: joining with a token, coming back with an expired certificate, and what is kept of it.
//! The keys are made here and never leave; the CA, the policy key and the ledger key are pinned from the
//! token and the coordinator's first answer. Nothing is kept of a join that was not completed.

use crate::config::Config;
use crate::store::Store;
use crate::store::meta::{self, StoredPolicy};
use posthouse_platform::World;
use posthouse_platform::endpoint::{self, Connection, Dial, DialTrust, Endpoint, Listen, TransportChoice};
use posthouse_platform::frames;
use posthouse_platform::identity::ferry_key::FerryKey;
use posthouse_platform::identity::{self, Identity, JoinToken, TlsKey};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Join, Joined, Profile, Return};
use posthouse_protocol::codec::sha256;
use posthouse_protocol::cose::PublicKey;
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::ledger::LedgerKey;
use posthouse_protocol::limits;
use posthouse_protocol::policy::Policy;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::{Ed25519Signer, Signer};
use posthouse_protocol::time::Timestamp;
use rusqlite::Connection as Db;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a node has pinned of its coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub coordinator: NodeId,
    pub policy_key: PublicKey,
    pub ledger_vkey: String,
}

impl Pinned {
    /// None before the node has joined.
    pub fn load(db: &Db) -> Result<Option<Self>, Problem> {
        let text = |key| Ok::<_, Problem>(meta::get(db, key)?.and_then(|bytes| String::from_utf8(bytes).ok()));
        let (Some(name), Some(key), Some(ledger_vkey)) =
            (text(COORDINATOR)?, meta::get(db, POLICY_KEY)?, text(LEDGER_VKEY)?)
        else {
            return Ok(None);
        };
        let damaged =
            |cause: String| Problem::new(Code::StoreDamaged).with("path", crate::store::STORE_FILE).cause(cause);
        Ok(Some(Self {
            coordinator: name.parse().map_err(|e: posthouse_protocol::id::InvalidId| damaged(e.to_string()))?,
            policy_key: key.try_into().map_err(|_| damaged("the pinned policy key is no key".to_owned()))?,
            ledger_vkey,
        }))
    }

    /// Replaces what was pinned before.
    pub fn save(&self, tx: &rusqlite::Transaction<'_>) -> Result<(), Problem> {
        meta::set(tx, COORDINATOR, self.coordinator.as_str().as_bytes())?;
        meta::set(tx, POLICY_KEY, &self.policy_key)?;
        meta::set(tx, LEDGER_VKEY, self.ledger_vkey.as_bytes())
    }
}

/// Where the keys of a node lie within its data folder.
pub fn identity_folder(config: &Config) -> PathBuf {
    config.node.data_dir.join("identity")
}
fn statement_key_file(folder: &Path) -> PathBuf {
    folder.join("statement.pem")
}

/// The signer of this node's statements.
pub fn signer(folder: &Path) -> Result<Ed25519Signer, Problem> {
    let seed = identity::read_statement_key(&statement_key_file(folder))?;
    Ed25519Signer::from_seed(&seed).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

/// The key that what is carried to this node in files is sealed to; made where there is none.
pub fn ferry_key(world: &World, folder: &Path) -> Result<FerryKey, Problem> {
    FerryKey::kept(&folder.join("ferry.pem"), &world.random.bytes())
}

/// What the node says of itself.
pub fn profile(config: &Config, ferry_key: &FerryKey) -> Profile {
    Profile {
        department: config.node.department.clone(),
        department_code: config.node.department_code.clone(),
        division: config.node.division.clone(),
        advertise: config.node.advertise.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        resources: config.resources.values().map(|resource| (resource.id.clone(), resource.catalog.clone())).collect(),
        ferry_key: Some((*ferry_key.public()).into()),
    }
}

/// What came of joining.
#[derive(Debug, Clone, serde::Serialize)]
pub struct JoinedAs {
    pub node: NodeId,
    pub coordinator: NodeId,
    pub certificate_expires_at: Timestamp,
    /// Fingerprints of what was pinned.
    pub authority: String,
    pub policy_key: String,
}

/// Joins with a token. The node must not be running; joining again with a new token replaces the
/// certificate and keeps the statement key, so that old receipts stay this node's.
pub async fn join(world: &World, config: &Config, token: &str) -> Result<JoinedAs, Problem> {
    let token = JoinToken::parse(token)?;
    if token.node != config.node.name {
        let cause = format!("it is for {}, this node is {}", token.node, config.node.name);
        return Err(Problem::new(Code::TokenInvalid).cause(cause));
    }
    let store = Store::open(world, &config.node.data_dir).await?;
    let folder = identity_folder(config);
    let (kept, seed, own_world) = (folder.clone(), world.random.bytes::<32>(), world.clone());
    let (signer, ferry_key) = blocking(world, move || {
        use std::os::unix::fs::DirBuilderExt;
        let place = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", kept.display()).cause(e);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&kept).map_err(place)?;
        let file = statement_key_file(&kept);
        if !file.exists() {
            identity::write_statement_key(&file, &seed)?;
        }
        Ok((signer(&kept)?, ferry_key(&own_world, &kept)?))
    })
    .await?;
    let key = TlsKey::made_with(&*world.random)?;
    let endpoint = endpoint::bind(world.clone(), None, dial_only(config.node.transport)).await?;
    let question = Join {
        node: token.node.clone(),
        secret: token.secret.to_vec().into(),
        csr: key.request(&token.node)?.into(),
        statement_key: signer.public_key().into(),
        profile: profile(config, &ferry_key),
        now: world.clock.now(),
    };
    let ca_sha256 = *token.ca_sha256;
    let connection = dial(&*endpoint, config, &token.coordinator, ca_sha256).await?;
    let answer = ask(&*connection, &token, CentreRequest::Join(question)).await;
    connection.close(0, "joined");
    let joined = match answer? {
        CentreAnswer::Joined(joined) => *joined,
        other => return Err(unexpected(&token.coordinator, &other)),
    };
    check_clock(world, joined.now)?;
    let (identity, pinned) = check(&token, key, &joined)?;
    let policy = Policy::open(&joined.policy, &token.node, &pinned.policy_key)
        .map_err(|e| Problem::new(Code::WrongAuthority).with("peer", &token.coordinator).cause(e))?;
    let stored = StoredPolicy {
        bytes: joined.policy.to_vec(),
        epoch: policy.epoch,
        sequence: policy.sequence,
        freshness: None,
        fresh_at: world.clock.now(),
    };
    let known_epoch = joined.epoch;
    let summary = JoinedAs {
        node: token.node.clone(),
        coordinator: token.coordinator.clone(),
        certificate_expires_at: identity.not_after(),
        authority: hex::encode(identity.authority_sha256()),
        policy_key: posthouse_protocol::cose::fingerprint(&pinned.policy_key),
    };
    store
        .write(move |tx| {
            // A token names its coordinator: joining another one begins with that one's policy.
            if Pinned::load(tx)?.is_some_and(|known| known != pinned) {
                meta::forget_policy(tx)?;
            }
            meta::epoch_at_least(tx, known_epoch)?;
            pinned.save(tx)?;
            meta::keep_policy(tx, &stored).map(|_| ())
        })
        .await?;
    // Last, and in one rename: with the identity in place the node has joined.
    blocking(world, move || identity.save(&folder)).await?;
    endpoint.close().await;
    Ok(summary)
}

/// A new certificate for a node whose own has expired, by proof of its registered statement key.
pub async fn come_back(
    world: &World,
    config: &Config,
    endpoint: &dyn Endpoint,
    coordinator: &NodeId,
    expired: &Identity,
    signer: &dyn Signer,
) -> Result<Identity, Problem> {
    let connection = dial(endpoint, config, coordinator, expired.authority_sha256()).await?;
    let key = TlsKey::made_with(&*world.random)?;
    let csr = key.request(expired.node())?;
    let outcome =
        tokio::time::timeout(ANSWER_WAIT, prove(&*connection, coordinator, expired.node(), &csr, signer, world)).await;
    connection.close(0, "returned");
    let (chain, now) = outcome.map_err(|_| silent(coordinator))??;
    check_clock(world, now)?;
    Identity::new(chain, key, expired.authority().to_vec())
}

async fn prove(
    connection: &dyn Connection,
    coordinator: &NodeId,
    node: &NodeId,
    csr: &[u8],
    signer: &dyn Signer,
    world: &World,
) -> Result<(Vec<Vec<u8>>, Timestamp), Problem> {
    let (mut reader, mut writer) = frames::split(connection.open().await?, coordinator);
    writer.send(&Frame::Hello(Hello::new(Purpose::Ask, 0))).await?;
    let mut question = Return { node: node.clone(), csr: csr.to_vec().into(), proof: None, now: world.clock.now() };
    loop {
        writer.send(&Frame::Centre(CentreRequest::Return(question.clone()))).await?;
        let answer = loop {
            match reader.expect().await? {
                Frame::Hello(_) => {}
                Frame::CentreAnswer(answer) => break refused(answer, coordinator, node)?,
                other => return Err(strange(coordinator, &other)),
            }
        };
        match answer {
            CentreAnswer::Challenge(challenge) if question.proof.is_none() => {
                let message = [RETURN_CONTEXT, challenge.as_slice(), &sha256(csr)].concat();
                let proof = signer.sign(&message).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
                question.proof = Some(proof.into());
            }
            CentreAnswer::Renewed(renewed) => {
                return Ok((renewed.chain.into_iter().map(Vec::from).collect(), renewed.now));
            }
            other => return Err(unexpected(coordinator, &other)),
        }
    }
}

/// Everything in the answer must hang together and lead to what the token names.
fn check(token: &JoinToken, key: TlsKey, joined: &Joined) -> Result<(Identity, Pinned), Problem> {
    let wrong = |cause: String| Problem::new(Code::WrongAuthority).with("peer", &token.coordinator).cause(cause);
    let ca = joined.chain.last().ok_or_else(|| wrong("it sent no certificate".to_owned()))?;
    if sha256(ca) != *token.ca_sha256 {
        return Err(wrong("its CA is not the one that the token names".to_owned()));
    }
    let identity = Identity::new(joined.chain.iter().map(|der| der.to_vec()).collect(), key, ca.to_vec())?;
    if *identity.node() != token.node {
        return Err(wrong(format!("it certified {} instead", identity.node())));
    }
    let ledger = LedgerKey::parse(&joined.ledger_vkey).map_err(|e| wrong(e.to_string()))?;
    if ledger.coordinator().map_err(|e| wrong(e.to_string()))? != token.coordinator {
        return Err(wrong("its ledger is another coordinator's".to_owned()));
    }
    let pinned = Pinned {
        coordinator: token.coordinator.clone(),
        policy_key: *joined.policy_key,
        ledger_vkey: joined.ledger_vkey.clone(),
    };
    Ok((identity, pinned))
}

/// A difference of clocks beyond the bound is named as such, whatever else it would break later.
pub(crate) fn check_clock(world: &World, theirs: Timestamp) -> Result<(), Problem> {
    let off_ms = world.clock.now().since_ms(theirs);
    if off_ms.saturating_abs() <= limits::CLOCK_SKEW_MS {
        return Ok(());
    }
    let cause = if off_ms > 0 {
        "this machine's clock is ahead of the coordinator's"
    } else {
        "this machine's clock is behind the coordinator's"
    };
    Err(Problem::new(Code::ClockWrong).with("seconds", off_ms.saturating_abs() / 1000).cause(cause))
}

/// Turns a refusal by the centre into the problem that it names.
pub(crate) fn refused(answer: CentreAnswer, coordinator: &NodeId, node: &NodeId) -> Result<CentreAnswer, Problem> {
    match answer {
        CentreAnswer::Refused(code, cause) => {
            let code = Code::from_number(code).unwrap_or(Code::InsideFailed);
            Err(Problem::new(code).with("peer", coordinator).with("node", node).cause(cause))
        }
        other => Ok(other),
    }
}

pub(crate) fn unexpected(peer: &NodeId, answer: &CentreAnswer) -> Problem {
    strange(peer, answer)
}

fn strange(peer: &NodeId, what: &dyn std::fmt::Debug) -> Problem {
    let text: String = format!("{what:?}").chars().take(80).collect();
    Problem::new(Code::FrameInvalid).with("peer", peer).cause(format!("it answered {text}"))
}

fn silent(peer: &NodeId) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", peer).cause("it did not answer in time")
}

async fn ask(connection: &dyn Connection, token: &JoinToken, request: CentreRequest) -> Result<CentreAnswer, Problem> {
    let peer = &token.coordinator;
    let hello = Hello::new(Purpose::Ask, 0);
    match frames::ask(connection, peer, hello, &Frame::Centre(request), ANSWER_WAIT).await? {
        Frame::CentreAnswer(answer) => refused(answer, peer, &token.node),
        other => Err(strange(peer, &other)),
    }
}

async fn dial(
    endpoint: &dyn Endpoint,
    config: &Config,
    coordinator: &NodeId,
    ca_sha256: [u8; 32],
) -> Result<std::sync::Arc<dyn Connection>, Problem> {
    let trust = DialTrust::Join { ca_sha256 };
    endpoint.dial(Dial { peer: coordinator, address: &config.coordinator, choice: config.node.transport, trust }).await
}

fn dial_only(choice: TransportChoice) -> Listen {
    Listen { address: None, choice, join: false }
}

async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    world.blocking.run(work).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?
}

const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Signed before the challenge, so that no other signature of this key can stand for it.
const RETURN_CONTEXT: &[u8] = b"posthouse return";
const COORDINATOR: &str = "coordinator";
const POLICY_KEY: &str = "policy_key";
const LEDGER_VKEY: &str = "ledger_vkey";

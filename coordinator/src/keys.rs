//! What `init` makes, once: the private CA, the ledger key, the policy key, the store, the first access
//! token and the configuration. Nothing that exists is ever overwritten.

use crate::admin::Role;
use crate::config::{self, Config};
use crate::ledger::Ledger;
use crate::membership::access_token;
use crate::store::Store;
use crate::store::records::AccessRecord;
use crate::store::sqlite::Sqlite;
use posthouse_platform::World;
use posthouse_platform::identity::authority::AUTHORITY_KEY_FILE;
use posthouse_platform::identity::{
    Authority, Identity, TlsKey, read_statement_key, write_public, write_secret, write_statement_key,
};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{Ed25519Signer, Signer};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::ledger::LedgerKey;
use posthouse_protocol::problem::{Code, Problem};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `posthouse coordinator init` is told.
#[derive(Debug, Clone)]
pub struct Init {
    pub data_dir: PathBuf,
    pub name: NodeId,
    pub listen: Option<String>,
    /// `""` = no HTTP.
    pub http: Option<String>,
}

/// What it made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Initialised {
    /// `DATA_DIR/coordinator.toml`
    pub config: PathBuf,
    /// `DATA_DIR/admin.token`, readable by its owner alone.
    pub admin_token: PathBuf,
    pub name: NodeId,
    pub ca_sha256: String,
    pub ledger_vkey: String,
    /// SHA-256 of the policy's public key, as `receipt verify` prints it.
    pub policy_key: String,
}

/// Makes a coordinator in a new or empty folder.
pub async fn init(world: &World, init: Init) -> Result<Initialised, Problem> {
    let mut config = Config::new(init.name.clone(), init.data_dir.clone());
    if let Some(listen) = init.listen {
        config.listen = listen;
    }
    if let Some(http) = init.http {
        config.http = Some(http).filter(|http| !http.is_empty());
    }
    let text = config::written(&config)?;
    Config::parse(Path::new(CONFIG_FILE), &text).map_err(|m| m.problem(posthouse_protocol::problem::Lang::En))?;
    let (dir, inner) = (init.data_dir.clone(), world.clone());
    let name = init.name.clone();
    let made = world.blocking.run(move || make(&inner, &dir, &name)).await;
    let keys = made.map_err(|e| Problem::new(Code::InsideFailed).cause(e))??;

    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&config.database(), world.blocking.clone()).await?);
    let token = access_token(&world.random.bytes());
    let access = AccessRecord {
        name: "admin".to_owned(),
        role: Role::Admin,
        hash: codec::sha256(token.as_bytes()),
        created_at: world.clock.now(),
        last_used_at: None,
    };
    store.set_meta(NAME, init.name.as_str()).await?;
    store.add_access(access).await?;
    let (ledger, writer) = Ledger::new(
        world.clone(),
        store.clone(),
        config.name.clone(),
        config.ledger_origin(),
        keys.ledger.clone(),
        keys.policy.clone(),
    );
    let writer = tokio::spawn(writer.run());
    ledger.act("coordinator.init", "admin", config.name.as_str()).await?;
    drop(ledger);
    // The writer ends with its ledger; only then is the file closed.
    let _ = writer.await;
    store.close().await;

    let (config_path, token_path) = (init.data_dir.join(CONFIG_FILE), init.data_dir.join(TOKEN_FILE));
    let paths = (config_path.clone(), token_path.clone());
    let written = world.blocking.run(move || {
        write_secret(&paths.1, format!("{token}\n").as_bytes())?;
        // Last: with the configuration in place there is a coordinator here.
        write_public(&paths.0, text.as_bytes())
    });
    written.await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))??;
    Ok(Initialised {
        config: config_path,
        admin_token: token_path,
        name: init.name,
        ca_sha256: hex::encode(keys.authority.certificate_sha256()),
        ledger_vkey: keys.ledger_vkey,
        policy_key: posthouse_protocol::cose::fingerprint(&keys.policy.public_key()),
    })
}

/// The keys of a coordinator.
pub(crate) struct Keys {
    pub(crate) authority: Authority,
    pub(crate) ledger: Arc<dyn Signer>,
    /// Signs policies, freshness, node lists and the coordinator's own acts.
    pub(crate) policy: Arc<dyn Signer>,
    pub(crate) ledger_vkey: String,
}

impl Keys {
    /// `origin` is the ledger's.
    pub(crate) fn load(folder: &Path, origin: &str) -> Result<Self, Problem> {
        let authority = Authority::load(folder)?;
        let signer = |file: &str| -> Result<Ed25519Signer, Problem> {
            Ed25519Signer::from_seed(&read_statement_key(&folder.join(file))?).map_err(inside)
        };
        let (ledger, policy) = (signer(LEDGER_FILE)?, signer(POLICY_FILE)?);
        let ledger_vkey = LedgerKey::new(origin, ledger.public_key()).map_err(inside)?.vkey();
        Ok(Self { authority, ledger: Arc::new(ledger), policy: Arc::new(policy), ledger_vkey })
    }

    /// The coordinator's own certificate, under its own CA.
    pub(crate) fn identity(&self, world: &World, config: &Config) -> Result<Identity, Problem> {
        let key = TlsKey::made_with(&*world.random)?;
        let request = key.request(&config.name)?;
        let life = config.certificate_life.as_ms();
        let issued = self.authority.issue(&request, &config.name, world.clock.now(), life, &world.random.bytes())?;
        Identity::new(issued.chain, key, self.authority.certificate().to_vec())
    }
}

fn make(world: &World, dir: &Path, name: &NodeId) -> Result<Keys, Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", dir.display()).cause(e);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let ours = [CONFIG_FILE, DATABASE_FILE, LEDGER_FILE, POLICY_FILE, AUTHORITY_KEY_FILE];
    if ours.iter().any(|file| dir.join(file).symlink_metadata().is_ok()) {
        return Err(Problem::new(Code::CoordinatorExists).with("path", dir.display()));
    }
    // Closing a folder that others use would lock them out.
    if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
        let what = format!("{} is not empty; give --data-dir a new folder", dir.display());
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    close_to_others(dir).map_err(failed)?;
    let authority = Authority::new(name, TlsKey::made_with(&*world.random)?, world.clock.now())?;
    authority.save(dir)?;
    write_statement_key(&dir.join(LEDGER_FILE), &world.random.bytes())?;
    write_statement_key(&dir.join(POLICY_FILE), &world.random.bytes())?;
    Keys::load(dir, &format!("{name}/log1"))
}

fn close_to_others(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

fn inside(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(error)
}

/// In the store: the name that everything was made for.
pub(crate) const NAME: &str = "name";
/// Beside the keys, in the data folder.
pub(crate) const CONFIG_FILE: &str = "coordinator.toml";
pub(crate) const DATABASE_FILE: &str = "coordinator.db";
const TOKEN_FILE: &str = "admin.token";
const LEDGER_FILE: &str = "ledger.key";
const POLICY_FILE: &str = "policy.key";

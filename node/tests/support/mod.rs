//! Two nodes in this process and a minimal authority: it certifies, signs policies, and is never reached.

use posthouse_node::config::Config;
use posthouse_node::daemon::Node;
use posthouse_node::join;
use posthouse_node::store::meta::{self, StoredPolicy};
use posthouse_node::store::{Side, Store, Transfer, exchange, statements, transfers};
use posthouse_node::transfer::{self, Outcome};
use posthouse_platform::World;
use posthouse_platform::endpoint::{self, Endpoint, Listen, TransportChoice};
use posthouse_platform::identity::{Authority, Identity, TlsKey, write_statement_key};
use posthouse_protocol::id::{GrantId, JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::policy::{Grant, Peer, Policy};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::{Ed25519Signer, Signer, Statement};
use posthouse_protocol::time::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const PROVIDER: &str = "police.test.example";
pub(crate) const CONSUMER: &str = "housing.test.example";

/// A folder with both nodes' files, their keys and ports.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    authority: Authority,
    policy_signer: Ed25519Signer,
    provider: Party,
    consumer: Party,
    sequence: AtomicU64,
    grants: Vec<Grant>,
    transport: &'static str,
    /// Further keys of the provider's `[node]`.
    pub(crate) provider_more: &'static str,
}

struct Party {
    name: NodeId,
    signer: Ed25519Signer,
    seed: [u8; 32],
    port: u16,
}

impl Scene {
    /// `resources` are what the provider offers; all of them are granted.
    pub(crate) fn new(transport: &'static str, granted: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = World::real();
        let ca = TlsKey::from_seed(&[1; 32]).unwrap();
        let authority = Authority::new(&name("centre.test.example"), ca, world.clock.now()).unwrap();
        let party = |name_text: &str, seed: u8| Party {
            name: name(name_text),
            signer: Ed25519Signer::from_seed(&[seed; 32]).unwrap(),
            seed: [seed; 32],
            port: free_port(),
        };
        let grant = |(number, resource): (usize, &&str)| Grant {
            id: GrantId::from_random([number as u8; 16]),
            consumer: name(CONSUMER),
            resource: format!("{PROVIDER}/{resource}").parse::<ResourceRef>().unwrap(),
            from: Timestamp(0),
            until: world.clock.now().plus_ms(86_400_000),
            columns: None,
            filter: None,
            zone: None,
            via: None,
            masks: None,
        };
        let grants = granted.iter().enumerate().map(grant).collect();
        let scene = Self {
            folder,
            authority,
            policy_signer: Ed25519Signer::from_seed(&[9; 32]).unwrap(),
            provider: party(PROVIDER, 2),
            consumer: party(CONSUMER, 3),
            sequence: AtomicU64::new(1),
            grants,
            transport,
            provider_more: "",
        };
        for place in ["source", "target"] {
            std::fs::create_dir(scene.path(place)).unwrap();
        }
        scene
    }

    pub(crate) fn path(&self, place: &str) -> PathBuf {
        self.folder.path().join(place)
    }

    /// Starts (or restarts) the provider with the rest of its configuration.
    pub(crate) async fn provider(&self, rest: &str) -> Node {
        self.start(World::real(), &self.provider, rest).await
    }
    pub(crate) async fn provider_in(&self, world: World, rest: &str) -> Node {
        self.start(world, &self.provider, rest).await
    }
    pub(crate) async fn consumer(&self, rest: &str) -> Node {
        self.start(World::real(), &self.consumer, rest).await
    }
    pub(crate) async fn consumer_in(&self, world: World, rest: &str) -> Node {
        self.start(world, &self.consumer, rest).await
    }

    /// The provider's name and place on the network without a node: for what no node would say.
    pub(crate) async fn provider_endpoint(&self) -> Arc<dyn Endpoint> {
        let (_, config) = self.prepare(&World::real(), &self.provider, "").await;
        let identity = Identity::load(&join::identity_folder(&config)).unwrap();
        let choice = if self.transport == "tcp" { TransportChoice::Tcp } else { TransportChoice::Quic };
        let listen = Listen { address: Some(format!("127.0.0.1:{}", self.provider.port)), choice, join: false };
        endpoint::bind(World::real(), Some(Arc::new(identity)), listen).await.unwrap()
    }

    /// The consumer's configuration and identity on disk, for a process of its own.
    pub(crate) async fn consumer_file(&self, rest: &str) -> PathBuf {
        let (file, _) = self.prepare(&World::real(), &self.consumer, rest).await;
        file
    }

    async fn start(&self, world: World, party: &Party, rest: &str) -> Node {
        let (_, config) = self.prepare(&world, party, rest).await;
        started(world, config).await
    }

    async fn prepare(&self, world: &World, party: &Party, rest: &str) -> (PathBuf, Config) {
        let dir = self.path(party.name.as_str());
        let text = format!(
            "[node]\nname = \"{}\"\ndata_dir = \"{}\"\nlisten = \"127.0.0.1:{}\"\ntransport = \"{}\"\n{}\n\
             [coordinator]\naddress = \"127.0.0.1:9\"\n{rest}",
            party.name,
            dir.join("data").display(),
            party.port,
            self.transport,
            if party.name == self.provider.name { self.provider_more } else { "" },
        );
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("node.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap_or_else(|problem| panic!("{problem}"));
        self.join(world, party, &config).await;
        (file, config)
    }

    /// What joining leaves behind.
    async fn join(&self, world: &World, party: &Party, config: &Config) {
        let folder = join::identity_folder(config);
        std::fs::create_dir_all(&folder).unwrap();
        let key = TlsKey::from_seed(&party.seed).unwrap();
        let request = key.request(&party.name).unwrap();
        let now = world.clock.now();
        let issued = self.authority.issue(&request, &party.name, now, 7 * 86_400_000, &[party.seed[0]; 16]).unwrap();
        let ca = issued.chain.last().unwrap().clone();
        Identity::new(issued.chain, key, ca).unwrap().save(&folder).unwrap();
        if !folder.join("statement.pem").exists() {
            write_statement_key(&folder.join("statement.pem"), &party.seed).unwrap();
        }
        // A node that was stopped a moment ago may still hold its store.
        let mut opened = Store::open(world, &config.node.data_dir).await;
        for _ in 0..100 {
            if opened.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            opened = Store::open(world, &config.node.data_dir).await;
        }
        let store = opened.unwrap();
        let (bytes, sequence) = self.policy(party, &self.grants);
        let policy_key = self.policy_signer.public_key();
        store
            .write(move |tx| {
                let pinned =
                    join::Pinned { coordinator: name("centre.test.example"), policy_key, ledger_vkey: String::new() };
                pinned.save(tx)?;
                let fresh_at = Timestamp(i64::MAX / 2).min(World::real().clock.now());
                meta::keep_policy(tx, &StoredPolicy { bytes, epoch: 1, sequence, freshness: None, fresh_at })
            })
            .await
            .unwrap();
    }

    fn policy(&self, party: &Party, grants: &[Grant]) -> (Vec<u8>, u64) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let peer = |other: &Party| Peer {
            ferry_key: None,
            node: other.name.clone(),
            addresses: vec![(None, format!("127.0.0.1:{}", other.port))],
            statement_keys: vec![other.signer.public_key().into()],
            epoch: 0,
            department: None,
            department_code: None,
        };
        let other = if party.name == self.provider.name { &self.consumer } else { &self.provider };
        let policy = Policy {
            ledger: "centre.test.example/log1".to_owned(),
            epoch: 1,
            sequence,
            issued: World::real().clock.now(),
            node: party.name.clone(),
            grants: grants.iter().map(Grant::encode).collect(),
            peers: vec![peer(other)],
            denied: Vec::new(),
            staleness_seconds: 3600,
            heartbeat_seconds: 30,
            nodes: Vec::new().into(),
            ended: None,
        };
        (policy.sign(&name("centre.test.example"), &self.policy_signer).unwrap(), sequence)
    }

    /// The provider's policy without any grant, as if the centre had just pushed it.
    pub(crate) fn withdraw(&self, provider: &Node) {
        let (bytes, _) = self.policy(&self.provider, &[]);
        provider.context().authority.accept(&bytes).unwrap();
    }
}

/// A node, once what was stopped a moment ago has let go of its port and its socket.
pub(crate) async fn started(world: World, config: Config) -> Node {
    for _ in 0..100 {
        match Node::start(world.clone(), config.clone()).await {
            Ok(node) => return node,
            Err(problem) if matches!(problem.code, Code::ListenFailed | Code::AlreadyRunning) => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            Err(problem) => panic!("{problem}"),
        }
    }
    panic!("the port is never free")
}

pub(crate) fn name(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// A port below those that the system gives to whoever connects without naming one: no other test's connection takes it
/// before the node listens. None is given twice by one process, and each process begins elsewhere.
fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(997);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < COUNT, "no port is free");
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).unwrap();
        let udp = std::net::UdpSocket::bind(("127.0.0.1", port));
        if udp.is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Plans a run of a job as the scheduler does.
pub(crate) async fn plan(node: &Node, job: &str) -> TransferId {
    let ctx = node.context();
    let job = ctx.config().jobs.get(&job.parse::<JobId>().unwrap()).unwrap().clone();
    let posthouse_node::config::Kind::Take { resource } = job.kind.clone() else { panic!("{job:?} takes nothing") };
    let id = TransferId::from_random(ctx.world.random.bytes::<16>());
    let (now, planned) = (ctx.world.clock.now(), id.clone());
    ctx.store
        .write(move |tx| {
            let peer = resource.node.clone();
            let mut row =
                Transfer::planned(planned, Side::Consumer, job.name.clone(), peer, resource, job.mode, job.write, now);
            if job.mode == posthouse_protocol::job::Mode::Incremental {
                row.watermark_from = exchange::reached(tx, &job.name)?;
            }
            transfers::plan(tx, &row)
        })
        .await
        .unwrap();
    id
}

/// Runs a job once to its end.
pub(crate) async fn run(node: &Node, job: &str) -> Transfer {
    let id = plan(node, job).await;
    finish(node, id).await.unwrap()
}

pub(crate) async fn finish(node: &Node, id: TransferId) -> Result<Transfer, Problem> {
    let ctx: Arc<_> = node.context().clone();
    let outcome = tokio::time::timeout(Duration::from_secs(120), transfer::run_consumer(ctx, id));
    match outcome.await.expect("the transfer ends within two minutes")? {
        Outcome::Final(row) => Ok(*row),
        Outcome::Interrupted => panic!("the node was stopped"),
    }
}

/// Waits until a transfer's row is as wanted.
pub(crate) async fn until(node: &Node, id: &TransferId, what: &str, wanted: impl Fn(&Transfer) -> bool) -> Transfer {
    for _ in 0..1200 {
        let id = id.clone();
        let row = node.context().store.read(move |db| transfers::get(db, &id)).await.unwrap();
        if let Some(row) = row.filter(|row| wanted(row)) {
            return row;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} did not become {what} within a minute");
}

/// What a transfer looks like while it runs here.
pub(crate) async fn until_live(node: &Node, id: &TransferId, what: &str, wanted: impl Fn(&transfer::Live) -> bool) {
    for _ in 0..1200 {
        if node.context().transfers.list().iter().any(|live| live.row.id == *id && wanted(live)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{id} did not become {what}");
}

/// All statements about a transfer that a node holds, verified.
pub(crate) async fn evidence(node: &Node, id: &TransferId) -> Vec<Statement> {
    let ctx = node.context();
    let transfer = id.clone();
    let kept = ctx.store.read(move |db| statements::of_transfer(db, &transfer)).await.unwrap();
    kept.iter().map(|kept| Statement::open(&kept.bytes, ctx.authority.as_ref()).unwrap()).collect()
}

/// As [`evidence`], once the other side's word has come too.
pub(crate) async fn evidence_of_both(node: &Node, id: &TransferId) -> Vec<Statement> {
    for _ in 0..100 {
        let held = evidence(node, id).await;
        if held.len() == 2 {
            return held;
        }
        assert!(held.len() < 2, "{held:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not hold both statements about {id}", node.context().name);
}

/// Content, kind, mode and mtime of everything beneath a folder, by name.
pub(crate) fn tree(root: &Path) -> Vec<(String, String)> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let times = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let what = if meta.is_dir() {
                folders.push(path.clone());
                format!("dir {:o} {times}", meta.permissions().mode())
            } else if meta.is_symlink() {
                format!("link {}", std::fs::read_link(&path).unwrap().display())
            } else {
                let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex();
                format!("file {:o} {times} {} {hash}", meta.permissions().mode(), meta.len())
            };
            found.push((name, what));
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress and are the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

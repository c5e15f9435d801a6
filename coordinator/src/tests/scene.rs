//! One coordinator on loopback, a clock that can be set, and nodes made of an endpoint and two keys.

use crate::admin::{Answer, GrantRow, Request, TokenMade};
use crate::config::Config;
use crate::{Centre, Coordinator, Init, init};
use posthouse_platform::World;
use posthouse_platform::clock::{Clock, SystemClock};
use posthouse_platform::endpoint::{self, Connection, Dial, DialTrust, Endpoint, Listen, TransportChoice};
use posthouse_platform::frames;
use posthouse_platform::identity::{Identity, JoinToken, TlsKey};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Heartbeat, Join, Joined, Profile, Proof};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{Ed25519Signer, Signer};
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::{GrantId, JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::manifest::{Counts, Manifest};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::{self, Body, Chain, Ending, Landing, Outcome, Statement};
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) const PROVIDER: &str = "police.test.example";
pub(super) const CONSUMER: &str = "housing.test.example";
pub(super) const DAY_MS: i64 = 86_400_000;

/// The system's clock and what was added to it.
pub(super) struct Shifted {
    system: SystemClock,
    ahead_ms: AtomicI64,
}

impl Shifted {
    pub(super) fn go(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        self.system.now().plus_ms(self.ahead_ms.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) clock: Arc<Shifted>,
    pub(super) config: Config,
    pub(super) coordinator: Coordinator,
    _folder: tempfile::TempDir,
}

impl Scene {
    pub(super) async fn start() -> Self {
        let clock = Arc::new(Shifted { system: SystemClock::new(), ahead_ms: AtomicI64::new(0) });
        let world = World { clock: clock.clone(), ..World::real() };
        let folder = tempfile::tempdir().unwrap();
        let what = Init {
            data_dir: folder.path().join("centre"),
            name: "centre.test.example".parse().unwrap(),
            listen: Some("127.0.0.1:0".to_owned()),
            http: Some("127.0.0.1:0".to_owned()),
        };
        let made = init(&world, what).await.unwrap();
        let config = Config::load(&made.config, posthouse_protocol::problem::Lang::En).unwrap();
        let coordinator = Coordinator::start(world.clone(), config.clone()).await.unwrap();
        Self { world, clock, config, coordinator, _folder: folder }
    }

    /// As after a crash: nothing of the old process says goodbye.
    pub(super) async fn crash_and_start(mut self) -> Self {
        self.coordinator.centre.endpoint.close().await;
        drop(self.coordinator.admin.take());
        self.coordinator.centre.stopping.cancel();
        self.coordinator = Coordinator::start(self.world.clone(), self.config.clone()).await.unwrap();
        self
    }

    pub(super) fn centre(&self) -> &Arc<Centre> {
        &self.coordinator.centre
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Answer, Problem> {
        self.coordinator.ask(request).await
    }

    pub(super) async fn token(&self, node: &str, ttl_ms: u64) -> JoinToken {
        let answer = self.ask(Request::Token { node: node.parse().unwrap(), ttl_ms }).await.unwrap();
        let made: TokenMade = serde_json::from_value(answer.done).unwrap();
        JoinToken::parse(&made.token).unwrap()
    }

    pub(super) async fn grant(&self, resource: &str) -> GrantId {
        let answer = self.ask(self.grant_request(resource)).await.unwrap();
        serde_json::from_value::<GrantRow>(answer.done).unwrap().id
    }

    pub(super) fn grant_request(&self, resource: &str) -> Request {
        Request::GrantAdd {
            consumer: CONSUMER.parse().unwrap(),
            resource: resource.parse().unwrap(),
            until: self.world.clock.now().plus_ms(DAY_MS),
            columns: None,
            filter: None,
            zone: None,
            via: None,
            masks: None,
        }
    }

    pub(super) async fn joined(&self, name: &str) -> Node {
        let token = self.token(name, 60_000).await;
        let mut node = Node::new(self, name);
        let joined = node.join(self, &token).await.unwrap();
        node.adopt(&joined);
        node.connect(self).await.unwrap();
        node
    }

    pub(super) async fn alarms(&self) -> Vec<(String, String)> {
        let alarms = self.centre().store.alarms(true).await.unwrap();
        alarms.into_iter().map(|alarm| (alarm.kind, alarm.subject)).collect()
    }

    async fn dialler(&self, identity: Option<Arc<Identity>>) -> Arc<dyn Endpoint> {
        let listen = Listen { address: None, choice: TransportChoice::Tcp, join: false };
        endpoint::bind(self.world.clone(), identity, listen).await.unwrap()
    }

    async fn dial(&self, endpoint: &dyn Endpoint, trust: DialTrust) -> Result<Arc<dyn Connection>, Problem> {
        let address = self.coordinator.listen_address().unwrap().to_string();
        let dial = Dial { peer: &self.config.name, address: &address, choice: TransportChoice::Tcp, trust };
        endpoint.dial(dial).await
    }

    /// Asks over `posthouse-join/1`, as somebody without a certificate.
    pub(super) async fn ask_joining(&self, request: CentreRequest) -> Result<CentreAnswer, Problem> {
        let mut talk = self.talk_joining().await?;
        talk.ask(request).await
    }

    pub(super) async fn talk_joining(&self) -> Result<Talk, Problem> {
        let endpoint = self.dialler(None).await;
        let ca_sha256 = self.centre().keys.authority.certificate_sha256();
        let connection = self.dial(&*endpoint, DialTrust::Join { ca_sha256 }).await?;
        let (reader, mut writer) = frames::split(connection.open().await?, "the centre");
        writer.send(&Frame::Hello(Hello::new(Purpose::Ask, 0))).await?;
        Ok(Talk { reader, writer, _kept: (connection, endpoint) })
    }
}

/// One channel with the centre.
pub(super) struct Talk {
    reader: frames::FrameReader,
    writer: frames::FrameWriter,
    _kept: (Arc<dyn Connection>, Arc<dyn Endpoint>),
}

impl Talk {
    pub(super) async fn ask(&mut self, request: CentreRequest) -> Result<CentreAnswer, Problem> {
        self.writer.send(&Frame::Centre(request)).await?;
        loop {
            match self.reader.expect().await? {
                Frame::Hello(_) => {}
                Frame::CentreAnswer(answer) => return refused(answer),
                other => panic!("no answer: {other:?}"),
            }
        }
    }
}

fn refused(answer: CentreAnswer) -> Result<CentreAnswer, Problem> {
    match answer {
        CentreAnswer::Refused(code, cause) => Err(Problem::new(Code::from_number(code).unwrap()).cause(cause)),
        other => Ok(other),
    }
}

/// A node as the centre meets it.
pub(super) struct Node {
    pub(super) name: NodeId,
    pub(super) epoch: u64,
    pub(super) signer: Ed25519Signer,
    pub(super) key: TlsKey,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) policy_key: [u8; 32],
    pub(super) profile: Profile,
    connection: Option<(Arc<dyn Connection>, Arc<dyn Endpoint>)>,
    world: World,
}

impl Node {
    pub(super) fn new(scene: &Scene, name: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            epoch: 1,
            signer: Ed25519Signer::from_seed(&scene.world.random.bytes()).unwrap(),
            key: TlsKey::from_seed(&scene.world.random.bytes()).unwrap(),
            identity: None,
            policy_key: [0; 32],
            profile: Profile { version: "0.1.0".to_owned(), ..Profile::default() },
            connection: None,
            world: scene.world.clone(),
        }
    }

    pub(super) fn join_request(&self, token: &JoinToken) -> Join {
        Join {
            node: self.name.clone(),
            secret: token.secret.to_vec().into(),
            csr: self.key.request(&self.name).unwrap().into(),
            statement_key: self.signer.public_key().into(),
            profile: self.profile.clone(),
            now: self.world.clock.now(),
        }
    }

    pub(super) async fn join(&self, scene: &Scene, token: &JoinToken) -> Result<Joined, Problem> {
        match scene.ask_joining(CentreRequest::Join(self.join_request(token))).await? {
            CentreAnswer::Joined(joined) => Ok(*joined),
            other => panic!("not joined: {other:?}"),
        }
    }

    pub(super) fn adopt(&mut self, joined: &Joined) {
        let chain: Vec<Vec<u8>> = joined.chain.iter().map(|der| der.to_vec()).collect();
        let authority = chain.last().unwrap().clone();
        self.identity = Some(Arc::new(Identity::new(chain, self.key.clone(), authority).unwrap()));
        self.policy_key = *joined.policy_key;
        self.epoch = joined.epoch + 1;
    }

    pub(super) async fn connect(&mut self, scene: &Scene) -> Result<(), Problem> {
        let endpoint = scene.dialler(self.identity.clone()).await;
        let connection = scene.dial(&*endpoint, DialTrust::Certified).await?;
        self.connection = Some((connection, endpoint));
        Ok(())
    }

    pub(super) fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection.as_ref().unwrap().0
    }

    pub(super) async fn ask(&self, request: CentreRequest) -> Result<CentreAnswer, Problem> {
        let hello = Hello::new(Purpose::Ask, self.epoch);
        let limit = Duration::from_secs(20);
        match frames::ask(&**self.connection(), "the centre", hello, &Frame::Centre(request), limit).await? {
            Frame::CentreAnswer(answer) => refused(answer),
            other => panic!("no answer: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            epoch: self.epoch,
            now: self.world.clock.now(),
            profile: self.profile.clone(),
            policy_epoch: 1,
            policy_sequence: 1,
            disk_free_bytes: 1 << 30,
            outbox: 0,
            lag_seconds: 0,
            certificate_expires: self.identity.as_ref().unwrap().not_after(),
            transfers: Vec::new(),
            jobs: 1,
            last_error: None,
        }
    }

    pub(super) async fn beat(&self) -> Result<CentreAnswer, Problem> {
        self.ask(CentreRequest::Heartbeat(Box::new(self.heartbeat()))).await
    }

    pub(super) async fn submit(&self, statements: &[&Statement]) -> Vec<Proof> {
        let bytes = statements.iter().map(|statement| statement.bytes().to_vec().into()).collect();
        match self.ask(CentreRequest::Submit(bytes)).await.unwrap() {
            CentreAnswer::Proofs(proofs) => proofs,
            other => panic!("no proofs: {other:?}"),
        }
    }

    /// Answers the centre's questions with `answer`, and tells what they were.
    pub(super) fn listen(&self, answer: CentreAnswer) -> mpsc::UnboundedReceiver<CentreRequest> {
        let (told, heard) = mpsc::unbounded_channel();
        let connection = self.connection().clone();
        tokio::spawn(async move {
            while let Some(channel) = connection.accept().await {
                let (mut reader, mut writer) = frames::split(channel, "the centre");
                while let Ok(Some(frame)) = reader.next().await {
                    if let Frame::Centre(request) = frame {
                        writer.send(&Frame::CentreAnswer(answer.clone())).await.unwrap();
                        let _ = told.send(request);
                    }
                }
            }
        });
        heard
    }

    pub(super) fn sign(&self, body: Body) -> Statement {
        Statement::sign(body, &self.name, self.world.clock.now(), &self.signer).unwrap()
    }
}

/// One transfer's statements as two honest nodes would make them.
pub(super) struct Exchange {
    pub(super) handover: Statement,
    pub(super) landing: Statement,
    pub(super) manifest: Manifest,
}

impl Exchange {
    pub(super) fn of(scene: &Scene, provider: &Node, consumer: &Node, grant: &GrantId) -> Self {
        let manifest = manifest(scene, provider, consumer, grant);
        let handover = provider.sign(Body::Provider(chain(), Box::new(manifest.clone())));
        let landing = consumer.sign(Body::Consumer(chain(), landing(&manifest, &handover)));
        Self { handover, landing, manifest }
    }
}

pub(super) fn chain() -> Chain {
    Chain { epoch: 1, sequence: 1, previous: None }
}

pub(super) fn manifest(scene: &Scene, provider: &Node, consumer: &Node, grant: &GrantId) -> Manifest {
    let now = scene.world.clock.now();
    Manifest {
        transfer: TransferId::from_random(scene.world.random.bytes()),
        job: JobId::parse("person").unwrap(),
        mode: Mode::Full,
        write: Write::Upsert,
        resource: ResourceRef { node: provider.name.clone(), resource: "person".parse().unwrap() },
        catalog: None,
        contract_sha256: Some([1; 32].into()),
        filter_sha256: None,
        grant: grant.clone(),
        policy_epoch: 1,
        policy_sequence: 2,
        route: Vec::new(),
        provider: provider.name.clone(),
        provider_department: Some("西安市公安局".to_owned()),
        provider_epoch: 1,
        consumer: consumer.name.clone(),
        consumer_epoch: 1,
        watermark_from: None,
        watermark_to: None,
        counts: Counts { rows_read: 10, rows_sent: 10, bytes: 1_000, ..Counts::default() },
        chunk_size: 1 << 20,
        entries: 1,
        content_root: [2; 32].into(),
        entries_sha256: [3; 32].into(),
        files_b3_sha256: None,
        digest_commitment: None,
        left_out: Vec::new(),
        left_out_sha256: None,
        started: now,
        sealed: now,
        succeeds: None,
        algorithms: vec!["blake3".to_owned()],
        governed: None,
        quality: None,
        database_line: None,
    }
}

pub(super) fn landing(manifest: &Manifest, handover: &Statement) -> Landing {
    Landing {
        transfer: manifest.transfer.clone(),
        job: manifest.job.clone(),
        resource: manifest.resource.clone(),
        provider: manifest.provider.clone(),
        consumer: manifest.consumer.clone(),
        manifest_sha256: codec::sha256(&codec::encode(manifest)).into(),
        provider_statement_sha256: (*handover.sha256()).into(),
        outcome: Outcome::Landed,
        counts: Counts { rows_landed: 10, bytes: 1_000, ..Counts::default() },
        content_root: manifest.content_root,
        digest_commitment: None,
        left_out: Vec::new(),
        left_out_sha256: None,
        proof: statement::Proof::Written,
        committed: manifest.sealed,
        consumer_department: Some("西安市住建局".to_owned()),
        transport: "tcp".to_owned(),
        quality: None,
        database_line: None,
    }
}

pub(super) fn ending(manifest: &Manifest, code: Code) -> Ending {
    Ending {
        transfer: manifest.transfer.clone(),
        job: manifest.job.clone(),
        resource: manifest.resource.clone(),
        provider: manifest.provider.clone(),
        consumer: manifest.consumer.clone(),
        code: code.number(),
        cause: "as told".to_owned(),
        ended: manifest.sealed,
    }
}

//! The software of the three machines, as it is started at first and after each crash. What it should do
//! (orders) and how it fares (rows, balance) passes through [`Board`], which survives crashes as the test does.

use posthouse_coordinator::admin::{DayBalance, Request};
use posthouse_coordinator::{Coordinator, Init};
use posthouse_node::daemon::Node;
use posthouse_node::store::{Transfer, transfers};
use posthouse_node::{config, jobs, join};
use posthouse_platform::simulated::Machine;
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::problem::{Lang, Problem};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) const CENTRE: &str = "centre.example";
pub(crate) const PROVIDER: &str = "police.example";
pub(crate) const CONSUMER: &str = "housing.example";
pub(crate) const JOBS: [&str; 3] = ["people", "permits", "scans"];

/// Between the test and the machines.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Notes>>);

#[derive(Default)]
pub(crate) struct Notes {
    tokens: BTreeMap<&'static str, String>,
    joined: BTreeMap<&'static str, bool>,
    /// Nodes that run at present.
    pub(crate) up: BTreeMap<&'static str, bool>,
    pub(crate) orders: VecDeque<JobId>,
    /// All transfers of a node, as its store has them.
    pub(crate) rows: BTreeMap<&'static str, Vec<Transfer>>,
    pub(crate) balance_wanted: bool,
    pub(crate) balance: Option<DayBalance>,
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn coordinator(machine: Machine, board: Board, folder: PathBuf) -> Result<(), Problem> {
    let world = machine.world();
    let file = folder.join("coordinator.toml");
    if !file.exists() {
        let name = NodeId::parse(CENTRE).unwrap();
        let init = Init { data_dir: folder, name, listen: Some("0.0.0.0:7840".to_owned()), http: Some(String::new()) };
        posthouse_coordinator::init(&world, init).await?;
    }
    let config = posthouse_coordinator::config::Config::load(&file, Lang::En)?;
    let coordinator = Coordinator::start(world, config).await?;
    loop {
        for node in [PROVIDER, CONSUMER] {
            if !board.lock().tokens.contains_key(node) {
                let request = Request::Token { node: NodeId::parse(node).unwrap(), ttl_ms: 900_000 };
                let answer = coordinator.ask(request).await?;
                let token = answer.done["token"].as_str().unwrap().to_owned();
                board.lock().tokens.insert(node, token);
            }
        }
        let joined = board.lock().joined.len() == 2;
        if joined && coordinator.ask(Request::GrantList).await?.items.len() < JOBS.len() {
            for resource in JOBS {
                let grant = Request::GrantAdd {
                    consumer: NodeId::parse(CONSUMER).unwrap(),
                    resource: format!("{PROVIDER}/{resource}").parse().unwrap(),
                    until: machine.world().clock.now().plus_ms(86_400_000),
                    columns: None,
                    filter: None,
                    zone: None,
                    via: None,
                    masks: None,
                };
                coordinator.ask(grant).await?;
            }
        }
        let wanted = std::mem::take(&mut board.lock().balance_wanted);
        if wanted {
            let answer = coordinator.ask(Request::Reconcile { day: None }).await?;
            board.lock().balance = Some(serde_json::from_value(answer.done).unwrap());
        }
        tokio::time::sleep(NOTED_EVERY).await;
    }
}

pub(crate) async fn node(
    machine: Machine,
    board: Board,
    name: &'static str,
    file: PathBuf,
    text: String,
) -> Result<(), Problem> {
    let world = machine.world();
    let read = config::Config::read(&file, &text);
    let config = read.unwrap_or_else(|mistakes| panic!("{}", mistakes.render(Lang::En)));
    while !board.lock().joined.contains_key(name) {
        let token = board.lock().tokens.get(name).cloned();
        match token {
            Some(token) => {
                join::join(&world, &config, &token).await?;
                board.lock().joined.insert(name, true);
            }
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let node = Node::start(world, config).await?;
    board.lock().up.insert(name, true);
    loop {
        let order = if name == CONSUMER { board.lock().orders.pop_front() } else { None };
        if let Some(order) = order {
            let job = node.context().config().jobs[&order].clone();
            if let Err(problem) = jobs::start(node.context(), &job).await {
                tracing::info!(%order, %problem, "The order could not be taken");
            }
        }
        let rows = node.context().store.read(|db| transfers::list(db, &transfers::Filter::default())).await?;
        board.lock().rows.insert(name, rows);
        tokio::time::sleep(NOTED_EVERY).await;
    }
}

/// `transport` as in a configuration; databases and folders below `folder`, tables in memory under `database`.
pub(crate) fn provider_config(folder: &Path, database: &str, transport: &str) -> String {
    let resource = |id: &str, rest: &str| format!("[[resource]]\nid = \"{id}\"\n{rest}\n");
    let table = |id: &str| format!("connection = \"{id}_db\"\ntable = \"{id}\"\nkey = [\"id\"]");
    [
        head(PROVIDER, folder, database, transport),
        resource("people", &table("people")),
        resource("permits", &format!("{}\nwatermark = \"updated_at\"", table("permits"))),
        resource("scans", &format!("folder = \"{}/scans\"", folder.display())),
    ]
    .concat()
}

pub(crate) fn consumer_config(folder: &Path, database: &str, transport: &str) -> String {
    let job = |name: &str, into: &str, mode: &str, write: &str| {
        format!(
            r#"[[job]]
name = "{name}"
resource = "{PROVIDER}/{name}"
into = {{ {into} }}
mode = "{mode}"
write = "{write}"
schedule = "manual"
"#
        )
    };
    let table = |name: &str| format!("connection = \"{name}_db\", table = \"{name}\"");
    [
        head(CONSUMER, folder, database, transport),
        job("people", &table("people"), "full", "replace"),
        job("permits", &table("permits"), "incremental", "upsert"),
        job("scans", &format!("folder = \"{}/scans\"", folder.display()), "full", "upsert"),
    ]
    .concat()
}

/// What both configurations say: the node, its coordinator, and where its tables are.
fn head(name: &str, folder: &Path, database: &str, transport: &str) -> String {
    let folder = folder.display();
    format!(
        r#"[node]
name = "{name}"
data_dir = "{folder}/node"
listen = "0.0.0.0:7843"
transport = "{transport}"
advertise = "{name}:7843"
[coordinator]
address = "{CENTRE}:7840"
[connection.people_db]
kind = "memory"
name = "{database}"
[connection.permits_db]
kind = "sqlite"
path = "{folder}/permits.db"
"#
    )
}

/// How often a machine notes how it stands.
pub(crate) const NOTED_EVERY: Duration = Duration::from_millis(200);

//! One seed from start to verdict: join, order the jobs, let things go wrong, mend, wait for the ends,
//! a fresh run of each job, the centre's balance, the oracle.

use crate::faults::{self, Plan};
use crate::machines::{self, Board, CENTRE, CONSUMER, JOBS, PROVIDER};
use crate::oracle::Oracle;
use crate::sources::Sources;
use posthouse_connectors::memory::MemoryDatabase;
use posthouse_platform::simulated::turmoil::Sim;
use posthouse_platform::simulated::{self, Machine, Trace};
use posthouse_protocol::id::JobId;
use posthouse_protocol::job::State;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a run leaves to compare with another of the same seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) trace: String,
    pub(crate) events: u64,
    pub(crate) faults: usize,
    pub(crate) settled: usize,
    pub(crate) failed: usize,
    pub(crate) seconds: u64,
}

pub(crate) fn run(seed: u64) -> Done {
    // Real folders, so that real SQLite runs on them; in memory where the machine has such a place.
    let place = Path::new("/dev/shm");
    let place = if place.is_dir() { place.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("ph").tempdir_in(place).unwrap();
    let transport = ["quic", "tcp", "auto"][(seed % 3) as usize];
    // Several runs of one seed may be under way in one process.
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let (given, taken) = (format!("sim-{run}-given"), format!("sim-{run}-taken"));
    let (from, to) = (folder.path().join("p"), folder.path().join("c"));
    for folder in [&from, &to] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let board = Board::default();
    let trace = Trace::new();
    let mut sim = simulated::builder(seed).tick_duration(TICK).enable_tokio_io().repair_rate(1.0).build();
    {
        let (machine, board, folder) = (Machine::new(seed, CENTRE, &trace), board.clone(), folder.path().join("a"));
        sim.host(CENTRE, move || {
            let (machine, board, folder) = (machine.clone(), board.clone(), folder.clone());
            async move { Ok(machines::coordinator(machine, board, folder).await?) }
        });
    }
    let nodes = [
        (PROVIDER, machines::provider_config(&from, &given, transport), from.join("node.toml")),
        (CONSUMER, machines::consumer_config(&to, &taken, transport), to.join("node.toml")),
    ];
    for (name, text, file) in nodes {
        let (machine, board) = (Machine::new(seed, name, &trace), board.clone());
        sim.host(name, move || {
            let (machine, board, file, text) = (machine.clone(), board.clone(), file.clone(), text.clone());
            async move { Ok(machines::node(machine, board, name, file, text).await?) }
        });
    }
    let mut scene = Scene {
        sim,
        board,
        trace: trace.clone(),
        oracle: Oracle::new(MemoryDatabase::named(&taken), to.clone()),
        sources: Sources::new(&from, &given),
        looked: Duration::ZERO,
    };
    let faults = scene.exchange(Plan::new(seed, transport == "quic"));
    let (settled, failed) = scene.verdict();
    let seconds = scene.sim.elapsed().as_secs();
    drop(scene);
    MemoryDatabase::forget(&given);
    MemoryDatabase::forget(&taken);
    let (trace, events) = trace.hash();
    Done { trace, events, faults, settled, failed, seconds }
}

struct Scene<'a> {
    sim: Sim<'a>,
    board: Board,
    trace: Trace,
    oracle: Oracle,
    sources: Sources,
    looked: Duration,
}

impl Scene<'_> {
    fn exchange(&mut self, mut plan: Plan) -> usize {
        self.until("both nodes are up", 60, |scene| scene.board.lock().up.len() == 2);
        self.until("the faults begin", 60, |scene| scene.sim.elapsed() >= faults::BEGIN);
        let mut faults = 0;
        let mut changed = 1;
        while !plan.is_over() {
            faults += plan.act(&mut self.sim).len();
            // Every job is kept under way; its source changes now and then.
            let second = self.sim.elapsed().as_secs();
            if second / 25 > changed {
                changed = second / 25;
                self.sources.change();
            }
            self.order_idle();
            self.step();
        }
        self.until("what was begun has ended", 1200, |scene| scene.open().is_empty());
        self.sources.change();
        let before = self.settled_jobs();
        for job in JOBS {
            self.board.lock().orders.push_back(JobId::parse(job).unwrap());
        }
        self.until("a fresh transfer of each job has settled", 300, |scene| {
            let now = scene.settled_jobs();
            JOBS.iter().enumerate().all(|(at, _)| now[at] > before[at]) && scene.open().is_empty()
        });
        faults
    }

    /// The centre's balance and the oracle; how many transfers settled and failed.
    fn verdict(&mut self) -> (usize, usize) {
        let settled: usize = self.settled_jobs().iter().sum();
        self.until("the centre knows of everything", 600, |scene| {
            let mut notes = scene.board.lock();
            notes.balance_wanted = true;
            notes
                .balance
                .as_ref()
                .is_some_and(|balance| balance.counts.pending == 0 && balance.counts.matched as usize >= settled)
        });
        // The centre may know more by now than what either node has last noted of itself.
        let noted = self.sim.elapsed() + 5 * machines::NOTED_EVERY;
        while self.sim.elapsed() < noted {
            self.step();
        }
        let notes = self.board.lock();
        let balance = notes.balance.as_ref().unwrap();
        self.oracle.judge(&self.sources, &notes.rows[PROVIDER], &notes.rows[CONSUMER], balance);
        (settled, notes.rows[CONSUMER].iter().filter(|row| row.state == State::Failed).count())
    }

    /// One tick; once a virtual second the consumer's tables are looked at.
    fn step(&mut self) {
        self.sim.step().unwrap_or_else(|e| panic!("at {:?}: {e}", self.sim.elapsed()));
        if self.sim.elapsed() >= self.looked + Duration::from_secs(1) {
            self.looked = self.sim.elapsed();
            self.oracle.look(&self.sources);
        }
    }

    fn until(&mut self, what: &str, seconds: u64, done: impl Fn(&Self) -> bool) {
        let end = self.sim.elapsed() + Duration::from_secs(seconds);
        while !done(self) {
            assert!(
                self.sim.elapsed() < end,
                "at {:?}, waited {seconds} s until {what}: {}",
                self.sim.elapsed(),
                self.describe()
            );
            self.step();
        }
        self.trace.event("test", what);
    }

    fn order_idle(&mut self) {
        let mut notes = self.board.lock();
        let Some(rows) = notes.rows.get(CONSUMER) else { return };
        let idle: Vec<JobId> = JOBS
            .iter()
            .map(|job| JobId::parse(job).unwrap())
            .filter(|job| !rows.iter().any(|row| row.job == *job && !row.state.is_final()))
            .filter(|job| !notes.orders.contains(job))
            // A few runs of each are enough to be hit.
            .filter(|job| rows.iter().filter(|row| row.job == *job).count() < 12)
            .collect();
        notes.orders.extend(idle);
    }

    fn open(&self) -> Vec<String> {
        let notes = self.board.lock();
        let mut open: Vec<String> = notes.orders.iter().map(|job| format!("order {job}")).collect();
        for (node, rows) in &notes.rows {
            let rows = rows.iter().filter(|row| !row.state.is_final());
            open.extend(rows.map(|row| format!("{node} {} {} {} {:?}", row.id, row.job, row.state, row.problem)));
        }
        open
    }

    fn settled_jobs(&self) -> [usize; 3] {
        let notes = self.board.lock();
        let rows = notes.rows.get(CONSUMER).map(Vec::as_slice).unwrap_or_default();
        JOBS.map(|job| rows.iter().filter(|row| row.job.as_str() == job && row.state == State::Settled).count())
    }

    fn describe(&self) -> String {
        let rows: Vec<String> =
            self.board.lock().rows.values().flatten().map(|row| format!("{} {}", row.job, row.state)).collect();
        let balance = self.board.lock().balance.as_ref().map(|balance| balance.counts);
        format!("open {:#?}, all {rows:?}, balance {balance:?}", self.open())
    }
}

static RUNS: AtomicU64 = AtomicU64::new(0);
/// Coarser than the builder's: minutes of virtual time pass in seconds, and no line is faster anyway.
const TICK: Duration = Duration::from_millis(5);

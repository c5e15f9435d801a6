//! Kills and power cuts on one large file and on many small ones, again and again while one version follows the other:
//! old or new and never a mix, and no receipt ahead of the disk. 4 GiB and 20,000 files in the long run, with 20 kills
//! of each role and 10 cuts of each node; 96 MiB and 400 files otherwise, with 2 of each.

use crate::api::{get, token};
use crate::centre::newest;
use crate::crash::{assert_balanced, patience, settled_since, started, transfers};
use crate::exchange::{assert_settled, folder};
use crate::power::{landing, on_lossy_disks};
use crate::receipts::{exported, verify, wait_for_proof};
use crate::support::lossy::{Random, is_possible};
use crate::support::matter::{Bounds, Large, Look, Many, Matter, Watcher, prints};
use crate::support::{CONSUMER, PROVIDER, Role, Site, compare_folders, long, posthouse, run, text, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_large_file_is_old_or_new_under_kills() {
    under_kills(large(96, 4_096), "upsert", "64 MiB");
}
#[test]
fn many_files_are_old_or_new_each_under_kills() {
    under_kills(many(false), "mirror", "8 MiB");
}
#[test]
fn a_replaced_folder_is_old_or_new_as_a_whole_under_kills() {
    under_kills(many(true), "replace", "8 MiB");
}
/// The disk that a cut strikes lies in memory, of each file what is read and what is synced, and of the old version and
/// the new: 4 GiB would take 16 of it. 768 MiB take 3 GiB, and half as much again where a part is left behind.
#[test]
fn a_large_file_is_old_or_new_after_power_cuts() {
    under_cuts(large(72, 768), "upsert", "64 MiB");
}
#[test]
fn many_files_are_old_or_new_each_after_power_cuts() {
    under_cuts(many(false), "mirror", "8 MiB");
}
#[test]
fn a_replaced_folder_is_old_or_new_as_a_whole_after_power_cuts() {
    under_cuts(many(true), "replace", "8 MiB");
}

/// One file of so many MiB.
fn large(ordinarily: u64, at_length: u64) -> Arc<dyn Matter> {
    Arc::new(Large { blocks: if long() { at_length } else { ordinarily } })
}

fn many(as_one: bool) -> Arc<dyn Matter> {
    Arc::new(Many { count: if long() { 20_000 } else { 400 }, as_one })
}

fn under_kills(matter: Arc<dyn Matter>, write: &str, bandwidth: &str) {
    let mut course = Course::start(matter, write, bandwidth, false);
    let watcher = Watcher::start(course.matter.clone(), course.inbox.clone(), course.bounds.clone());
    let (rounds, kills) = if long() { (5, 4) } else { (2, 1) };
    for role in [Role::Provider, Role::Consumer, Role::Coordinator] {
        for round in 0..rounds {
            course.round(&format!("{role:?} round {round}"), kills, |course| course.kill(role));
        }
    }
    let (seen, last) = (watcher.finish(), course.version());
    assert!(seen.contains(&0) && seen.contains(&last), "nobody has looked: {seen:?} of {last}");
    course.end();
}

fn under_cuts(matter: Arc<dyn Matter>, write: &str, bandwidth: &str) {
    if !is_possible() {
        return;
    }
    let mut course = Course::start(matter, write, bandwidth, true);
    let rounds = if long() { 10 } else { 2 };
    for role in [Role::Consumer, Role::Provider] {
        for round in 0..rounds {
            // At the moment when somebody first has a receipt, and at any other.
            let at_receipt = round % 2 == 0;
            course.round(&format!("{role:?} round {round}"), 1, |course| course.cut(role, at_receipt));
        }
    }
    assert!(course.receipts > 0, "no receipt was there at any cut");
    course.end();
}

/// One job over which version after version is landed, whatever strikes meanwhile.
struct Course {
    matter: Arc<dyn Matter>,
    source: tempfile::TempDir,
    site: Site,
    /// For the centre's API.
    viewer: String,
    inbox: PathBuf,
    bounds: Bounds,
    /// The last transfer that was settled.
    last: String,
    /// How long the first took, by which moments are drawn.
    seconds: f64,
    random: Random,
    strikes: u64,
    /// Strikes in the midst of a transfer.
    midst: u64,
    /// Receipts that somebody had of a transfer when the power was cut.
    receipts: usize,
}

impl Course {
    /// With version 0 landed. Ordinarily a bandwidth makes a transfer of so little long enough to be struck.
    fn start(matter: Arc<dyn Matter>, write: &str, bandwidth: &str, lossy: bool) -> Self {
        let source = tempfile::tempdir().expect("a folder");
        matter.write(source.path(), 0);
        let mut scene = folder("keep", source.path(), false);
        scene.consumer = scene.consumer.replace("write = \"upsert\"", &format!("write = \"{write}\""));
        if !long() {
            scene.provider_node = format!("bandwidth = \"{bandwidth}\"");
        }
        let site = Site::start(&if lossy { on_lossy_disks(scene) } else { scene });
        let place = if lossy { landing(&site) } else { site.dir().to_owned() };
        let inbox = place.join("inbox");
        let viewer = token(&site, "viewer");
        let end = site.take(JOB);
        assert_settled(&end);
        assert_eq!(compare_folders(source.path(), &inbox), "");
        Self {
            matter,
            source,
            site,
            viewer,
            inbox,
            bounds: Arc::new(Mutex::new(0..=0)),
            last: id(&end),
            seconds: end["seconds"].as_f64().expect("a time"),
            random: Random(1),
            strikes: 0,
            midst: 0,
            receipts: 0,
        }
    }

    fn version(&self) -> u64 {
        *self.bounds.lock().expect("nobody has seen a mix").end()
    }

    /// Gives the source its next version and lands it, under strikes for as long as it takes.
    fn round(&mut self, what: &str, strikes: u64, strike: impl Fn(&mut Self)) {
        let version = self.version() + 1;
        *self.bounds.lock().expect("nobody has seen a mix") = version - 1..=version;
        self.matter.write(self.source.path(), version);
        let before = started(&self.site, JOB);
        for number in 0..strikes {
            if number > 0 && self.is_settled(Role::Consumer) {
                break;
            }
            strike(self);
        }
        let end = settled_since(&self.site, JOB, before, what);
        assert_settled(&end);
        assert_eq!(compare_folders(self.source.path(), &self.inbox), "", "{what}");
        *self.bounds.lock().expect("nobody has seen a mix") = version..=version;
        self.last = id(&end);
    }

    fn kill(&mut self, role: Role) {
        self.wait_for_moment();
        self.site.daemon(role).kill();
        self.count(role);
        self.site.daemon(role).restart();
    }

    /// Cuts the power of one node and holds what the disk then has against what was there before and is to come, and
    /// against every receipt that anybody has already. While that is looked at, the other node is held: no
    /// receipt comes meanwhile, and nothing is landed.
    fn cut(&mut self, role: Role, at_receipt: bool) {
        let other = if role == Role::Consumer { Role::Provider } else { Role::Consumer };
        if at_receipt {
            soon("a receipt", || self.is_settled(other));
        } else {
            self.wait_for_moment();
        }
        self.site.daemon(role).kill();
        self.count(role);
        let seed = self.random.below(usize::MAX) as u64;
        self.site.disk(role).cut(seed);

        let under_way = self.newest(other);
        let under_way = self.is_new(&under_way).then(|| id(&under_way));
        let given = prints(self.source.path());
        let mut stated = Vec::new();
        if let Some(transfer) = &under_way {
            stated.extend(self.stated(other, transfer));
            let path = format!("/api/v1/receipts/{transfer}");
            if get(&self.site, &path, Some(&self.viewer)).0 == 200 {
                // The centre has the roots of what was stated, which both parties' statements agree on.
                stated.push(given.clone());
            }
        }
        self.site.daemon(other).pause();
        let bounds = self.bounds.lock().expect("nobody has seen a mix").clone();
        let found = self.matter.look(&self.inbox, &bounds, Look::Whole);
        assert!(found.is_some(), "a folder was exchanged while nobody ran");
        let disk = prints(&self.inbox);
        self.site.daemon(role).restart();
        let config = self.site.config(name(role));
        wait_for("it is back", Duration::from_secs(60), || posthouse(&["job", "list", "--config", &config]).code == 0);
        if let Some(transfer) = &under_way {
            stated.extend(self.stated(role, transfer));
        }
        self.site.daemon(other).resume();
        for stated in &stated {
            assert_eq!(differing(stated, &given), Vec::<&str>::new(), "{role:?}: a receipt of something else");
            assert_eq!(differing(stated, &disk), Vec::<&str>::new(), "{role:?}: a receipt is ahead of the disk");
        }
        self.receipts += stated.len();
    }

    /// A moment while the newest transfer moves, as far as that can be had.
    fn wait_for_moment(&mut self) {
        soon("it moves", || {
            let newest = self.newest(Role::Consumer);
            let begins = newest["state"] == "planned" || newest["state"] == "offered";
            self.is_new(&newest) && !begins
        });
        let share = self.random.below(1_000) as f64 / 4_000.0;
        std::thread::sleep(Duration::from_secs_f64(self.seconds * share));
    }

    /// Counts a strike, and by what a node that runs knows right after it, whether it was in the midst.
    fn count(&mut self, struck: Role) {
        let newest = self.newest(if struck == Role::Consumer { Role::Provider } else { Role::Consumer });
        let is_midst = ["moving", "staged", "committed"].iter().any(|state| newest["state"] == *state);
        self.strikes += 1;
        self.midst += u64::from(is_midst && self.is_new(&newest));
    }

    /// The newest transfer, as a node knows it.
    fn newest(&self, role: Role) -> Value {
        newest(&self.site.config(name(role)))
    }
    fn is_new(&self, transfer: &Value) -> bool {
        transfer["transfer"].as_str().is_some_and(|id| id != self.last)
    }
    fn is_settled(&self, role: Role) -> bool {
        let newest = self.newest(role);
        newest["state"] == "settled" && self.is_new(&newest)
    }

    /// The files with their hashes that a node's receipt of a transfer states, where it has one.
    fn stated(&self, role: Role, transfer: &str) -> Option<BTreeMap<String, String>> {
        let config = self.site.config(name(role));
        let listed = posthouse(&["receipt", "list", "--config", &config, transfer, "--json"]).ok();
        if listed.stdout.trim().is_empty() {
            return None;
        }
        let out = tempfile::tempdir().expect("a folder");
        posthouse(&["receipt", "export", "--config", &config, transfer, "--out", text(out.path())]).ok();
        Some(listed_files(&out.path().join("files.b3")))
    }

    /// Everything is even, and was landed once; nothing is left behind; the last receipt holds for everybody.
    fn end(self) {
        let share = (self.strikes / 4).max(1);
        assert!(self.midst >= share, "{} of {} strikes came in the midst of a transfer", self.midst, self.strikes);
        let runs = self.version() + 1;
        assert_balanced(&self.site, runs);
        for node in [PROVIDER, CONSUMER] {
            let config = self.site.config(node);
            let listed = posthouse(&["receipt", "list", "--config", &config, "--json"]).ok();
            let of = |line: &str| id(&serde_json::from_str(line).expect("an object a line"));
            let receipts: Vec<String> = listed.stdout.lines().map(of).collect();
            let distinct: BTreeSet<&String> = receipts.iter().collect();
            let settled = transfers(&config, JOB).iter().filter(|transfer| transfer["state"] == "settled").count();
            let counts = [receipts.len(), distinct.len(), settled].map(|count| count as u64);
            assert_eq!(counts, [runs; 3], "{node}: receipts, transfers that have one, and transfers that are settled");
        }
        let beside = self.inbox.parent().expect("a folder");
        wait_for("nothing is left behind", Duration::from_secs(30), || {
            run(Command::new("find").arg(beside).args(["-name", ".posthouse-*"])).stdout.is_empty()
        });
        wait_for_proof(&self.site, &self.last);
        let (export, trust) = exported(&self.site, &self.last);
        let verified = verify(&export, &trust).ok().json();
        assert_eq!((&verified["verified"], &verified["standing"]), (&Value::Bool(true), &Value::from("proven")));
        let (stated, given) = (listed_files(&export.join("files.b3")), prints(self.source.path()));
        assert_eq!(differing(&stated, &given), Vec::<&str>::new());
        assert_eq!(differing(&stated, &prints(&self.inbox)), Vec::<&str>::new());
        assert_eq!(compare_folders(self.source.path(), &self.inbox), "");
    }
}

fn name(role: Role) -> &'static str {
    if role == Role::Provider { PROVIDER } else { CONSUMER }
}

fn id(transfer: &Value) -> String {
    transfer["transfer"].as_str().expect("an id").to_owned()
}

fn listed_files(list: &Path) -> BTreeMap<String, String> {
    let list = std::fs::read_to_string(list).expect("a folder's receipt has a list");
    let line = |line: &str| line.split_once("  ").map(|(hash, name)| (name.to_owned(), hash.to_owned()));
    list.lines().map(|text| line(text).expect("a hash and a name")).collect()
}

/// Some names of files that are not the same on both sides.
fn differing<'a>(left: &'a BTreeMap<String, String>, right: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let names = left.keys().chain(right.keys());
    names.filter(|name| left.get(*name) != right.get(*name)).map(String::as_str).take(10).collect()
}

/// Waits without a pause between two looks: what it waits for may be over in no time.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < patience(), "it does not come: {what}");
    }
}

const JOB: &str = "tree";

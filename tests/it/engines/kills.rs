//! SIGKILL of either node at random moments of a load from one MariaDB table into another, for each way of writing: equal
//! afterwards, nothing lost or doubled, and a reader of the target sees what was there before or all of what came. Eight
//! kills ordinarily, thirty in the long run. Kills of the server itself are elsewhere.

use super::{assert_same_rows, job, mariadb, moment, resource, settled_over_a_kill};
use crate::crash::assert_balanced;
use crate::exchange::assert_settled;
use crate::support::mariadb::{MariaDb, client};
use crate::support::{Role, Scene, Site, long};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

#[test]
fn a_mariadb_table_that_is_replaced_survives_kills_and_its_readers_see_whole_ones_only() {
    let mut scene = Kills::start("replace");
    let reader = Reader::start(&scene.server, "SELECT CONCAT_WS(' ', COUNT(*), MIN(mark), MAX(mark)) FROM landed");
    // Each state of the source has a mark of its own in every row.
    scene.rounds(3, |round| format!("UPDATE parcels SET mark = {round}, area = area + 1"));
    reader.saw_only((0..=round_count(3)).map(|mark| format!("{} {mark} {mark}", rows())));
    scene.assert_balanced();
}

#[test]
fn a_mariadb_table_that_is_appended_to_survives_kills() {
    let mut scene = Kills::start("append");
    let reader = Reader::start(&scene.server, "SELECT COUNT(*) FROM landed");
    scene.rounds(2, |round| format!("DELETE FROM landed WHERE id % 2 = {}", round % 2));
    // The half that was taken away comes back at once.
    reader.saw_only([rows(), rows() / 2].map(|count| count.to_string()));
    scene.assert_balanced();
}

#[test]
fn a_mariadb_table_that_is_upserted_survives_kills() {
    let mut scene = Kills::start("upsert");
    let reader = Reader::start(&scene.server, "SELECT CONCAT_WS(' ', COUNT(*), SUM(owner = 'edited')) FROM landed");
    scene.rounds(3, |round| {
        format!("UPDATE landed SET owner = 'edited' WHERE id % 3 = 0; DELETE FROM landed WHERE id % 100 = {round}")
    });
    // Rows that were changed and rows that were taken away are mended at once.
    let states = [(0, 0), (0, rows() / 3), (rows() / 100, rows() / 3 - rows() / 300)];
    reader.saw_only(states.map(|(gone, edited)| format!("{} {edited}", rows() - gone)));
    scene.assert_balanced();
}

struct Kills {
    site: Site,
    /// Holds what is given and what has landed.
    server: MariaDb,
    write: &'static str,
    kills: u64,
}

impl Kills {
    /// Lands the table a first time.
    fn start(write: &'static str) -> Self {
        let server = MariaDb::start(&[]);
        // More than one split.
        server.sql(&format!(
            "CREATE TABLE parcels (id bigint PRIMARY KEY, owner varchar(40) NOT NULL, area decimal(12,2), mark int NOT NULL,
               drawing text);
             INSERT INTO parcels SELECT seq, CONCAT('户主 ', seq), seq / 7, 0, REPEAT(MD5(seq), 4) FROM seq_1_to_{};
             ANALYZE TABLE parcels",
            rows()
        ));
        let scene = Scene {
            provider: mariadb("db", &server) + &resource(JOB, "db", "parcels", &["id"]),
            consumer: mariadb("db", &server) + &job(JOB, "db", "landed", write),
            grants: vec![JOB],
            ..Scene::default()
        };
        let site = Site::start(&scene);
        assert_settled(&site.take(JOB));
        let scene = Self { site, server, write, kills: 0 };
        scene.assert_equal();
        scene
    }

    /// One kill a round, of either node in turn; ten rounds in the long run. Before each the tables are made to differ.
    fn rounds(&mut self, few: u64, differ: impl Fn(u64) -> String) {
        for (round, role) in (1..=round_count(few)).zip([Role::Consumer, Role::Provider].into_iter().cycle()) {
            self.server.sql(&differ(round));
            settled_over_a_kill(&mut self.site, role, JOB, moment(&format!("{role:?} {}", self.write), round));
            self.assert_equal();
            self.kills += 1;
        }
    }

    /// Both tables have the same rows, each as often.
    fn assert_equal(&self) {
        let rows = |table: &str| -> Vec<String> {
            let columns = "CONCAT_WS('|', id, owner, area, mark, MD5(drawing))";
            let printed = self.server.sql(&format!("SELECT {columns} FROM {table} ORDER BY id"));
            String::from_utf8(printed).expect("UTF-8").lines().map(str::to_owned).collect()
        };
        let (given, landed) = (rows("parcels"), rows("landed"));
        assert_eq!(given.len() as u64, self::rows());
        assert_same_rows(self.write, &given, &landed);
    }

    fn assert_balanced(&self) {
        // What a kill has left is gone once a transfer has run to its end.
        assert_settled(&self.site.take(JOB));
        self.assert_equal();
        assert_balanced(&self.site, self.kills + 2);
        let left = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME LIKE 'posthouse\\_%'
            AND TABLE_NAME NOT IN ('posthouse_applied', 'posthouse_quarantine')";
        assert_eq!(
            self.server.value(left),
            "0",
            "no staging table is left: {}",
            self.server.value(
                "SELECT GROUP_CONCAT(TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_NAME LIKE 'posthouse\\_%'"
            )
        );
        assert_eq!(self.server.value("SELECT COUNT(*) FROM posthouse_quarantine"), "0");
    }
}

/// Looks at the target again and again, beside everything else.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Reader {
    fn start(server: &MariaDb, look: &'static str) -> Self {
        let (stop, socket): (_, PathBuf) = (Arc::new(AtomicBool::new(false)), server.socket());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                let output = client(&socket, Some("work")).args(["-e", look]).output().expect("mariadb ends");
                // An error is no whole table either.
                let said = if output.status.success() { output.stdout } else { output.stderr };
                seen.insert(String::from_utf8_lossy(&said).trim().to_owned());
                std::thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Self { stop, thread }
    }
    /// It is told to stop; everything that it saw is one of these, and it saw more than one of them.
    fn saw_only(self, states: impl IntoIterator<Item = String>) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().expect("it looks until it is told to stop");
        let states: BTreeSet<String> = states.into_iter().collect();
        assert!(seen.is_subset(&states), "{seen:#?} and not only {states:#?}");
        assert!(seen.len() > 1, "the table changed: {seen:#?}");
    }
}

fn rows() -> u64 {
    if long() { 300_000 } else { 120_000 }
}

fn round_count(few: u64) -> u64 {
    if long() { 10 } else { few }
}

const JOB: &str = "parcels";

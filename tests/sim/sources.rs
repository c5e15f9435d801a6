//! What the provider has: a table in memory, a table in SQLite, a small folder; and how they change.
//! Every state they ever had is remembered, for the oracle.

use posthouse_connectors::memory::{MemoryDatabase, OwnedValue, Row};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(crate) struct Sources {
    pub(crate) people: MemoryDatabase,
    pub(crate) permits: PathBuf,
    pub(crate) scans: PathBuf,
    /// Each state that the table `people` ever had; the consumer's copy is always one of them, or empty.
    pub(crate) people_states: Vec<Vec<Row>>,
    /// Each row that the table `permits` ever had.
    pub(crate) permits_rows: BTreeSet<(i64, String, i64)>,
    changes: i64,
}

impl Sources {
    pub(crate) fn new(folder: &Path, database: &str) -> Self {
        let people = MemoryDatabase::named(database);
        people.set_split_rows(50);
        people.create("people", contract());
        let permits = folder.join("permits.db");
        let table = "CREATE TABLE permits (id INTEGER PRIMARY KEY, holder TEXT NOT NULL, updated_at INTEGER NOT NULL)";
        rusqlite::Connection::open(&permits).unwrap().execute_batch(table).unwrap();
        let scans = folder.join("scans");
        fs::create_dir_all(scans.join("许可证/2026")).unwrap();
        let states = Vec::new();
        let mut sources =
            Self { people, permits, scans, people_states: states, permits_rows: BTreeSet::new(), changes: 0 };
        sources.change();
        sources
    }

    /// Rows arrive and change, files arrive and change.
    pub(crate) fn change(&mut self) {
        self.changes += 1;
        let change = self.changes;
        for id in 0..120 * change {
            if change == 1 || id % 7 == 0 || id >= 120 * (change - 1) {
                let name = OwnedValue::Text(format!("居民 {id} 版本 {change}"));
                assert!(self.people.put("people", vec![OwnedValue::Integer(id), name]));
            }
        }
        self.people_states.push(self.people.rows("people"));
        let mut permits = rusqlite::Connection::open(&self.permits).unwrap();
        let transaction = permits.transaction().unwrap();
        for id in 100 * (change - 1)..100 * change {
            let row = (id, format!("单位 {id}"), change * 1000 + id % 10);
            transaction.execute("INSERT INTO permits VALUES (?1, ?2, ?3)", (&row.0, &row.1, &row.2)).unwrap();
            self.permits_rows.insert(row);
        }
        if change > 1 {
            let row = (5, format!("单位 5 版本 {change}"), change * 1000 + 500);
            transaction
                .execute("UPDATE permits SET holder = ?2, updated_at = ?3 WHERE id = ?1", (&row.0, &row.1, &row.2))
                .unwrap();
            self.permits_rows.insert(row);
        }
        transaction.commit().unwrap();
        self.file("readme.txt", 300, change);
        self.file(&format!("许可证/2026/{change}.pdf"), 70_000, change);
        self.file("许可证/large.bin", (2 << 20) + 12_345, 1);
        self.file("empty", 0, 1);
    }

    /// The time of a file is its content's, so that runs of one seed are alike.
    fn file(&self, name: &str, bytes: usize, version: i64) {
        let path = self.scans.join(name);
        let content: Vec<u8> = (0..bytes).map(|at| (at as i64 * 31 / 17 + at as i64 / 1000 + version) as u8).collect();
        if fs::read(&path).is_ok_and(|there| there == content) {
            return;
        }
        fs::write(&path, content).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + version.unsigned_abs());
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    }
}

pub(crate) fn permits(file: &Path) -> BTreeSet<(i64, String, i64)> {
    let db = rusqlite::Connection::open(file).unwrap();
    let Ok(mut query) = db.prepare("SELECT id, holder, updated_at FROM permits") else { return BTreeSet::new() };
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn contract() -> Contract {
    let item = |name: &str, r#type| Item { name: name.to_owned(), r#type, nullable: false, comment: None };
    Contract {
        items: vec![item("id", ContractType::Integer), item("name", ContractType::Text)],
        key: vec!["id".to_owned()],
    }
}

//! Tables of any shape, drawn by a seed, from one PostgreSQL to another through real nodes. Each one either lands
//! equal, as plain SQL on both databases sees it, without the rows that nobody can carry, or is refused before
//! anything moved, by a code and the column's name, and leaves nothing. `SEED=7` draws the seventh alone, `SEED=7-9` three.

mod drawing;
pub(crate) mod random;
mod types;

use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, Ran, Scene, Site, long, text};
use drawing::{Case, literal, quote};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn tables_of_any_shape_land_equal_or_are_refused_by_name() {
    let seeds: Vec<u64> = match std::env::var("SEED").ok() {
        Some(seeds) => {
            let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
            let number = |text: &str| -> u64 { text.parse().expect("SEED is a number, or two with a dash") };
            (number(first)..=number(last)).collect()
        }
        None => (1..=if long() { 500 } else { 40 }).collect(),
    };
    let mut wrong = Vec::new();
    let mut seen = Seen::default();
    for seeds in seeds.chunks(CASES_OF_A_SITE) {
        let cases: Vec<Case> = seeds.iter().map(|seed| Case::draw(*seed)).collect();
        seen.add(&cases);
        wrong.extend(play(&cases));
    }
    println!("{seen:?}");
    assert!(wrong.is_empty(), "of {} tables drawn:\n{}", seeds.len(), wrong.join("\n\n"));
    if seeds.len() >= 40 {
        // What is drawn is worth its name only if it meets all this.
        let Seen { refused, premade, keyless, bad, wide } = seen;
        assert!(refused > 0 && premade > 0 && keyless > 0 && bad > 0 && wide > 0, "{seen:?}");
    }
}

/// How many of the tables were of a kind.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    refused: usize,
    premade: usize,
    keyless: usize,
    /// With rows that nobody can carry, if the draw comes to it.
    bad: usize,
    wide: usize,
}

impl Seen {
    fn add(&mut self, cases: &[Case]) {
        let count = |holds: &dyn Fn(&Case) -> bool| cases.iter().filter(|case| holds(case)).count();
        self.refused += count(&|case| case.refused().is_some());
        self.premade += count(&|case| case.premade);
        self.keyless += count(&|case| case.key_names().is_empty());
        self.bad += count(&|case| case.columns.iter().any(|column| !column.kind.bad.is_empty()));
        self.wide += count(&|case| case.columns.len() >= 100);
    }
}

/// Moves these tables between two databases; what went wrong, each with its seed.
fn play(cases: &[Case]) -> Vec<String> {
    // Settings that show in every text, unless a session says otherwise.
    let server = Postgres::start(&[
        ("TimeZone", "Asia/Shanghai"),
        ("DateStyle", "SQL, DMY"),
        ("IntervalStyle", "iso_8601"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "0"),
        ("max_connections", "60"),
    ]);
    server.psql("CREATE DATABASE source; CREATE DATABASE target;");
    let mut source = format!("\\connect source\n{SESSION}");
    let mut target = format!("\\connect target\n{SESSION}CREATE SCHEMA expected;\n");
    for case in cases {
        source += &case.ddl();
        source += &case.insert();
        target +=
            &if case.premade { case.ddl() } else { format!("CREATE SCHEMA IF NOT EXISTS {};\n", quote(&case.schema)) };
        target += &if case.premade || case.refused().is_some() { String::new() } else { case.expected_ddl() };
    }
    server.psql(&source);
    server.psql(&target);
    let site = Site::start(&scene(&server, cases));
    for case in cases {
        site.grant(&case.id);
    }
    let ran = run_all(&site, cases);
    let source = Look::at(&server, "source", cases);
    let target = Look::at(&server, "target", cases);
    let mut wrong = Vec::new();
    for (case, ran) in cases.iter().zip(&ran) {
        let found = match case.refused() {
            Some((column, code)) => refused(case, &column.name, code, ran, &target),
            None => settled(case, ran, &source, &target),
        };
        if let Err(what) = found {
            wrong.push(format!("SEED={}: {what}\n{}{}", case.seed, case.told(), case.ddl()));
        }
    }
    let leftovers = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^posthouse_(staging|new)'";
    let left = server.psql(&format!("\\connect target\n{leftovers};"));
    if !left.is_empty() {
        wrong.push(format!("left in the database: {}", String::from_utf8_lossy(&left)));
    }
    if !wrong.is_empty() {
        wrong.push(format!("{}\n{}", site.provider.log_tail(), site.consumer.log_tail()));
    }
    wrong
}

/// The table went over: its rows, and no others, are there, under the types that are promised.
fn settled(case: &Case, ran: &Ran, source: &Look, target: &Look) -> Result<(), String> {
    if ran.code != 0 {
        return Err(format!("did not settle: {ran:#?}"));
    }
    let end = ran.json();
    let given = &source.rows[&case.id];
    let Some(landed) = target.rows.get(&case.id) else { return Err(format!("nothing landed: {end}")) };
    if given != landed {
        return Err(format!("{given:?} became {landed:?}: {end}"));
    }
    let bad = source.all[&case.id] - given.0;
    if end["quarantined"] != bad {
        return Err(format!("{bad} rows beside {} cannot move: {end}", given.0));
    }
    let (found, wanted) = match case.premade {
        true => (target.columns.get(&case.id), source.columns.get(&case.id)),
        false => (target.columns.get(&case.id), target.expected.get(&case.id)),
    };
    if found != wanted { Err(format!("its columns are\n{found:?}\nand not\n{wanted:?}")) } else { Ok(()) }
}

/// The column was named, and nothing stands there.
fn refused(case: &Case, column: &str, code: &str, ran: &Ran, target: &Look) -> Result<(), String> {
    let said = &ran.stderr;
    // Control characters of another node are shown as blanks.
    let shown: String = column.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let is_named = [shown.as_str(), column].iter().any(|name| said.contains(&format!("`{name}`")));
    if ran.code == 0 || !said.contains(code) || !is_named {
        return Err(format!("was not refused for {column:?} by {code}: {ran:#?}"));
    }
    match target.rows.get(&case.id) {
        None if !case.premade => Ok(()),
        Some((0, _)) if case.premade => Ok(()),
        found => Err(format!("was refused, and left {found:?}")),
    }
}

/// What plain SQL sees of the tables in one database, by the case's name; of those only that are there.
#[derive(Debug, Default)]
struct Look {
    /// Rows that can move: their number and a digest of their texts.
    rows: BTreeMap<String, (u64, String)>,
    all: BTreeMap<String, u64>,
    columns: BTreeMap<String, String>,
    /// Columns that a transfer is to make.
    expected: BTreeMap<String, String>,
}

impl Look {
    fn at(server: &Postgres, database: &str, cases: &[Case]) -> Self {
        let begin = format!("\\connect {database}\n{SESSION}\\pset fieldsep '|'\n");
        let ask = |sql: &str| -> Vec<Vec<String>> {
            let out = String::from_utf8(server.psql(&format!("{begin}{sql}"))).expect("psql writes UTF-8");
            out.lines().map(|line| line.splitn(4, '|').map(str::to_owned).collect()).collect()
        };
        let is_there =
            |case: &Case| format!("SELECT '{}', to_regclass({}) IS NOT NULL;\n", case.id, literal(&case.name()));
        let there = ask(&cases.iter().map(is_there).collect::<String>());
        let there: Vec<&Case> =
            cases.iter().zip(there).filter(|(_, line)| line[1] == "t").map(|(case, _)| case).collect();
        let mut sql = String::new();
        for case in there {
            sql += &case.print(&case.movable_at(database), database == "target");
            for (what, name) in [("columns", case.name()), ("expected", format!("expected.{}", case.id))] {
                let _ = writeln!(
                    sql,
                    "{};",
                    COLUMNS.replace("{id}", &case.id).replace("{what}", what).replace("{table}", &literal(&name))
                );
            }
        }
        let mut look = Self::default();
        for line in ask(&sql) {
            let [id, what, first, second] = line.as_slice() else { panic!("psql wrote {line:?}") };
            match what.as_str() {
                "columns" => look.columns.insert(id.clone(), second.clone()),
                "expected" => look.expected.insert(id.clone(), second.clone()),
                all => {
                    let number = |text: &str| text.parse().expect("a count");
                    look.all.insert(id.clone(), number(all));
                    look.rows.insert(id.clone(), (number(first), second.clone()));
                    None
                }
            };
        }
        look
    }
}

/// Runs the job of each, a few at a time.
fn run_all(site: &Site, cases: &[Case]) -> Vec<Ran> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((index, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|index| Some((index, cases.get(index)?)))
                {
                    let ran = site.job(CONSUMER, &case.id);
                    done.lock().expect("no thread failed").insert(index, ran);
                }
            });
        }
    });
    done.into_inner().expect("no thread failed").into_values().collect()
}

fn scene(server: &Postgres, cases: &[Case]) -> Scene {
    let connection = |database: &str| {
        let url = format!("postgres://postgres@/{database}?host={}", text(server.socket()));
        format!("[connection.db]\nkind = \"postgres\"\nurl = \"{url}\"\n")
    };
    let (mut provider, mut consumer) = (connection("source"), connection("target"));
    // A TOML string is written like one of JSON.
    let string = |text: &str| serde_json::Value::from(text).to_string();
    for case in cases {
        let table = string(&case.name());
        let key: Vec<String> = case.key_names().into_iter().map(string).collect();
        let _ = write!(
            provider,
            "\n[[resource]]\nid = \"{0}\"\nconnection = \"db\"\ntable = {table}\nkey = [{1}]\n",
            case.id,
            key.join(", ")
        );
        let _ = write!(
            consumer,
            "\n[[job]]\nname = \"{0}\"\nresource = \"{PROVIDER}/{0}\"\n\
             into = {{ connection = \"db\", table = {table} }}\nmode = \"full\"\nwrite = \"{1}\"\nschedule = \"manual\"\n",
            case.id, case.write
        );
    }
    Scene { provider, consumer, ..Scene::default() }
}

/// Columns and keys of a table on one line.
const COLUMNS: &str = "
SELECT '{id}', '{what}', '', (SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
    ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text
  || coalesce((SELECT jsonb_agg(pg_get_indexdef(i.indexrelid, k, true) || i.indisprimary ORDER BY i.indexrelid, k)
    FROM pg_index i, generate_series(1, i.indnatts) k WHERE i.indrelid = c.oid)::text, '')
FROM pg_class c WHERE c.oid = to_regclass({table})";

/// Whatever the server's own settings are.
const SESSION: &str = "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET client_min_messages = 'error';
";
/// A node with more resources than this is not what is tested here.
const CASES_OF_A_SITE: usize = 50;
const AT_A_TIME: usize = 3;

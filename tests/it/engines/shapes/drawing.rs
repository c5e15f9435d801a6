//! Tables as the seed draws them for one engine: names, columns, keys, rows, how they are moved.

use super::super::look::Shown;
use super::super::{Engine, Place};
use super::kinds::{Kind, Literal};
use crate::schemas::random::Random;

/// One table, and how it is to be moved.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    /// Of the resource and the job.
    pub(super) id: String,
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
    /// So many of the first columns are the key.
    key: usize,
    pub(super) write: &'static str,
    /// Rows that have to arrive, as lists of values.
    good: Vec<String>,
    /// Rows with a value that is bad somewhere on the way.
    bad: Vec<String>,
    /// The columns for which nothing may move; whoever meets one of them first refuses it.
    pub(super) refused: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    not_null: bool,
}

impl Case {
    pub(super) fn draw(from: Engine, to: Engine, seed: u64) -> Self {
        // Seeds that follow one another, and directions, are to have nothing in common.
        let direction = (from as u64) * 16 + to as u64;
        let random = &mut Random((seed * 1_000 + direction).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let table = format!("{} {seed}", random.pick(NAMES));
        let width = match random.below(10) {
            0 => 1,
            1..=7 => 2 + random.below(9),
            _ => 11 + random.below(20),
        } as usize;
        let key = match random.below(10) {
            0..=2 => 0,
            3..=6 => 1,
            _ => width.min(2),
        };
        let write = match key {
            0 => *random.pick(&["replace", "append"]),
            _ => *random.pick(&["replace", "append", "upsert"]),
        };
        let id = format!("s{seed}");
        let mut case = Self {
            seed,
            id,
            table,
            columns: Vec::new(),
            key,
            write,
            good: Vec::new(),
            bad: Vec::new(),
            refused: Vec::new(),
        };
        case.draw_columns(from, to, width, random);
        case.draw_rows(from, to, random);
        case
    }

    fn draw_columns(&mut self, from: Engine, to: Engine, width: usize, random: &mut Random) {
        let odd = random.chance(10).then(|| random.below(width as u64) as usize);
        let first = random.below(NAMES.len() as u64) as usize;
        for index in 0..width {
            // A stretch of the list, so that none comes twice.
            let mut name = NAMES[(first + index) % NAMES.len()].to_owned();
            let mut kind = match index {
                0 if self.key > 0 => Kind::number(from, random),
                1 if self.key > 1 => Kind::name(from),
                _ => Kind::any(from, random),
            };
            if Some(index) == odd && index >= self.key {
                match Kind::unsupported(from, random) {
                    Some(unsupported) if random.chance(70) => kind = unsupported,
                    _ if to == Engine::MariaDb => name = (*random.pick(REFUSED_BY_MARIADB)).to_owned(),
                    _ => {}
                }
            }
            let is_refused =
                kind.refused_at.contains(&to) || to == Engine::MariaDb && REFUSED_BY_MARIADB.contains(&name.as_str());
            if is_refused {
                self.refused.push(name.clone());
            }
            // A column of which there is nothing but NULL takes it.
            let not_null = index < self.key || (random.chance(20) && kind.values.iter().any(|value| value.sql != NULL));
            self.columns.push(Column { name, kind, not_null });
        }
    }

    fn draw_rows(&mut self, from: Engine, to: Engine, random: &mut Random) {
        let count = match random.below(10) {
            0 => 0,
            1 => 1,
            2..=7 => 2 + random.below(60),
            _ => 200 + random.below(300),
        };
        for number in 0..count {
            // Few of the rows are bad ones.
            let may_be_bad = random.chance(15);
            let mut is_bad = false;
            let mut values = Vec::new();
            for (index, column) in self.columns.iter().enumerate() {
                let drawn = column.value(may_be_bad, to, random);
                is_bad |= drawn.is_some_and(|literal| literal.bad_at.contains(&to));
                values.push(match drawn {
                    // Rows have keys of their own.
                    _ if index == 0 && self.key > 0 => (number * 7 + 1).to_string(),
                    // A text is cut to its column's length by a cast alone.
                    Some(literal) if from == Engine::Postgres => {
                        format!("({})::{}", literal.sql, column.kind.declared)
                    }
                    Some(literal) => literal.sql.clone(),
                    None => NULL.to_owned(),
                });
            }
            let list = format!("({})", values.join(", "));
            if is_bad { self.bad.push(list) } else { self.good.push(list) }
        }
    }

    pub(super) fn key_names(&self) -> Vec<&str> {
        self.columns.iter().take(self.key).map(|column| column.name.as_str()).collect()
    }

    /// The statement that makes the table.
    pub(super) fn ddl(&self, place: &Place) -> String {
        let column = |column: &Column| {
            let null = match (column.not_null, place) {
                (true, _) => " NOT NULL",
                // Some sessions take no NULL where nothing is said.
                (false, Place::SqlServer(_)) => " NULL",
                (false, _) => "",
            };
            let declared = column.kind.declared.trim_end_matches(" NULL");
            let null = if column.kind.declared != declared && null.is_empty() { " NULL" } else { null };
            format!("  {} {declared}{null}", place.quote(&column.name))
        };
        let mut lines: Vec<String> = self.columns.iter().map(column).collect();
        if self.key > 0 {
            let key: Vec<String> = self.key_names().iter().map(|name| place.quote(name)).collect();
            lines.push(format!("  PRIMARY KEY ({})", key.join(", ")));
        }
        format!("CREATE TABLE {} (\n{}\n);\n", place.named(&self.table), lines.join(",\n"))
    }

    /// Statements that add the rows that have to arrive.
    pub(super) fn good_rows(&self, place: &Place) -> String {
        self.insert(place, &self.good)
    }
    /// Statements that add the others.
    pub(super) fn bad_rows(&self, place: &Place) -> String {
        self.insert(place, &self.bad)
    }

    fn insert(&self, place: &Place, rows: &[String]) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| place.quote(&column.name)).collect();
        let head = format!("INSERT INTO {} ({}) VALUES\n", place.named(&self.table), names.join(", "));
        rows.chunks(ROWS_AT_ONCE).map(|rows| format!("{head}{};\n", rows.join(",\n"))).collect()
    }

    /// Its columns as the source shows them.
    pub(super) fn at_source(&self) -> Vec<Shown> {
        let shown = |column: &Column| Shown { by: column.kind.by, ..Shown::new(&column.name, column.kind.means) };
        self.columns.iter().map(shown).collect()
    }
    /// And as the table shows them that a transfer made.
    pub(super) fn at_target(&self) -> Vec<Shown> {
        self.columns.iter().map(|column| Shown::new(&column.name, column.kind.means)).collect()
    }
}

impl Column {
    /// A value of a row; none for NULL.
    fn value(&self, may_be_bad: bool, to: Engine, random: &mut Random) -> Option<&Literal> {
        let fits = |literal: &&Literal| {
            (may_be_bad || !literal.bad_at.contains(&to)) && !(self.not_null && literal.sql == NULL)
        };
        let values: Vec<&Literal> = self.kind.values.iter().filter(fits).collect();
        if values.is_empty() || (!self.not_null && random.chance(12)) {
            return None;
        }
        Some(*random.pick(&values))
    }
}

const NULL: &str = "NULL";
const ROWS_AT_ONCE: usize = 50;

/// Names that every engine takes, no two of which any of them takes for one. More than a table has columns.
const NAMES: &[&str] = &[
    "id",
    "select",
    "Order",
    "USER",
    "table",
    "a\"b",
    "a.b",
    " leading",
    "two words",
    "姓名",
    "证件 号码",
    "it's",
    "back\\slash",
    "$1",
    "%s",
    "{x}",
    "s",
    "t",
    "place",
    "number",
    "CamelCase",
    "Ünïcødé",
    "1st",
    "-",
    "\"",
    "--",
    "/*",
    ";",
    "NULL",
    "true",
    "value",
    "a`b",
    "a]b",
    "[c",
    "長長長長長長長長長長長長",
    "a_name_of_fifty_bytes_which_leaves_room_for_numbers",
];
/// Names that PostgreSQL and SQLite take for a column, and MariaDB, or what is kept for our own tables there, does not.
const REFUSED_BY_MARIADB: &[&str] = &["trailing ", "posthouse_transfer"];

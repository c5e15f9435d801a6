//! Tables as the seed draws them: names, columns, keys, rows, and what is to become of them.

use super::random::Random;
use super::types::{Kind, Maker};
use std::fmt::Write as _;

/// One table, and how it is to be moved.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    /// Of the resource and the job.
    pub(super) id: String,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
    pub(super) key: Key,
    rows: u64,
    /// Whether the destination has the table already, in the very same form.
    pub(super) premade: bool,
    pub(super) write: &'static str,
}

#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    not_null: bool,
    made: Made,
}

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    Drawn,
    /// The row's number.
    Number,
    Identity(&'static str),
    /// From this column.
    Generated(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    None,
    /// Its columns are the first ones.
    Primary(usize),
    /// The same, by an index that carries the column behind them along.
    Including(usize),
    /// The same, by an index; NULL is no value of a key.
    Nullable(usize),
}

impl Key {
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Primary(count) | Self::Including(count) | Self::Nullable(count) => *count,
        }
    }
}

impl Case {
    pub(super) fn draw(seed: u64) -> Self {
        // Seeds that follow one another are to have nothing in common.
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let random = &mut random;
        let schema = match random.below(3) {
            0 => format!("{} {seed}", random.pick(NAMES).chars().take(10).collect::<String>()),
            _ => "public".to_owned(),
        };
        let mut table = name(random, &format!("{seed}"));
        if table.starts_with("posthouse_") {
            // Names like this are kept for Posthouse's own tables.
            table.insert(0, 'a');
        }
        let width = match random.below(20) {
            0..=2 => 1,
            3..=14 => 2 + random.below(11),
            15..=17 => 13 + random.below(48),
            18 => 61 + random.below(140),
            _ => 300,
        } as usize;
        let key = match random.below(10) {
            0..=3 => Key::None,
            4..=6 => Key::Primary(1 + random.below(3).min(width as u64 - 1) as usize),
            7 => Key::Including((1 + random.below(2) as usize).min(width.max(2) - 1)),
            _ => Key::Nullable(1),
        };
        let rows = match random.below(10) {
            0 => 0,
            1 | 2 => 1,
            3..=7 => 2 + random.below(60),
            _ => 1000 + random.below(3000),
        };
        let rows = rows.min(60_000 / width as u64);
        let premade = random.chance(45);
        let write = if key == Key::None {
            *random.pick(&["replace", "append"])
        } else {
            *random.pick(&["replace", "append", "upsert"])
        };
        let mut case =
            Self { seed, id: format!("s{seed}"), schema, table, columns: Vec::new(), key, rows, premade, write };
        case.draw_columns(random, width);
        case
    }

    fn draw_columns(&mut self, random: &mut Random, width: usize) {
        let refused = random.chance(8).then(|| random.below(width as u64) as usize);
        let quoted = quote(&self.schema);
        let mut maker = Maker { random, schema: quoted, made: self.seed as usize * 10_000 };
        let mut room = ROW_BYTES;
        for index in 0..width {
            let is_key = index < self.key.columns();
            let left = 8 * (width - index);
            let mut made = Made::Drawn;
            let kind = if Some(index) == refused && !is_key {
                maker.unsupported()
            } else if is_key {
                // So that many rows have keys of their own.
                if index == 0 && self.rows > 60 {
                    made = Made::Number;
                }
                if made == Made::Number { maker.number() } else { maker.key() }
            } else if maker.random.chance(3) {
                made = Made::Identity(if maker.random.chance(50) { "ALWAYS" } else { "BY DEFAULT" });
                maker.number()
            } else if let Some(from) = self.small_integer().filter(|_| maker.random.chance(10)) {
                made = Made::Generated(from);
                maker.number()
            } else {
                maker.any()
            };
            let kind = if kind.inline + left > room { maker.number() } else { kind };
            room -= kind.inline.next_multiple_of(8);
            let not_null = match (&self.key, is_key) {
                (Key::Nullable(_), true) => false,
                (_, true) => true,
                _ => maker.random.chance(20),
            };
            let taken = |name: &String| self.columns.iter().any(|column| column.name == *name);
            let mut name = name(maker.random, "");
            if taken(&name) {
                name = name_with(&name, &format!("{index}"));
            }
            let not_null = not_null || matches!(made, Made::Identity(_));
            self.columns.push(Column { name, kind, not_null, made });
        }
        if self.is_by_contract() {
            for column in &mut self.columns {
                column.kind.goes_by_contract(!self.premade);
            }
        }
    }

    /// A column from which another one can be computed without ever going out of its bounds.
    fn small_integer(&self) -> Option<usize> {
        self.columns.iter().position(|column| matches!(column.kind.declared.as_str(), "int2" | "int4"))
    }

    /// Whether its rows have to be looked at, so that they travel without the engine's own types.
    pub(super) fn is_by_contract(&self) -> bool {
        matches!(self.key, Key::Nullable(_))
    }

    /// The first column for which nothing may move, with the code that says so.
    pub(super) fn refused(&self) -> Option<(&Column, &'static str)> {
        let unsupported = self.columns.iter().find(|column| column.kind.unsupported).map(|column| (column, "PH4006"));
        // By its contract alone a number has any digits, which a narrower column of a standing table has not.
        let is_narrower = |column: &&Column| {
            let lands = &column.kind.lands;
            lands.own().starts_with("numeric(") && !lands.own().ends_with(']') && lands.contract().0 == "numeric"
        };
        let narrower = self.columns.iter().find(is_narrower).filter(|_| self.is_by_contract() && self.premade);
        unsupported.or(narrower.map(|column| (column, "PH4005")))
    }

    /// As SQL has it, and as a configuration does.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
    pub(super) fn key_names(&self) -> Vec<&str> {
        self.columns.iter().take(self.key.columns()).map(|column| column.name.as_str()).collect()
    }

    /// What is not in its statements.
    pub(super) fn told(&self) -> String {
        let Self { key, rows, premade, write, .. } = self;
        format!("-- {rows} rows, key {key:?}, write {write}, premade {premade}\n")
    }

    /// Statements that make schema, types and table.
    pub(super) fn ddl(&self) -> String {
        let mut sql = format!("CREATE SCHEMA IF NOT EXISTS {};\n", quote(&self.schema));
        for statement in self.columns.iter().flat_map(|column| &column.kind.made_by) {
            let _ = writeln!(sql, "{statement};");
        }
        let column = |column: &Column| {
            let more = match &column.made {
                Made::Identity(how) => format!(" GENERATED {how} AS IDENTITY"),
                Made::Generated(from) => {
                    let from = self.columns.get(*from).map_or("", |column| &column.name);
                    format!(" GENERATED ALWAYS AS ({}::int8 + 1) STORED", quote(from))
                }
                _ => String::new(),
            };
            let null = if column.not_null && !more.contains("STORED") { " NOT NULL" } else { "" };
            format!("  {} {}{more}{null}", quote(&column.name), column.kind.declared)
        };
        let mut lines: Vec<String> = self.columns.iter().map(column).collect();
        let key = self.key_names().iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        if let Key::Primary(_) = self.key {
            lines.push(format!("  PRIMARY KEY ({key})"));
        }
        let _ = writeln!(sql, "CREATE TABLE {} (\n{}\n);", self.name(), lines.join(",\n"));
        let including = |count: usize| {
            let more = self.columns.get(count).filter(|column| !matches!(column.kind.inline, 64));
            more.map_or(String::new(), |column| format!(" INCLUDE ({})", quote(&column.name)))
        };
        match self.key {
            Key::Including(count) => {
                let _ = writeln!(sql, "CREATE UNIQUE INDEX ON {} ({key}){};", self.name(), including(count));
            }
            Key::Nullable(_) => {
                let _ = writeln!(sql, "CREATE UNIQUE INDEX ON {} ({key});", self.name());
            }
            _ => {}
        }
        sql
    }

    /// A table of no rows with the columns that a transfer is to make where there is none.
    pub(super) fn expected_ddl(&self) -> String {
        let by_contract = self.is_by_contract();
        let column = |(index, column): (usize, &Column)| {
            let lands = if by_contract { column.kind.lands.contract().0 } else { column.kind.lands.own() };
            let null = if column.is_filled() || index < self.key.columns() { " NOT NULL" } else { "" };
            format!("{} {lands}{null}", quote(&column.name))
        };
        let mut columns: Vec<String> = self.columns.iter().enumerate().map(column).collect();
        let key = self.key_names().iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
        columns.extend((!key.is_empty()).then(|| format!("PRIMARY KEY ({key})")));
        format!("CREATE TABLE expected.{} ({});\n", self.id, columns.join(", "))
    }

    /// Fills the table; a key that comes twice is left out.
    pub(super) fn insert(&self) -> String {
        if self.rows == 0 {
            return String::new();
        }
        let mut random = Random(self.seed);
        let mut names = Vec::new();
        let mut values = Vec::new();
        for column in &self.columns {
            match column.made {
                Made::Drawn => values.push(column.value(&mut random)),
                Made::Number => values.push("g".to_owned()),
                Made::Identity(_) | Made::Generated(_) => continue,
            }
            names.push(quote(&column.name));
        }
        let (names, values) = match names.is_empty() {
            true => (String::new(), String::new()),
            false => (format!(" ({})", names.join(", ")), values.join(",\n  ")),
        };
        if values.is_empty() {
            let one = format!("INSERT INTO {} DEFAULT VALUES;\n", self.name());
            return one.repeat(self.rows as usize);
        }
        format!(
            "INSERT INTO {}{names} SELECT\n  {values}\nFROM generate_series(1, {}) g ON CONFLICT DO NOTHING;\n",
            self.name(),
            self.rows
        )
    }

    /// What holds for rows that can move.
    pub(super) fn movable_at(&self, database: &str) -> String {
        if database != "source" {
            return "true".to_owned();
        }
        let mut parts = vec!["true".to_owned()];
        for (index, column) in self.columns.iter().enumerate() {
            let name = quote(&column.name);
            if self.is_by_contract() && index < self.key.columns() {
                parts.push(format!("{name} IS NOT NULL"));
            }
            for bad in &column.kind.bad {
                let declared = &column.kind.declared;
                parts.push(format!("({name})::text IS DISTINCT FROM (({bad})::{declared})::text"));
            }
        }
        parts.join(" AND ")
    }

    /// How many rows there are for which a condition holds, and a digest of their values as texts in any order.
    pub(super) fn print(&self, condition: &str, at_destination: bool) -> String {
        let by_contract = self.is_by_contract() && !self.premade;
        let text = |column: &Column| {
            let (_, value) = column.kind.lands.contract();
            let is_own = value.contains("trim_scale") || value.contains("xml_out");
            let value = if is_own || by_contract && !at_destination { value } else { "({})::text" };
            let value = value.replace("{}", &quote(&column.name));
            format!("coalesce(quote_literal({value}), '-')")
        };
        let row = self.columns.iter().map(text).collect::<Vec<_>>().join(" || ',' || ");
        format!(
            "SELECT '{0}', (SELECT count(*) FROM {1}), count(*), md5(coalesce(string_agg(line, '' ORDER BY line), ''))
             FROM (SELECT md5({row}) COLLATE \"C\" AS line FROM {1} WHERE {condition}) x;\n",
            self.id,
            self.name()
        )
    }
}

impl Column {
    /// Whether the catalogue says that it has no NULL.
    fn is_filled(&self) -> bool {
        self.not_null && !matches!(self.made, Made::Generated(_))
    }

    /// What row `g` has here.
    fn value(&self, random: &mut Random) -> String {
        let is_null = |value: &String| value == "NULL";
        let mut values: Vec<&String> =
            self.kind.values.iter().filter(|value| !(self.not_null && is_null(value))).collect();
        // Few of the rows are bad ones.
        let bad = random.chance(30).then(|| self.kind.bad.first().map(|_| random.pick(&self.kind.bad))).flatten();
        values.truncate(1 + random.below(VALUES_MAX) as usize);
        if values.is_empty() {
            return "NULL".to_owned();
        }
        let (step, start) = (1 + random.below(1_000), random.below(1_000));
        let mut sql = String::from("CASE");
        if let Some(bad) = bad {
            let _ = write!(sql, " WHEN g % {} = 3 THEN ({bad})::{}", 5 + random.below(20), self.kind.declared);
        }
        let _ = write!(sql, " ELSE CASE (g * {step} + {start}) % {}", values.len());
        for (index, value) in values.iter().enumerate() {
            let _ = write!(sql, " WHEN {index} THEN ({value})::{}", self.kind.declared);
        }
        sql.push_str(" END END");
        if bad.is_none() { sql.replacen("CASE ELSE ", "", 1).replacen(" END END", " END", 1) } else { sql }
    }
}

/// An identifier as SQL has it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn name(random: &mut Random, unique: &str) -> String {
    let name = *random.pick(NAMES);
    if unique.is_empty() { name.to_owned() } else { name_with(name, unique) }
}

/// A name with something behind it, within what an identifier may have.
fn name_with(name: &str, unique: &str) -> String {
    let mut kept = name.to_owned();
    while kept.len() + unique.len() > NAME_BYTES {
        kept.pop();
    }
    kept + unique
}

const NAMES: &[&str] = &[
    "id",
    "select",
    "Order",
    "USER",
    "table",
    "a\"b",
    "a.b",
    " leading",
    "trailing ",
    "two words",
    "姓名",
    "证件 号码",
    "it's",
    "back\\slash",
    "$1",
    "%s",
    "{}",
    "s",
    "t",
    "x",
    "d",
    "r",
    "place",
    "copy",
    "line",
    "number",
    "left",
    "posthouse_transfer",
    "CamelCase",
    "Ünïcødé",
    "😀",
    "new\nline",
    "tab\t",
    "1st",
    "-",
    "\"",
    "\"\"",
    "--",
    "/*",
    ";",
    "NULL",
    "true",
    "excluded",
    "value",
    "oid",
    "row",
    "all",
    "長長長長長長長長長長長長長長長長長長長長長",
    "e\u{301}",
    "a_name_of_sixty_three_bytes_which_is_all_that_an_identifier_has",
];
const NAME_BYTES: usize = 63;
const VALUES_MAX: u64 = 14;
/// What a row may have in its place, with a block of 8 KiB around it.
const ROW_BYTES: usize = 7_200;

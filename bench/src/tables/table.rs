//! A case's table: its columns, its key, its rows; and what two copies of it are compared by.

use super::tuples::Tuples;
use super::values::Values;
use super::{lineitem, register};
use std::io::Write;

/// From which engine to which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Postgres,
    ToMariadb,
    FromMariadb,
    FromSqlite,
    /// From PostgreSQL into Parquet files, and from these into PostgreSQL.
    ThroughParquet,
}

pub struct Table {
    pub name: &'static str,
    pub route: Route,
    /// What a case is called before its number of rows.
    pub case: &'static str,
    /// Of the source, and made by the subjects that make one; none where both sides are heaps without an index.
    pub key: &'static [&'static str],
    pub columns: &'static [(&'static str, &'static str)],
    pub rows: u64,
    /// As the case's name has it.
    pub size: &'static str,
    write: fn(u64, &mut dyn Values) -> std::io::Result<()>,
}

pub const TABLES: &[Table] = &[
    Table {
        name: "person",
        route: Route::Postgres,
        case: "pg-pg-register",
        key: &[],
        columns: register::COLUMNS,
        rows: 5_000_000,
        size: "5m",
        write: register::write,
    },
    Table {
        name: "person",
        route: Route::Postgres,
        case: "pg-pg-register-key",
        key: &["person_id"],
        columns: register::COLUMNS,
        rows: 5_000_000,
        size: "5m",
        write: register::write,
    },
    Table {
        name: "lineitem",
        route: Route::Postgres,
        case: "pg-pg-lineitem",
        key: &[],
        columns: lineitem::COLUMNS,
        rows: lineitem::ROWS,
        size: "6m",
        write: lineitem::write,
    },
    register_by(Route::ToMariadb, "pg-mariadb-register"),
    register_by(Route::FromMariadb, "mariadb-pg-register"),
    register_by(Route::FromSqlite, "sqlite-pg-register"),
    register_by(Route::ThroughParquet, "pg-parquet-pg-register"),
];

/// Between engines the register has its key on both sides: MariaDB keeps a table by its key, and SQLite has one anyway.
const fn register_by(route: Route, case: &'static str) -> Table {
    Table {
        name: "person",
        route,
        case,
        key: &["person_id"],
        columns: register::COLUMNS,
        rows: 2_000_000,
        size: "2m",
        write: register::write,
    }
}

impl Table {
    /// The case that the design names.
    pub fn case(&self) -> String {
        format!("{}-{}", self.case, self.size)
    }

    /// The case with another number of rows: its figures must not be taken for the named one's.
    pub fn case_of(&self, rows: u64) -> String {
        let size = match rows {
            _ if rows == self.rows => return self.case(),
            _ if rows.is_multiple_of(1_000_000) => format!("{}m", rows / 1_000_000),
            _ if rows.is_multiple_of(1_000) => format!("{}k", rows / 1_000),
            _ => rows.to_string(),
        };
        // lineitem-6m has 6,001,215 rows.
        let size = if size == self.size { rows.to_string() } else { size };
        format!("{}-{size}", self.case)
    }

    pub fn create(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        format!("CREATE TABLE {} ({})", self.name, columns.join(", "))
    }

    pub fn add_key(&self) -> Option<String> {
        let key = (!self.key.is_empty()).then(|| self.key.join(", "))?;
        Some(format!("ALTER TABLE {} ADD PRIMARY KEY ({key})", self.name))
    }

    /// The name of the view that has bytea as hex text.
    pub fn view(&self) -> String {
        format!("{}_hex", self.name)
    }

    pub fn create_view(&self) -> String {
        let value = |(name, kind): &(&str, &str)| match *kind {
            "bytea" => format!("{name}::text AS {name}"),
            _ => (*name).to_owned(),
        };
        let values: Vec<String> = self.columns.iter().map(value).collect();
        format!("CREATE VIEW {} AS SELECT {} FROM {}", self.view(), values.join(", "), self.name)
    }

    /// Writes the first `rows` rows as binary COPY; gives the number of bytes.
    pub fn write(&self, rows: u64, out: &mut dyn Write) -> std::io::Result<u64> {
        let mut tuples = Tuples::new(out)?;
        (self.write)(rows, &mut tuples)?;
        tuples.finish()
    }

    /// Writes the first `rows` rows in another form.
    pub fn write_as(&self, rows: u64, out: &mut dyn Values) -> std::io::Result<()> {
        (self.write)(rows, out)
    }

    /// SQL that gives the number of rows and a sum over the MD5 of each row's text, whatever their order.
    /// Each value is first brought to its column's type, since some subjects land a numeric or a bytea as text;
    /// never to a shorter one, since a cast to varchar(18) would cut what is too long.
    pub fn content(&self, schema: &str) -> String {
        let values: Vec<String> = self
            .columns
            .iter()
            .map(|(name, kind)| {
                let kind = kind.split([' ', '(']).next().unwrap_or(kind);
                match kind {
                    "numeric" => format!("trim_scale({name}::numeric)"),
                    // A char(n) is filled up with blanks, which are not of its value.
                    "char" => format!("rtrim({name}::text)"),
                    "varchar" | "text" => format!("{name}::text"),
                    _ => format!("{name}::{kind}"),
                }
            })
            .collect();
        let half = |from: u8| format!("sum(('x' || substr(md5, {from}, 16))::bit(64)::bigint)");
        format!(
            "SELECT count(*), {}, {} FROM (SELECT md5(row({})::text) FROM {schema}.{}) AS rows",
            half(1),
            half(17),
            values.join(", "),
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_each_time_and_of_the_size_that_the_case_names() {
        for table in TABLES {
            let (mut once, mut again) = (Vec::new(), Vec::new());
            let bytes = table.write(3_000, &mut once).expect("a vector takes all");
            table.write(3_000, &mut again).expect("a vector takes all");
            assert_eq!(once, again, "{}", table.name);
            assert_eq!(bytes, once.len() as u64);
            let columns = i16::from_be_bytes([once[19], once[20]]);
            assert_eq!(usize::try_from(columns).expect("positive"), table.columns.len());
            if table.name == "person" {
                assert!((340..376).contains(&(bytes / 3_000)), "{} bytes a row", bytes / 3_000);
            }
        }
    }

    #[test]
    fn another_number_of_rows_has_another_name() {
        let [register, keyed, lineitem, to_mariadb, ..] = TABLES else { panic!("four cases and more") };
        assert_eq!(keyed.case_of(5_000_000), "pg-pg-register-key-5m");
        assert_eq!(register.case_of(5_000_000), "pg-pg-register-5m");
        assert_eq!(register.case_of(2_000_000), "pg-pg-register-2m");
        assert_eq!(register.case_of(200_000), "pg-pg-register-200k");
        assert_eq!(register.case_of(1_234), "pg-pg-register-1234");
        assert_eq!(lineitem.case_of(6_001_215), "pg-pg-lineitem-6m");
        assert_ne!(lineitem.case_of(6_000_000), lineitem.case());
        assert_eq!(to_mariadb.case(), "pg-mariadb-register-2m");
    }
}

//! How far a snapshot sees, in transactions. A row that its transaction wrote early and committed late has an old
//! mark, and no mark tells it from the rows that were read long ago; the number of its transaction does.
//!
//! Every transaction below a snapshot's xmin had ended when the snapshot was taken: what it committed was seen, and
//! read then or before. So a later read that takes the rows at or above that xmin takes every row that came into
//! sight since. Rows under a savepoint or in a block with an exception handler carry a number of their own, drawn
//! after their transaction's, and are at or above it; a transaction that had drawn none yet draws one above. Freezing
//! (since 9.4), CLUSTER and VACUUM FULL leave a row's number where it is. A table that came to a partitioned one
//! since, or was made anew, brings rows with old numbers: it is read whole, and so are all where numbers may have
//! begun again (another cluster, a restored one, a standby that took over).

use super::catalog::{Kind, Relation};
use super::wire::{Client, WireError};
use std::collections::BTreeSet;
use std::fmt;

/// Where a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Each transaction below it had ended; 64 bits, with the epoch.
    xmin: u64,
    /// Within which numbers of transactions and of tables are the same ones.
    cluster: String,
    /// What holds the rows: the table, its partitions, what inherits from it.
    tables: BTreeSet<u32>,
}

/// Rows that came into sight after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Since {
    /// As an SQL condition.
    pub(super) condition: String,
    /// For a split's name: the same rows give the same text.
    pub(super) name: String,
}

/// The position of the snapshot that is open, with the number that the next transaction would have drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) position: Position,
    next: u64,
    /// Whether rows may be asked for their numbers: an account that may read single columns has no right to that one.
    may_ask: bool,
}

impl Here {
    /// Within the transaction that reads. None for what has no rows of its own with such numbers: views, foreign
    /// tables, other ways of storing, databases that spread a table over servers.
    pub(super) fn find(client: &mut Client, relation: &Relation) -> Result<Option<Self>, WireError> {
        if !matches!(relation.kind, Kind::Table | Kind::Partitioned) || client.version() < RAW_XMIN_KEPT {
            return Ok(None);
        }
        client.batch("SAVEPOINT posthouse_position")?;
        match Self::ask(client, relation.oid) {
            Err(error) if error.sqlstate().is_some_and(|state| UNKNOWN_THERE.contains(&state)) => {
                client.batch("ROLLBACK TO SAVEPOINT posthouse_position")?;
                Ok(None)
            }
            found => {
                let found = found?;
                client.batch("RELEASE SAVEPOINT posthouse_position")?;
                Ok(found)
            }
        }
    }

    fn ask(client: &mut Client, oid: u32) -> Result<Option<Self>, WireError> {
        let found = client.query(SPREAD, &[])?;
        if found.first().map_or(Ok(true), |row| row.flag(0))? {
            return Ok(None);
        }
        let mut tables = BTreeSet::new();
        let storing = if client.version() >= 120_000 { STORED } else { STORED_BEFORE_12 };
        let below = client.query(&BELOW.replace("STORED", storing), &[Some(&oid.to_string())])?;
        for row in &below {
            match row.text(1)? {
                "p" => {}
                "r" if row.flag(2)? => {
                    tables.insert(row.number(0)?);
                }
                _ => return Ok(None),
            }
        }
        let snapshot = if client.version() >= 130_000 { SNAPSHOT } else { SNAPSHOT_BEFORE_13 };
        let found = client.query(snapshot, &[])?;
        let Some(row) = found.first() else { return Ok(None) };
        let (xmin, next, database) = (row.number(0)?, row.number(1)?, row.text(2)?.to_owned());
        let cluster = match cluster(client)? {
            Some(cluster) => format!("{cluster}/{database}"),
            None => database,
        };
        let may_ask = client.query(MAY_ASK_ROWS, &[Some(&oid.to_string())])?;
        let may_ask = may_ask.first().map_or(Ok(false), |row| row.flag(0))?;
        Ok(Some(Self { position: Position { xmin, cluster, tables }, next, may_ask }))
    }

    /// What to read beside the newer marks. None where the earlier position says nothing about these rows, and all
    /// of them have to be read.
    pub(super) fn since(&self, earlier: &str) -> Option<Since> {
        let Position { xmin, cluster, tables } = Position::parse(earlier)?;
        let behind = self.next.checked_sub(xmin).filter(|_| self.may_ask)?;
        if cluster != self.position.cluster || behind >= BEHIND_MAX {
            return None;
        }
        // A row holds the lower half of its number. Counted back from here, both are told apart within 2^31, and
        // rows that were frozen and passed by this number since have a negative age.
        let mut condition = format!(
            "pg_catalog.age(xmin) BETWEEN 0 AND pg_catalog.age('{}'::pg_catalog.xid)",
            xmin & u64::from(u32::MAX)
        );
        let mut name = format!("since {xmin}");
        let new: Vec<_> = self.position.tables.difference(&tables).map(ToString::to_string).collect();
        if !new.is_empty() {
            if new.len() == self.position.tables.len() || new.len() > NEW_TABLES_MAX {
                return None;
            }
            let new = new.join(",");
            condition.push_str(&format!(" OR tableoid = ANY ('{{{new}}}'::pg_catalog.oid[])"));
            name.push_str(&format!(" with {new}"));
        }
        Some(Since { condition, name })
    }
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let (xmin, rest) = text.split_once(' ')?;
        let (cluster, tables) = rest.split_once(' ')?;
        let tables = tables.split(',').filter(|table| !table.is_empty()).map(|table| table.parse().ok());
        Some(Self { xmin: xmin.parse().ok()?, cluster: cluster.to_owned(), tables: tables.collect::<Option<_>>()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        write!(f, "{} {} {tables}", self.xmin, self.cluster)
    }
}

/// The cluster's own number with its timeline: a standby that took over, or a copy that was restored, may give the
/// same numbers to other transactions. None where the account may not ask.
fn cluster(client: &mut Client) -> Result<Option<String>, WireError> {
    if client.version() < 100_000 {
        return Ok(None);
    }
    let allowed = client.query(MAY_ASK, &[])?;
    if !allowed.first().map_or(Ok(false), |row| row.flag(0))? {
        return Ok(None);
    }
    let found = client.query(CLUSTER, &[])?;
    found.first().map(|row| row.text(0).map(str::to_owned)).transpose()
}

/// From this version on a frozen row keeps its number.
pub(super) const RAW_XMIN_KEPT: u32 = 90_400;
/// Beyond it a row's half of a number could mean two; less what may be drawn until the last row is read.
const BEHIND_MAX: u64 = (1 << 31) - (1 << 26);
const NEW_TABLES_MAX: usize = 64;
/// No such function, column or table, no right to it, or none such in this engine.
const UNKNOWN_THERE: &[&str] = &["42883", "42703", "42P01", "42704", "42501", "0A000"];

const SNAPSHOT: &str = "SELECT pg_catalog.pg_snapshot_xmin(s), pg_catalog.pg_snapshot_xmax(s),
       (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  FROM pg_catalog.pg_current_snapshot() s";
const SNAPSHOT_BEFORE_13: &str = "SELECT pg_catalog.txid_snapshot_xmin(s), pg_catalog.txid_snapshot_xmax(s),
       (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  FROM pg_catalog.txid_current_snapshot() s";

/// Relatives that keep a table's rows on several servers, each with numbers of its own (Greenplum, Citus, the XC
/// family with openGauss, YugabyteDB).
const SPREAD: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c
    WHERE c.relname IN ('gp_distribution_policy', 'pg_dist_partition', 'pgxc_class')
      AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pg_catalog'))
  OR EXISTS (SELECT 1 FROM pg_catalog.pg_proc p WHERE p.proname = 'yb_servers')";

const BELOW: &str = "WITH RECURSIVE below(oid) AS (
    SELECT $1::pg_catalog.oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid)
  SELECT k.oid, k.relkind, STORED FROM below b JOIN pg_catalog.pg_class k ON k.oid = b.oid";
const STORED: &str = "EXISTS (SELECT 1 FROM pg_catalog.pg_am a WHERE a.oid = k.relam AND a.amname = 'heap')";
const STORED_BEFORE_12: &str = "k.relam = 0";

const MAY_ASK_ROWS: &str = "SELECT pg_catalog.has_column_privilege($1::pg_catalog.oid, 'xmin', 'SELECT')";
const MAY_ASK: &str = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
  AND pg_catalog.has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE')";
/// The control file's timeline follows with the first checkpoint of a new one; where there is a log to write, its
/// files' names have it at once.
const CLUSTER: &str = "SELECT s.system_identifier || '/' || CASE WHEN pg_catalog.pg_is_in_recovery()
    THEN (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c)
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END
  FROM pg_catalog.pg_control_system() s";

#[cfg(test)]
mod tests {
    use super::*;

    fn here(xmin: u64, next: u64, cluster: &str, tables: &[u32]) -> Here {
        let tables = tables.iter().copied().collect();
        Here { position: Position { xmin, cluster: cluster.to_owned(), tables }, next, may_ask: true }
    }

    #[test]
    fn a_position_is_the_same_after_it_was_kept_as_text() {
        for tables in [&[][..], &[7], &[16_390, 16_391, u32::MAX]] {
            let position = here(u64::MAX, u64::MAX, "7712409108906808589/1/5", tables).position;
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        for wrong in ["", "5", "5 x", "-5 x 7", "5 x 7;8", "5 x 7,y"] {
            assert_eq!(Position::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_position_that_says_nothing_about_these_rows_is_void() {
        let earlier = here((3 << 32) + 100, 0, "c/1", &[7, 8]).position.to_string();
        let since = |next: u64, cluster: &str, tables: &[u32]| here(next, next, cluster, tables).since(&earlier);
        let next = (3 << 32) + 200;
        let known = since(next, "c/1", &[7, 8]).unwrap();
        assert_eq!(known.name, "since 12884901988");
        assert!(known.condition.contains("'100'") && !known.condition.contains("tableoid"), "{}", known.condition);
        assert_eq!(since(next, "c/1", &[8]), Some(known), "a table that is gone changes nothing");
        let more = since(next, "c/1", &[7, 9, 10]).unwrap();
        assert!(more.condition.ends_with("OR tableoid = ANY ('{9,10}'::pg_catalog.oid[])"), "{}", more.condition);
        assert_eq!(more.name, "since 12884901988 with 9,10");
        for (what, void) in [
            ("another cluster", since(next, "d/1", &[7, 8])),
            ("none of its tables", since(next, "c/1", &[9])),
            ("a number that is yet to come", since((3 << 32) + 99, "c/1", &[7])),
            ("too far back", since((3 << 32) + (1 << 31), "c/1", &[7])),
        ] {
            assert_eq!(void, None, "{what}");
        }
        assert!(since((3 << 32) + 100, "c/1", &[7]).is_some(), "nothing happened since");
    }
}

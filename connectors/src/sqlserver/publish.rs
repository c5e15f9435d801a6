//! From staging to target, in the one transaction that also leaves the transfer's id. The table is locked first, so
//! that what is counted stays true until the commit; what came, changed and went is told from the server's counts of
//! sets and never from what the driver says a statement touched. A row that is there already changes nothing.

use super::catalog::{self, Relation};
use super::client::{Client, SqlError};
use super::control;
use super::name::{quote, quoted};
use super::place::{Fail, Place};
use super::sieve::{Attempts, Sieve};
use super::staging::{NUMBER, Staging};
use super::writing::Slot;
use crate::publishing::check_mirror;
use crate::{Published, Publishing};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};

pub(super) fn publish(
    client: &mut Client,
    place: &Place,
    target: &Relation,
    staging: &Staging,
    how: &Publishing,
    attempts: &mut Attempts,
) -> Result<Published, Fail> {
    client.batch(if attempts.is_sifting() { "SET XACT_ABORT OFF" } else { "SET XACT_ABORT ON" })?;
    let (staged, first, last) = staging.extent(client)?;
    let noted = control::staged(client, place)?;
    if staged != noted {
        let cause = format!("{noted} rows were staged, and the server counts {staged}");
        return Err(refuse(place, &cause).into());
    }
    client.take_time();
    let before =
        client.count(&format!("SELECT COUNT_BIG(*) FROM {} AS t WITH (TABLOCKX, HOLDLOCK)", target.name), &[])?;
    let sieve = Sieve::new(place, staging, attempts, how.refused_max, (first, last));
    let mut run = Run { place, target, staging, sieve, before, staged, updated: 0, deleted: 0, kept: 0, overlap: 0 };
    if place.landing.write == Write::Mirror {
        // While all that came is there: of a row that is refused the older one is out of date, and not gone.
        match how.held_back {
            0 => run.delete_absent(client, true)?,
            _ => run.kept = run.gone(client)?,
        }
    }
    run.sieve.take_known(client)?;
    if !place.landing.contract.key.is_empty() {
        run.take_duplicates(client)?;
    }
    match place.landing.write {
        Write::Append => run.append(client)?,
        Write::Upsert => {
            run.take_deletes(client)?;
            run.upsert(client)?;
        }
        Write::Replace => run.replace(client)?,
        Write::Mirror => run.upsert(client)?,
    }
    let result = run.result(client)?;
    control::leave(client, place, &result, &run.sieve.refused)?;
    staging.drop(client)?;
    Ok(result)
}

struct Run<'a> {
    place: &'a Place,
    target: &'a Relation,
    staging: &'a Staging,
    sieve: Sieve<'a>,
    /// Rows of the target, and of the staging table.
    before: u64,
    staged: u64,
    updated: u64,
    deleted: u64,
    kept: u64,
    /// Staged rows that stood there before and are no change.
    overlap: u64,
}

impl Run<'_> {
    /// Deletes what staged rows say is gone, and takes them out of the staging table: what is left there is upserted. The
    /// table is locked, so that what is counted is what goes.
    fn take_deletes(&mut self, client: &mut Client) -> Result<(), Fail> {
        let Some(operation) = &self.staging.operation else { return Ok(()) };
        let (table, from, keys) = (&self.target.name, self.staging.rows("s"), self.keys());
        let doomed = format!("s.{} = N'{}'", quote(&operation.name), Operation::Delete.letter());
        let gone = format!("FROM {table} AS t WHERE EXISTS (SELECT 1 FROM {from} WHERE {keys} AND {doomed})");
        self.deleted = client.count(&format!("SELECT COUNT_BIG(*) {gone}"), &[])?;
        client.batch(&format!("DELETE t {gone}"))?;
        let (staging, own) = (&self.staging.name, self.staging.own());
        client.batch(&format!("DELETE s FROM {staging} AS s WHERE {doomed} AND {own}"))?;
        Ok(())
    }

    fn append(&mut self, client: &mut Client) -> Result<(), Fail> {
        if self.place.landing.contract.key.is_empty() {
            if self.place.landing.watermark_column.is_some() {
                self.drop_overlap(client)?;
            }
            return self.insert(client, false);
        }
        let reason = "its key is there with other contents, and append changes nothing";
        self.take_different(client, |slot| !slot.is_key, reason)?;
        self.insert(client, true)
    }

    /// Rows that differ change, and rows that are not there are added.
    fn upsert(&mut self, client: &mut Client) -> Result<(), Fail> {
        let reason = "its key is there with another number, which the table lets nobody change";
        self.take_different(client, |slot| slot.identity && !slot.is_key, reason)?;
        let changed: Vec<&Slot> = self.staging.slots.iter().filter(|slot| !slot.is_key && !slot.identity).collect();
        if let Some(differ) = differ(changed.iter().copied()) {
            let (table, from, keys) = (&self.target.name, self.staging.rows("s"), self.keys());
            let set = |slot: &&Slot| format!("t.{0} = s.{0}", quote(&slot.name));
            let set = changed.iter().map(set).collect::<Vec<_>>().join(", ");
            let count = format!("SELECT COUNT_BIG(*) FROM {from} INNER JOIN {table} AS t ON {keys} WHERE {differ}");
            let differing = client.count(&count, &[])?;
            let refused = self.sieve.refused.len();
            let update = format!(
                "UPDATE t SET {set} FROM {table} AS t INNER JOIN {from} ON {keys} WHERE {differ} AND {}",
                range()
            );
            self.sieve.pass(client, &update)?;
            // A row that is refused here is one that would have changed.
            self.updated += differing.saturating_sub((self.sieve.refused.len() - refused) as u64);
        }
        self.insert(client, true)
    }

    /// All rows give way to the new ones. Where other tables refer to them, those that come again stay where they are.
    fn replace(&mut self, client: &mut Client) -> Result<(), Fail> {
        let referrers = catalog::referrers(client, self.target.id)?;
        if referrers.is_empty() {
            self.deleted = self.before;
            client.batch(&format!("DELETE FROM {}", self.target.name))?;
            return self.insert(client, false);
        }
        if self.place.landing.contract.key.is_empty() || !self.target.keeps_unique(&self.place.landing.contract.key) {
            let cause =
                "other tables refer to its rows, which are not known by a key: name the key that is unique there";
            return Err(refuse(self.place, cause).into());
        }
        let gone = self.gone(client)?;
        if gone > 0
            && let Some((name, _)) = referrers.iter().find(|(_, takes_along)| *takes_along)
        {
            let cause =
                format!("rows would be gone, and by `{name}` rows of other tables with them: use upsert or mirror");
            return Err(refuse(self.place, &cause).into());
        }
        match self.delete_absent(client, false) {
            Err(Fail::Sql(error)) if error.code() == Some(REFERENCE) => {
                let cause = format!(
                    "rows that other tables refer to would be gone; use upsert or mirror, or land what refers to them \
                     too: {error}"
                );
                Err(refuse(self.place, &cause).into())
            }
            Err(fail) => Err(fail),
            Ok(()) => self.upsert(client),
        }
    }

    /// Adds staged rows, those whose key is not there or all.
    fn insert(&mut self, client: &mut Client, only_absent: bool) -> Result<(), Fail> {
        let names = || self.staging.slots.iter().map(|slot| slot.name.as_str());
        let (table, from) = (&self.target.name, self.staging.rows("s"));
        let absent = match only_absent {
            true => format!(" AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {})", self.keys()),
            false => String::new(),
        };
        let insert = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {from} WHERE {}{absent}",
            quoted("", names()),
            quoted("s", names()),
            range()
        );
        let numbers_itself = self.staging.slots.iter().any(|slot| slot.identity);
        if numbers_itself {
            client.batch(&format!("SET IDENTITY_INSERT {table} ON"))?;
        }
        self.sieve.pass(client, &insert)?;
        if numbers_itself {
            client.batch(&format!("SET IDENTITY_INSERT {} OFF", self.target.name))?;
        }
        Ok(())
    }

    /// Of rows with one key the first stays.
    fn take_duplicates(&mut self, client: &mut Client) -> Result<(), Fail> {
        let (from, earlier, place) = (self.staging.rows("s"), self.staging.rows("e"), quote(NUMBER));
        let key = self.staging.slots.iter().filter(|slot| slot.is_key);
        let same = key.map(|slot| format!("e.{0} = s.{0}", quote(&slot.name))).collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "SELECT s.{place} FROM {from} WHERE EXISTS \
             (SELECT 1 FROM {earlier} WHERE {same} AND e.{place} < s.{place}) ORDER BY s.{place}"
        );
        self.sieve.take_all(client, &sql, "its key came in this transfer already")
    }

    /// Takes out staged rows whose key is there with a row that differs in some of its columns.
    fn take_different(&mut self, client: &mut Client, which: impl Fn(&Slot) -> bool, reason: &str) -> Result<(), Fail> {
        let Some(differ) = differ(self.staging.slots.iter().filter(|slot| which(slot))) else { return Ok(()) };
        let (from, table, place) = (self.staging.rows("s"), &self.target.name, quote(NUMBER));
        let sql = format!(
            "SELECT s.{place} FROM {from} INNER JOIN {table} AS t ON {} WHERE {differ} ORDER BY s.{place}",
            self.keys()
        );
        self.sieve.take_all(client, &sql, reason)
    }

    /// Rows without a key that were landed before and are read again: as many as stand there, equal in all columns,
    /// are not added. Only rows within the staged marks can be among them.
    fn drop_overlap(&mut self, client: &mut Client) -> Result<(), Fail> {
        let (from, table, place) = (self.staging.rows("s"), &self.target.name, quote(NUMBER));
        let slots = &self.staging.slots;
        let values = |alias: &str| slots.iter().map(|slot| value(alias, slot)).collect::<Vec<_>>();
        let named = |values: &[String]| {
            let named = values.iter().enumerate().map(|(at, value)| format!("{value} AS [c{at}]"));
            named.collect::<Vec<_>>().join(", ")
        };
        let (staged, standing) = (values("s"), values("t"));
        let mark = self.place.landing.watermark_column.as_deref();
        let within = match mark.filter(|mark| slots.iter().any(|slot| slot.name == **mark)).map(quote) {
            Some(mark) => format!(
                " WHERE t.{mark} IS NULL OR (t.{mark} >= (SELECT MIN(s.{mark}) FROM {from}) \
                 AND t.{mark} <= (SELECT MAX(s.{mark}) FROM {from}))"
            ),
            None => String::new(),
        };
        let equal = |at: usize| format!("(a.[c{at}] = b.[c{at}] OR (a.[c{at}] IS NULL AND b.[c{at}] IS NULL))");
        let equal = (0..slots.len()).map(equal).collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "DELETE FROM {} WHERE {} AND {place} IN (SELECT a.{place} FROM (SELECT s.{place}, {}, \
             ROW_NUMBER() OVER (PARTITION BY {} ORDER BY s.{place}) AS [posthouse_copy] FROM {from}) AS a \
             INNER JOIN (SELECT {}, ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {}) AS [posthouse_copy] \
             FROM {table} AS t{within}) AS b ON a.[posthouse_copy] = b.[posthouse_copy] AND {equal})",
            self.staging.name,
            self.staging.own(),
            named(&staged),
            staged.join(", "),
            named(&standing),
            standing.join(", "),
            standing.first().map_or("", String::as_str),
        );
        client.batch(&sql)?;
        let left = self.staging.extent(client)?.0;
        self.overlap = (self.staged - self.sieve.refused.len() as u64).saturating_sub(left);
        Ok(())
    }

    /// Deletes rows whose key was not handed over, unless a mirror would delete too many of them.
    fn delete_absent(&mut self, client: &mut Client, is_mirror: bool) -> Result<(), Fail> {
        let gone = self.gone(client)?;
        if is_mirror {
            check_mirror(gone, self.before)?;
        }
        if gone > 0 {
            let (table, absent) = (&self.target.name, self.absent());
            client.batch(&format!("DELETE t FROM {table} AS t WHERE {absent}"))?;
        }
        self.deleted = gone;
        Ok(())
    }

    /// How many rows of the target have a key that was not handed over.
    fn gone(&self, client: &mut Client) -> Result<u64, SqlError> {
        let (table, absent) = (&self.target.name, self.absent());
        client.count(&format!("SELECT COUNT_BIG(*) FROM {table} AS t WHERE {absent}"), &[])
    }

    /// What holds for rows `t` whose key was not handed over, with a row that was refused neither.
    fn absent(&self) -> String {
        format!("NOT EXISTS (SELECT 1 FROM {} WHERE {})", self.staging.all_rows("s"), self.keys())
    }

    /// What was done, by the server's counts. What a trigger dropped or added without a word is told from them too.
    fn result(&self, client: &mut Client) -> Result<Published, Fail> {
        let table = &self.target.name;
        let after = client.count(&format!("SELECT COUNT_BIG(*) FROM {table} AS t"), &[])?;
        let refused = self.sieve.refused.len() as u64;
        let rows = self.staged.saturating_sub(refused);
        let inserted = (after + self.deleted).saturating_sub(self.before);
        let dropped = match self.place.landing.contract.key.is_empty() {
            true => (rows - self.overlap.min(rows)).saturating_sub(inserted),
            false => {
                let (from, keys) = (self.staging.rows("s"), self.keys());
                let absent = format!("NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {keys})");
                client.count(&format!("SELECT COUNT_BIG(*) FROM {from} WHERE {absent}"), &[])?
            }
        };
        if dropped > 0 {
            let cause = format!("{dropped} rows were taken and are not there: a trigger of the table drops them");
            return Err(refuse(self.place, &cause).into());
        }
        let (updated, deleted, kept) = (self.updated, self.deleted, self.kept);
        Ok(Published { rows, inserted, updated, deleted, quarantined: refused, kept })
    }

    /// Rows of `s` and `t` with the same key.
    fn keys(&self) -> String {
        let key = self.staging.slots.iter().filter(|slot| slot.is_key);
        key.map(|slot| format!("s.{0} = t.{0}", quote(&slot.name))).collect::<Vec<_>>().join(" AND ")
    }
}

fn refuse(place: &Place, cause: &str) -> Problem {
    Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause)
}

/// Staged rows `s` from one number to another.
fn range() -> String {
    let place = quote(NUMBER);
    format!("s.{place} >= @P1 AND s.{place} <= @P2")
}

/// What holds for rows of `s` and `t` that differ in any of these columns; none where there are none.
fn differ<'s>(slots: impl Iterator<Item = &'s Slot>) -> Option<String> {
    let one = |slot: &Slot| {
        let (name, here, there) = (quote(&slot.name), value("s", slot), value("t", slot));
        format!(
            "{here} <> {there} OR (s.{name} IS NULL AND t.{name} IS NOT NULL) OR (s.{name} IS NOT NULL AND t.{name} IS NULL)"
        )
    };
    let parts: Vec<String> = slots.map(one).collect();
    (!parts.is_empty()).then(|| format!("({})", parts.join(" OR ")))
}

/// A value of `s` or `t` as it is compared: a text by its bytes, for to a collation `a` may be `A`, and to the engine
/// blanks at the end are nothing. Of texts in UTF-8 the staging table has UTF-16.
fn value(alias: &str, slot: &Slot) -> String {
    let column = format!("{alias}.{}", quote(&slot.name));
    let is_other = alias == "t" && slot.kind.page().is_some_and(super::codepage::Page::is_utf8);
    match (slot.kind.is_text(), is_other) {
        (false, _) => column,
        (true, false) => format!("CAST({column} AS varbinary(max))"),
        (true, true) => format!("CAST(CAST({column} AS nvarchar(max)) AS varbinary(max))"),
    }
}

/// A foreign key.
const REFERENCE: u32 = 547;

#[cfg(test)]
mod tests {
    use super::super::codepage::Page;
    use super::super::kind::Kind;
    use super::*;

    fn slot(name: &str, kind: Kind) -> Slot {
        let staged = kind.staged();
        Slot { name: name.into(), kind, staged, collation: None, not_null: false, identity: false, is_key: false }
    }

    #[test]
    fn texts_are_compared_by_their_bytes() {
        let utf8 = Kind::VarChar(Some(9), Page::of(65_001).unwrap());
        assert_eq!(value("t", &slot("n]", Kind::NVarChar(None))), "CAST(t.[n]]] AS varbinary(max))");
        assert_eq!(value("t", &slot("u", utf8)), "CAST(CAST(t.[u] AS nvarchar(max)) AS varbinary(max))");
        assert_eq!(value("s", &slot("u", utf8)), "CAST(s.[u] AS varbinary(max))");
        assert_eq!(value("s", &slot("m", Kind::Money)), "s.[m]");
    }

    #[test]
    fn a_row_differs_where_one_of_two_is_null() {
        let slots = [slot("a", Kind::BigInt)];
        let expected =
            "(s.[a] <> t.[a] OR (s.[a] IS NULL AND t.[a] IS NOT NULL) OR (s.[a] IS NOT NULL AND t.[a] IS NULL))";
        assert_eq!(differ(slots.iter()).as_deref(), Some(expected));
        assert_eq!(differ(slots.iter().filter(|_| false)), None);
    }
}

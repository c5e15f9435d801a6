//! Staged rows go over to a table that stands: added, or changed by their key. What is there already, equal in
//! every column, is left as it is.

use super::catalog::quote;
use super::control;
use super::ddl;
use super::fields::Field;
use super::place::Fail;
use super::publish::Run;
use super::sieve::attempt;
use super::wire::{Client, ServerError, WireError, json_text};
use crate::publishing::Counts;

impl Run<'_> {
    pub(super) fn append(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        if self.place.landing.contract.key.is_empty() {
            if self.place.landing.watermark_column.is_some() {
                self.drop_overlap(client)?;
            }
            return self.insert_all(client);
        }
        // An account that may only insert may not lock: a row that somebody else adds meanwhile under the same key
        // then stays, and is not compared.
        let may_not = |error: &WireError| error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE);
        let _ = attempt(client, may_not, |client| Ok(self.lock(client)?))?;
        let is_unique = self.is_unique(client)?;
        if is_unique && self.is_empty(client)? {
            return self.insert_all(client);
        }
        self.compare(client)?;
        self.take_contradictions(client)?;
        let (insert, key, absent) = (self.insert(), self.fields.key(), self.absent());
        let dropped = self.dropped(client)?;
        self.sieve.pass(client, &mut |client, rows| {
            let sql = match is_unique {
                true => format!("{insert} WHERE {rows} ON CONFLICT ({key}) DO NOTHING"),
                false => format!("{insert} WHERE {rows} AND {absent}"),
            };
            let inserted = client.execute(&sql, &[])?;
            check_dropped(client, dropped.as_deref(), rows)?;
            Ok(Counts { inserted, updated: 0 })
        })
    }

    /// Rows that differ change, and rows that are not there are added. By key, so that it is said which was which;
    /// a row that somebody else adds in between is changed too.
    pub(super) fn upsert(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        let is_unique = self.is_unique(client)?;
        if !is_unique {
            self.lock(client)?;
        }
        if is_unique && self.is_empty(client)? {
            return self.insert_all(client);
        }
        self.compare(client)?;
        self.change_and_add(client, is_unique)
    }

    pub(super) fn change_and_add(&mut self, client: &mut Client, is_unique: bool) -> Result<Counts, Fail> {
        let fixed: Vec<(String, String)> =
            self.fields.fixed().map(|(name, differ)| (name.to_owned(), differ)).collect();
        for (name, differ) in fixed {
            let reason = format!("its key is there with another {name}, which the table lets nobody change");
            self.take_different(client, &differ, &reason)?;
        }
        let (insert, absent, key) = (self.insert(), self.absent(), self.fields.key());
        let set = |value: &dyn Fn(&Field) -> String| {
            let parts = self.fields.changeable().map(|field| format!("{} = {}", field.name, value(field)));
            parts.collect::<Vec<_>>().join(", ")
        };
        let differ = self.fields.differ().filter(|_| self.fields.changeable().next().is_some());
        let update = differ.map(|differ| {
            let (set, same) = (set(&|field| field.value.clone()), self.fields.same_key());
            let (target, from) = (&self.target.name, self.staging());
            format!("UPDATE {target} t SET {set} FROM {from} s WHERE {same} AND {differ}")
        });
        let conflict = match (is_unique, &update) {
            (false, _) => String::new(),
            (true, None) => format!("ON CONFLICT ({key}) DO NOTHING"),
            (true, Some(_)) => {
                format!("ON CONFLICT ({key}) DO UPDATE SET {}", set(&|field| format!("excluded.{}", field.name)))
            }
        };
        let dropped = self.dropped(client)?;
        self.sieve.pass(client, &mut |client, rows| {
            let updated = match &update {
                Some(update) => client.execute(&format!("{update} AND {rows}"), &[])?,
                None => 0,
            };
            let inserted = client.execute(&format!("{insert} WHERE {rows} AND {absent} {conflict}"), &[])?;
            check_dropped(client, dropped.as_deref(), rows)?;
            Ok(Counts { inserted, updated })
        })
    }

    /// Adds every staged row; one that the table drops without a word, by a trigger or a rule, is a refused row.
    pub(super) fn insert_all(&mut self, client: &mut Client) -> Result<Counts, Fail> {
        let (insert, from, whole) = (self.insert(), self.staging(), self.own().to_owned());
        let staged = self.left().saturating_sub(self.overlap);
        let count_all = format!("SELECT count(*) FROM {from} s WHERE ");
        let mut is_first = true;
        self.sieve.pass(client, &mut |client, rows| {
            let inserted = client.execute(&format!("{insert} WHERE {rows}"), &[])?;
            let known = (is_first && rows == whole).then_some(staged);
            is_first = false;
            let expected = match known {
                Some(expected) => expected,
                None => control::count(client, &format!("{count_all}{rows}"), &[])?,
            };
            if inserted < expected {
                return Err(WireError::Server(Box::new(dropped())).into());
            }
            Ok(Counts { inserted, updated: 0 })
        })
    }

    /// What staged rows and the table are compared by: each key once, and figures for the planner.
    pub(super) fn compare(&mut self, client: &mut Client) -> Result<(), Fail> {
        if self.sieve.has_duplicates(client)? {
            self.sieve.take_duplicates(client)?;
        }
        if !self.sieve.staging.premade {
            client.batch(&format!("ANALYZE {}", self.staging()))?;
        }
        Ok(())
    }

    /// Appending never changes a row: where the key is there with other contents, the staged row is refused.
    fn take_contradictions(&mut self, client: &mut Client) -> Result<(), Fail> {
        let Some(differ) = self.fields.differ() else { return Ok(()) };
        self.take_different(client, &differ, "its key is there with other contents, and append changes nothing")
    }

    /// Takes out staged rows whose key is there with a row that differs.
    fn take_different(&mut self, client: &mut Client, differ: &str, reason: &str) -> Result<(), Fail> {
        let condition = format!(
            "s.ctid = ANY (ARRAY(SELECT s.ctid FROM {} s JOIN {} t ON {} WHERE {differ} AND {}))",
            self.staging(),
            self.target.name,
            self.fields.same_key(),
            self.own()
        );
        self.sieve.take(client, &condition, reason).map(|_| ())
    }

    /// Rows without a key that were landed before and are read again: as many as stand there, equal in all columns,
    /// are not added. Only rows within the staged marks can be among them.
    fn drop_overlap(&mut self, client: &mut Client) -> Result<(), Fail> {
        let Some(mark) = self.place.landing.watermark_column.as_deref() else { return Ok(()) };
        let [here, there] = self.fields.row_texts();
        let (from, own) = (self.staging(), self.own());
        let field = self.fields.all.iter().find(|field| field.name == quote(mark));
        let within = match field {
            Some(field) => {
                let bound = |which: &str| format!("(SELECT {which}({}) FROM {from} s WHERE {own})", field.value);
                let name = &field.name;
                format!("t.{name} IS NULL OR (t.{name} >= {} AND t.{name} <= {})", bound("min"), bound("max"))
            }
            None => "true".to_owned(),
        };
        let copy = "pg_catalog.row_number() OVER (PARTITION BY";
        let sql = format!(
            "DELETE FROM {from} x USING
               (SELECT s.ctid AS place, {there} AS line, {copy} {there} ORDER BY s.ctid) AS copy
                FROM {from} s WHERE {own}) a
               JOIN (SELECT {here} AS line, {copy} {here}) AS copy FROM {} t WHERE {within}) b
                 ON a.line = b.line AND a.copy = b.copy
             WHERE x.ctid = a.place",
            self.target.name
        );
        let overlap = client.execute(&sql, &[])?;
        self.overlap += overlap;
        Ok(())
    }

    /// What holds for staged rows `s` whose key is not there.
    fn absent(&self) -> String {
        format!("NOT EXISTS (SELECT 1 FROM {} t WHERE {})", self.target.name, self.fields.same_key())
    }
    fn insert(&self) -> String {
        let (target, from) = (&self.target.name, self.staging());
        let (names, values, overriding) = (self.fields.names(), self.fields.values(), self.fields.overriding);
        format!("INSERT INTO {target} ({names}) {overriding}SELECT {values} FROM {from} s")
    }

    /// Staged rows that are not there afterwards, where the table has something that can drop a row without a word.
    fn dropped(&self, client: &mut Client) -> Result<Option<String>, WireError> {
        let may_drop = control::count(client, MAY_DROP, &[Some(&self.target.oid.to_string())])? > 0;
        let (from, absent) = (self.staging(), self.absent());
        Ok(may_drop.then(|| format!("SELECT count(*) FROM {from} s WHERE {absent} AND ")))
    }

    fn is_empty(&self, client: &mut Client) -> Result<bool, WireError> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT 1) x", self.target.name);
        control::count(client, &sql, &[]).map(|found| found == 0)
    }

    /// Whether the database itself keeps exactly this key unique, at once and for all rows.
    pub(super) fn is_unique(&self, client: &mut Client) -> Result<bool, WireError> {
        let key = &self.place.landing.contract.key;
        let all_not_null = key.iter().all(|name| self.target.column(name).is_some_and(|column| column.not_null));
        if !all_not_null {
            return Ok(false);
        }
        let mut wanted = key.clone();
        wanted.sort();
        let sql = UNIQUE.replace("{columns}", ddl::key_columns(client.version()));
        let rows = client.query(&sql, &[Some(&self.target.oid.to_string())])?;
        for row in rows {
            let mut names: Vec<String> = serde_json::from_str(&json_text(client.charset(), row.text(0)?))
                .map_err(|e| WireError::Protocol(format!("the catalogue lists an index in no known form: {e}")))?;
            names.sort();
            if names == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn check_dropped(client: &mut Client, count: Option<&str>, rows: &str) -> Result<(), Fail> {
    match count {
        Some(count) if control::count(client, &format!("{count}{rows}"), &[])? > 0 => {
            Err(WireError::Server(Box::new(dropped())).into())
        }
        _ => Ok(()),
    }
}

/// As the server would say it, if it did.
fn dropped() -> ServerError {
    ServerError {
        severity: "ERROR".to_owned(),
        sqlstate: "P0001".to_owned(),
        message: "the table, by a trigger or a rule, dropped the row without a word".to_owned(),
        ..ServerError::default()
    }
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Triggers that run before a row is there, and rules.
const MAY_DROP: &str = "
SELECT count(*) FROM pg_catalog.pg_class c
WHERE c.oid = $1::pg_catalog.oid AND (c.relhasrules OR EXISTS (
  SELECT 1 FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgtype::pg_catalog.int4 & 3 = 3))";

/// Columns of unique indexes that can settle a conflict.
const UNIQUE: &str = "
SELECT pg_catalog.json_agg(a.attname)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(number, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= {columns}
GROUP BY i.indexrelid";

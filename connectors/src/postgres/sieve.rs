//! Takes staged rows to the target set by set. Where the database refuses a set, it is halved until the refused
//! rows stand alone: those leave the staging table, with the server's own words, and all others pass. While
//! nothing is refused it is one statement. Rows are told apart by their place in the staging table (`ctid`).

use super::catalog::quote;
use super::control::{self, Refused};
use super::place::Fail;
use super::place::Place;
use super::staging::Staging;
use super::wire::{Client, Row, WireError, json_text};
use crate::publishing::{BAD_ROWS_MAX, Counts, RefusedMax};
use posthouse_protocol::problem::Problem;

/// Runs `work`; where the database refuses what it does, all of it is taken back, and the refusal is told.
pub(super) fn attempt<T>(
    client: &mut Client,
    is_refusal: impl FnOnce(&WireError) -> bool,
    work: impl FnOnce(&mut Client) -> Result<T, Fail>,
) -> Result<Result<T, WireError>, Fail> {
    client.batch("SAVEPOINT posthouse")?;
    match work(client) {
        Ok(done) => {
            client.batch("RELEASE SAVEPOINT posthouse")?;
            Ok(Ok(done))
        }
        Err(Fail::Wire(error)) if !client.is_broken() && is_refusal(&error) => {
            client.batch("ROLLBACK TO SAVEPOINT posthouse; RELEASE SAVEPOINT posthouse")?;
            Ok(Err(error))
        }
        Err(fail) => Err(fail),
    }
}

/// One statement, or a few, for the staged rows `s` for which a condition holds.
pub(super) type Step<'a> = dyn FnMut(&mut Client, &str) -> Result<Counts, Fail> + 'a;

pub(super) struct Sieve<'a> {
    pub(super) place: &'a Place,
    pub(super) staging: Staging,
    pub(super) refused: Vec<Refused>,
    /// More than these, and nothing is published.
    refused_max: RefusedMax,
}

/// Staged rows, by where they lie.
enum Rows {
    /// From one block up to another.
    Blocks(u64, u64),
    Each(Vec<String>),
}

impl Rows {
    fn condition(&self) -> String {
        match self {
            Self::Blocks(from, to) => format!("s.ctid >= '({from},0)' AND s.ctid < '({to},0)'"),
            Self::Each(places) => each(places),
        }
    }
    fn halves(self) -> [Self; 2] {
        match self {
            Self::Blocks(from, to) => {
                let middle = from + (to - from) / 2;
                [Self::Blocks(from, middle), Self::Blocks(middle, to)]
            }
            Self::Each(mut places) => {
                let second = places.split_off(places.len() / 2);
                [Self::Each(places), Self::Each(second)]
            }
        }
    }
}

/// What holds for rows `s` that lie there.
pub(super) fn each(places: &[String]) -> String {
    let list: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
    format!("s.ctid = ANY ('{{{}}}'::pg_catalog.tid[])", list.join(","))
}

impl<'a> Sieve<'a> {
    pub(super) fn new(place: &'a Place, staging: Staging, refused_max: Option<u64>) -> Self {
        Self { place, staging, refused: Vec::new(), refused_max: RefusedMax::new(refused_max) }
    }

    /// Takes all staged rows over.
    pub(super) fn pass(&mut self, client: &mut Client, step: &mut Step<'_>) -> Result<Counts, Fail> {
        let whole = self.staging.own.clone();
        let error = match attempt(client, WireError::is_refusal, |client| step(client, &whole))? {
            Ok(counts) => return Ok(counts),
            Err(error) => error,
        };
        // A key that comes twice is found at once for all rows.
        let may_be_twice = matches!(error.sqlstate(), Some(UNIQUE_VIOLATION | CARDINALITY_VIOLATION));
        if may_be_twice
            && self.take_duplicates(client)? > 0
            && let Ok(counts) = attempt(client, WireError::is_refusal, |client| step(client, &whole))?
        {
            return Ok(counts);
        }
        self.halve(client, step)
    }

    fn halve(&mut self, client: &mut Client, step: &mut Step<'_>) -> Result<Counts, Fail> {
        let (mut counts, mut waiting) = (Counts::default(), Vec::new());
        let mut left = vec![Rows::Blocks(0, self.blocks(client)?)];
        while let Some(rows) = left.pop() {
            let condition = self.own(&rows.condition());
            let outcome = attempt(client, WireError::is_refusal, |client| step(client, &condition))?;
            match (outcome, rows) {
                (Ok(passed), _) => counts += passed,
                (Err(_), Rows::Blocks(from, to)) if to <= from + 1 => {
                    let places = self.places(client, &condition)?;
                    left.extend((!places.is_empty()).then_some(Rows::Each(places)));
                }
                // What the row refers to may be a row of this table that is still to come.
                (Err(error), Rows::Each(places))
                    if places.len() == 1 && error.sqlstate() == Some(FOREIGN_KEY_VIOLATION) =>
                {
                    waiting.extend(places);
                }
                (Err(error), Rows::Each(places)) if places.len() == 1 => {
                    self.take_places(client, &places, &|key, original| Refused::by(&error, key, original))?;
                }
                (Err(_), rows) => {
                    let [first, second] = rows.halves();
                    left.extend([second, first]);
                }
            }
        }
        self.wait(client, waiting, step).map(|passed| counts += passed)?;
        Ok(counts)
    }

    /// Tries rows that refer to others again, as long as that helps any of them.
    fn wait(&mut self, client: &mut Client, mut waiting: Vec<String>, step: &mut Step<'_>) -> Result<Counts, Fail> {
        let mut counts = Counts::default();
        loop {
            let mut still = Vec::new();
            let before = waiting.len();
            for place in waiting {
                let condition = self.own(&each(std::slice::from_ref(&place)));
                match attempt(client, WireError::is_refusal, |client| step(client, &condition))? {
                    Ok(passed) => counts += passed,
                    Err(error) => still.push((place, error)),
                }
            }
            if still.len() == before {
                for (place, error) in still {
                    self.take_places(client, &[place], &|key, original| Refused::by(&error, key, original))?;
                }
                return Ok(counts);
            }
            waiting = still.into_iter().map(|(place, _)| place).collect();
        }
    }

    /// Whether two staged rows have one key.
    pub(super) fn has_duplicates(&self, client: &mut Client) -> Result<bool, WireError> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} s WHERE {} GROUP BY {} HAVING count(*) > 1 LIMIT 1) d",
            self.staging.name,
            self.staging.own,
            self.staged_key()
        );
        control::count(client, &sql, &[]).map(|found| found > 0)
    }

    /// Takes out staged rows whose key came before them in this transfer.
    pub(super) fn take_duplicates(&mut self, client: &mut Client) -> Result<u64, Fail> {
        if self.place.landing.contract.key.is_empty() {
            return Ok(0);
        }
        let copies = format!(
            "s.ctid = ANY (ARRAY(SELECT d.place FROM (
               SELECT s.ctid AS place, pg_catalog.row_number() OVER (PARTITION BY {} ORDER BY s.ctid) AS copy
               FROM {} s WHERE {}) d WHERE d.copy > 1))",
            self.staged_key(),
            self.staging.name,
            self.staging.own
        );
        self.take(client, &copies, "its key came in this transfer already")
    }

    /// Takes staged rows out of the way, for one reason.
    pub(super) fn take(&mut self, client: &mut Client, condition: &str, reason: &str) -> Result<u64, Fail> {
        let places = self.places(client, &self.own(condition))?;
        let refused = |key, original| Refused { key, original, reason: reason.to_owned(), ..Refused::default() };
        self.take_places(client, &places, &refused)?;
        Ok(places.len() as u64)
    }

    fn take_places(
        &mut self,
        client: &mut Client,
        places: &[String],
        refused: &dyn Fn(String, String) -> Refused,
    ) -> Result<(), Fail> {
        let landing = &self.place.landing;
        let columns = landing.contract.items.iter().map(|item| format!("s.{}", quote(&item.name)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let key = landing.contract.key.iter().map(|name| format!(", s.{}::pg_catalog.text", quote(name)));
        let key: String = key.collect();
        let name = &self.staging.name;
        for places in places.chunks(PAGE) {
            let at = each(places);
            let sql = format!(
                "SELECT s.ctid, pg_catalog.row_to_json(r){key} FROM {name} s CROSS JOIN LATERAL (SELECT {columns}) r
                 WHERE {at} ORDER BY s.ctid"
            );
            for row in client.query(&sql, &[])? {
                let original = json_text(client.charset(), row.text(1)?).into_owned();
                self.refused.push(refused(self.key_text(&row)?, original));
            }
            client.batch(&format!("DELETE FROM {name} s WHERE {at}"))?;
            self.check_limit()?;
        }
        Ok(())
    }

    fn check_limit(&self) -> Result<(), Problem> {
        let first = self.refused.first().map(Refused::row);
        self.refused_max.check(&self.place.target.to_string(), self.refused.len(), first.as_ref())
    }

    /// As `Batch::key_text` writes a key.
    fn key_text(&self, row: &Row) -> Result<String, WireError> {
        let parts: Vec<&str> =
            (0..self.place.landing.contract.key.len()).map(|part| row.optional(part + 2).unwrap_or("null")).collect();
        Ok(match parts.as_slice() {
            [] => format!("row {}", row.text(0)?),
            [only] => (*only).to_owned(),
            parts => {
                let escaped = parts.iter().map(|part| part.replace('\\', "\\\\").replace(',', "\\,"));
                escaped.collect::<Vec<_>>().join(",")
            }
        })
    }

    fn places(&self, client: &mut Client, condition: &str) -> Result<Vec<String>, WireError> {
        let limit = BAD_ROWS_MAX + 1;
        let sql = format!("SELECT s.ctid FROM {} s WHERE {condition} ORDER BY s.ctid LIMIT {limit}", self.staging.name);
        client.query(&sql, &[])?.iter().map(|row| row.text(0).map(str::to_owned)).collect()
    }

    fn blocks(&self, client: &mut Client) -> Result<u64, WireError> {
        let sql =
            "SELECT pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2";
        control::count(client, sql, &[Some(&self.staging.name.schema), Some(&self.staging.name.table)])
    }

    fn own(&self, condition: &str) -> String {
        format!("{condition} AND {}", self.staging.own)
    }

    fn staged_key(&self) -> String {
        let key = self.place.landing.contract.key.iter();
        key.map(|name| format!("s.{}", quote(name))).collect::<Vec<_>>().join(", ")
    }
}

pub(super) const UNIQUE_VIOLATION: &str = "23505";
const FOREIGN_KEY_VIOLATION: &str = "23503";
/// A row would be changed twice by one statement.
const CARDINALITY_VIOLATION: &str = "21000";
/// Refused rows that are read and taken out by one statement.
const PAGE: usize = 1_000;

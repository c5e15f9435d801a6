//! Takes staged rows to the target set by set. While nothing is refused it is one statement, in a transaction that any
//! error undoes (`XACT_ABORT ON`). Where the server refuses a set, publishing begins anew without that setting, sets are
//! halved until the refused rows stand alone, and those leave the staging table with the server's own words. An error
//! that undoes the transaction all the same (a conversion, a trigger that rolls back) is remembered, and once more it
//! begins anew.

use super::client::{Client, SqlError, id, number};
use super::control::Refused;
use super::name::quote;
use super::place::{Fail, Place};
use super::reading::RowReader;
use super::staging::{NUMBER, Staging};
use crate::BadRow;
use crate::publishing::RefusedMax;
use std::collections::{BTreeMap, BTreeSet};

/// What earlier attempts at publishing have found.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    is_sifting: bool,
    has_learnt: bool,
    count: u32,
    /// Rows that undid a whole transaction, with why.
    known: BTreeMap<i64, (String, Option<u32>)>,
    /// Sets end before these, for together they undid one.
    cuts: BTreeSet<i64>,
}

impl Attempts {
    /// Whether rows are looked for that the server refuses.
    pub(super) fn is_sifting(&self) -> bool {
        self.is_sifting
    }

    /// After an attempt that ended in a refusal: whether another would go otherwise.
    pub(super) fn go_on(&mut self) -> bool {
        let is_first = !self.is_sifting;
        self.is_sifting = true;
        self.count += 1;
        (is_first || std::mem::take(&mut self.has_learnt)) && self.count < ATTEMPTS_MAX
    }

    fn learn(&mut self, first: i64, last: i64, error: &SqlError) {
        self.has_learnt = true;
        if first == last {
            self.known.insert(first, (error.to_string(), error.code()));
        } else {
            self.cuts.insert(middle(first, last) + 1);
        }
    }

    /// The sets to begin with, the first of them last.
    fn sets(&self, first: i64, last: i64) -> Vec<(i64, i64)> {
        let mut sets = Vec::new();
        let mut from = first;
        for cut in self.cuts.iter().copied().filter(|cut| *cut > first && *cut <= last) {
            sets.push((from, cut - 1));
            from = cut;
        }
        sets.push((from, last));
        sets.reverse();
        sets
    }
}

pub(super) struct Sieve<'a> {
    pub(super) place: &'a Place,
    pub(super) staging: &'a Staging,
    pub(super) refused: Vec<Refused>,
    attempts: &'a mut Attempts,
    reader: RowReader,
    /// More than these, and nothing is published.
    refused_max: RefusedMax,
    /// Numbers of the first and the last staged row.
    first: i64,
    last: i64,
}

impl<'a> Sieve<'a> {
    pub(super) fn new(
        place: &'a Place,
        staging: &'a Staging,
        attempts: &'a mut Attempts,
        refused_max: Option<u64>,
        (first, last): (i64, i64),
    ) -> Self {
        let refused_max = RefusedMax::new(refused_max);
        Self { place, staging, refused: Vec::new(), attempts, reader: staging.reader(place), refused_max, first, last }
    }

    /// Takes out what earlier attempts have found.
    pub(super) fn take_known(&mut self, client: &mut Client) -> Result<(), Fail> {
        for (number, (reason, code)) in self.attempts.known.clone() {
            self.take(client, number, &reason, code)?;
        }
        Ok(())
    }

    /// Takes out the rows whose numbers a statement gives, with one reason for all.
    pub(super) fn take_all(&mut self, client: &mut Client, sql: &str, reason: &str) -> Result<(), Fail> {
        let numbers: Vec<i64> = client.query(sql, &[])?.iter().filter_map(|row| number(row, 0)).collect();
        numbers.into_iter().try_for_each(|number| self.take(client, number, reason, None))
    }

    /// Runs a statement for all staged rows; it has their first and last number as its parameters.
    pub(super) fn pass(&mut self, client: &mut Client, sql: &str) -> Result<(), Fail> {
        let mut left = self.attempts.sets(self.first, self.last);
        let mut waiting: Vec<i64> = Vec::new();
        while let Some((first, last)) = left.pop() {
            let Some(error) = self.attempt(client, sql, first, last)? else { continue };
            if first < last {
                let middle = middle(first, last);
                left.extend([(middle + 1, last), (first, middle)]);
            } else if error.code() == Some(REFERENCE) {
                // What the row refers to may be a row of this table that is still to come.
                waiting.push(first);
            } else {
                self.take(client, first, &error.to_string(), error.code())?;
            }
        }
        loop {
            let (before, mut still) = (waiting.len(), Vec::new());
            for number in waiting {
                if let Some(error) = self.attempt(client, sql, number, number)? {
                    still.push((number, error));
                }
            }
            if still.len() == before {
                for (number, error) in still {
                    self.take(client, number, &error.to_string(), error.code())?;
                }
                return Ok(());
            }
            waiting = still.into_iter().map(|(number, _)| number).collect();
        }
    }

    /// One set; why it was refused, where only its own statement was undone.
    fn attempt(&mut self, client: &mut Client, sql: &str, first: i64, last: i64) -> Result<Option<SqlError>, Fail> {
        let Err(error) = client.execute(sql, &[id(first), id(last)]) else { return Ok(None) };
        if !error.is_refusal() || !self.attempts.is_sifting() {
            return Err(error.into());
        }
        if client.stands()? {
            return Ok(Some(error));
        }
        self.attempts.learn(first, last, &error);
        Err(error.into())
    }

    /// Takes one staged row out, for quarantine.
    fn take(&mut self, client: &mut Client, number: i64, reason: &str, error: Option<u32>) -> Result<(), Fail> {
        let (rows, place) = (self.staging.rows("t"), quote(NUMBER));
        let sql = format!("SELECT {} FROM {rows} WHERE t.{place} = @P1", self.reader.select());
        let rows = client.query(&sql, &[id(number)])?;
        let Some(row) = rows.first() else { return Ok(()) };
        let (key, original) = self.reader.describe(row);
        self.staging.delete(client, number, number)?;
        let key = key.unwrap_or_else(|| format!("row {number}"));
        self.refused.push(Refused { row: BadRow { key, reason: reason.to_owned(), original }, error });
        let first = self.refused.first().map(|refused| &refused.row);
        Ok(self.refused_max.check(&self.place.target.to_string(), self.refused.len(), first)?)
    }
}

fn middle(first: i64, last: i64) -> i64 {
    first + (last - first) / 2
}

/// A foreign key, or a check.
const REFERENCE: u32 = 547;
/// Each row that undoes a whole transaction takes about as many as its set can be halved.
const ATTEMPTS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_undid_a_transaction_are_halved_until_one_row_is_left() {
        let refusal = SqlError::Odd("trigger".to_owned());
        let mut attempts = Attempts::default();
        assert_eq!(attempts.sets(1, 100), [(1, 100)]);
        assert!(attempts.go_on() && attempts.is_sifting());
        assert!(!attempts.go_on(), "nothing was learnt");
        let bad = 37;
        let mut tries = 0;
        while attempts.known.is_empty() {
            tries += 1;
            let sets = attempts.sets(1, 100);
            assert!(sets.iter().rev().map(|(first, last)| last - first + 1).sum::<i64>() == 100);
            let (first, last) = sets.into_iter().find(|(first, last)| (*first..=*last).contains(&bad)).unwrap();
            attempts.learn(first, last, &refusal);
            assert!(attempts.go_on());
        }
        assert_eq!(attempts.known.keys().copied().collect::<Vec<_>>(), [bad]);
        assert!(tries <= 8, "{tries}");
    }
}

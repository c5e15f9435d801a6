//! Takes staged rows to the target set by set. Where the database refuses a set, it is halved until the refused rows
//! stand alone: those leave the staging table, with the server's own words, and all others pass. While nothing is refused
//! it is one statement, or two. Rows are told apart by their number in the staging table.

use super::catalog::Relation;
use super::client::{Client, number};
use super::control::Refused;
use super::ddl::NUMBER_COLUMN;
use super::fail::{self, Fail};
use super::place::Place;
use super::rows::RowReader;
use super::staging::Staging;
use crate::publishing::{Counts, RefusedMax};
use mysql_async::ServerError;

/// Runs `work`; where a row is refused in it, all of it is taken back, and the refusal is told.
pub(super) fn attempt<T>(
    client: &mut Client,
    work: impl FnOnce(&mut Client) -> Result<T, Fail>,
) -> Result<Result<T, ServerError>, Fail> {
    client.run("SAVEPOINT posthouse")?;
    match work(client) {
        Ok(done) => {
            client.run("RELEASE SAVEPOINT posthouse")?;
            Ok(Ok(done))
        }
        Err(Fail::Server(error)) if fail::is_of_row(&error) => {
            client.run("ROLLBACK TO SAVEPOINT posthouse")?;
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

impl<'a> Sieve<'a> {
    pub(super) fn new(place: &'a Place, staging: Staging, refused_max: Option<u64>) -> Self {
        Self { place, staging, refused: Vec::new(), refused_max: RefusedMax::new(refused_max) }
    }

    /// Takes all staged rows over.
    pub(super) fn pass(&mut self, client: &mut Client, step: &mut Step<'_>) -> Result<Counts, Fail> {
        let whole = self.staging.own.clone();
        if let Ok(counts) = attempt(client, |client| step(client, &whole))? {
            return Ok(counts);
        }
        let number_of =
            |what: &str| format!("SELECT {what}(s.{NUMBER_COLUMN}) FROM {} s WHERE {whole}", self.staging.name);
        let (first, last) = (client.count(&number_of("MIN"), vec![])?, client.count(&number_of("MAX"), vec![])?);
        let (mut counts, mut waiting) = (Counts::default(), Vec::new());
        let mut left = vec![(first, last)];
        while let Some((first, last)) = left.pop() {
            let condition = self.between(first, last);
            match attempt(client, |client| step(client, &condition))? {
                Ok(passed) => counts += passed,
                // What the row refers to may be a row of this table that is still to come.
                Err(error) if first == last && error.code == fail::NO_PARENT => waiting.push(first),
                Err(error) if first == last => self.take_by(client, first, &error)?,
                Err(_) => {
                    let middle = first + (last - first) / 2;
                    left.extend([(middle + 1, last), (first, middle)]);
                }
            }
        }
        counts += self.wait(client, waiting, step)?;
        Ok(counts)
    }

    /// Tries rows that refer to others again, as long as that helps any of them.
    fn wait(&mut self, client: &mut Client, mut waiting: Vec<u64>, step: &mut Step<'_>) -> Result<Counts, Fail> {
        let mut counts = Counts::default();
        loop {
            let before = waiting.len();
            let mut still = Vec::new();
            for number in waiting {
                let condition = self.between(number, number);
                match attempt(client, |client| step(client, &condition))? {
                    Ok(passed) => counts += passed,
                    Err(error) => still.push((number, error)),
                }
            }
            if still.len() == before {
                for (number, error) in still {
                    self.take_by(client, number, &error)?;
                }
                return Ok(counts);
            }
            waiting = still.into_iter().map(|(number, _)| number).collect();
        }
    }

    /// Takes staged rows out of the way, for one reason.
    pub(super) fn take(&mut self, client: &mut Client, numbers: &[u64], reason: &str) -> Result<(), Fail> {
        for page in numbers.chunks(PAGE) {
            self.take_page(client, page, &|key, original| Refused {
                key,
                original,
                reason: reason.to_owned(),
                code: None,
            })?;
        }
        Ok(())
    }

    fn take_by(&mut self, client: &mut Client, number: u64, error: &ServerError) -> Result<(), Fail> {
        self.take_page(client, &[number], &|key, original| Refused::by(error, key, original))
    }

    fn take_page(
        &mut self,
        client: &mut Client,
        numbers: &[u64],
        refused: &dyn Fn(String, String) -> Refused,
    ) -> Result<(), Fail> {
        let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let name = &self.staging.name;
        let Some(relation) = Relation::find(client, name)? else { return Ok(()) };
        let reader = RowReader::of_contract(&relation, &self.place.landing.contract, None);
        let sql = format!(
            "SELECT {} FROM {name} s WHERE s.{NUMBER_COLUMN} IN ({list}) ORDER BY s.{NUMBER_COLUMN}",
            reader.select()
        );
        let (mut rows, mut taken) = (Vec::new(), Vec::new());
        let mut stream = client.stream(&sql, vec![])?;
        loop {
            let more = stream.fill(&mut rows)?;
            taken.extend(rows.iter().map(|row| reader.describe(row)));
            if !more {
                break;
            }
        }
        drop(stream);
        for ((key, original), number) in taken.into_iter().zip(numbers) {
            self.refused.push(refused(key.unwrap_or_else(|| format!("row {number}")), original));
        }
        client.run(&format!("DELETE FROM {name} WHERE {NUMBER_COLUMN} IN ({list})"))?;
        self.check_limit()
    }

    fn check_limit(&self) -> Result<(), Fail> {
        let first = self.refused.first().map(Refused::row);
        Ok(self.refused_max.check(&self.place.target.to_string(), self.refused.len(), first.as_ref())?)
    }

    /// Numbers of staged rows that a statement finds.
    pub(super) fn numbers(&self, client: &mut Client, sql: &str) -> Result<Vec<u64>, Fail> {
        let rows = client.rows(sql, vec![])?;
        Ok(rows.iter().filter_map(|row| row.first().map(number)).collect())
    }

    fn between(&self, first: u64, last: u64) -> String {
        format!("s.{NUMBER_COLUMN} BETWEEN {first} AND {last} AND {}", self.staging.own)
    }
}

/// Refused rows that are read and taken out by one statement.
const PAGE: usize = 1_000;

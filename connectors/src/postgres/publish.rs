//! From staging to target, in the one transaction that also leaves the transfer's id. Where there is no target,
//! the staging table becomes it. Elsewhere rows go over set by set, see [`super::sieve`]: a row that the target
//! refuses goes to `posthouse_quarantine`, and a row that is there already changes nothing.

use super::catalog::{Relation, literal, quote};
use super::control;
use super::ddl;
use super::fields::Fields;
use super::keys;
use super::place::{Fail, Place};
use super::replace::{self, Referrer};
use super::sieve::{Sieve, UNIQUE_VIOLATION, attempt};
use super::staging::{self, Staging};
use super::wire::{Client, WireError};
use crate::publishing::{Counts, check_mirror};
use crate::{Published, Publishing};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};

pub(super) fn publish(
    client: &mut Client,
    place: &Place,
    target: Option<Relation>,
    how: &Publishing,
) -> Result<Published, Fail> {
    let Some(staging) = Staging::find(client, place)? else {
        let cause = "nothing of this transfer is prepared here";
        return Err(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause).into());
    };
    control::drop_given_up(client, place, &staging.name)?;
    let staged = control::staged(client, place)?;
    // Triggers and checks of the table run as they do for its other users, and speak up at once.
    client.batch("SET LOCAL search_path TO DEFAULT; SET CONSTRAINTS ALL IMMEDIATE")?;
    let sieve = Sieve::new(place, staging, how.refused_max);
    let Some(target) = target else { return become_target(client, place, sieve, staged) };
    let fields = Fields::of(&place.landing.contract, &sieve.staging.columns, &target);
    let mut run = Run { place, target, fields, sieve, staged, deletes: 0, overlap: 0, took_staging: false };
    let (mut gone, mut kept) = (0, 0);
    if place.landing.write == Write::Mirror {
        // While all that came is there: of a row that is refused the older one is out of date, and not gone.
        (gone, kept) = run.delete_gone(client, how.held_back)?;
    }
    run.take_losses(client)?;
    let (counts, deleted) = match place.landing.write {
        Write::Append => (run.append(client)?, 0),
        Write::Upsert => {
            let deleted = run.take_deletes(client)?;
            (run.upsert(client)?, deleted)
        }
        Write::Replace => run.replace(client)?,
        Write::Mirror => (run.upsert(client)?, gone),
    };
    let refused = run.sieve.refused.len() as u64;
    let result = Published {
        rows: run.left() + run.deletes,
        inserted: counts.inserted,
        updated: counts.updated,
        deleted,
        quarantined: refused,
        kept,
    };
    control::leave(client, place, &result, &run.sieve.refused)?;
    if !run.took_staging {
        run.sieve.staging.drop(client)?;
    }
    Ok(result)
}

/// The staging table takes the target's name, and its key once it is full; both show with the commit.
fn become_target(client: &mut Client, place: &Place, mut sieve: Sieve<'_>, staged: u64) -> Result<Published, Fail> {
    if sieve.staging.premade {
        return Err(staging::no_right(place).into());
    }
    let schema = &place.target.schema;
    if *schema != place.control {
        client.batch(&format!("ALTER TABLE {} SET SCHEMA {}", sieve.staging.name, quote(schema)))?;
        sieve.staging.name.schema.clone_from(schema);
    }
    client.batch(&format!("ALTER TABLE {} RENAME TO {}", sieve.staging.name, quote(&place.target.table)))?;
    sieve.staging.name = place.target.clone();
    if let Some(keys) = &sieve.staging.keys {
        // There was a table to mirror into, and it is gone.
        client.batch(&format!("DROP TABLE {keys}"))?;
    }
    if let Some(key) = ddl::primary_key(&place.landing.contract.key) {
        let add = format!("ALTER TABLE {} ADD {key}", place.target);
        let is_twice = |error: &WireError| error.sqlstate() == Some(UNIQUE_VIOLATION);
        if attempt(client, is_twice, |client| Ok(client.batch(&add)?))?.is_err() {
            sieve.take_duplicates(client)?;
            client.batch(&add)?;
        }
    }
    let quarantined = sieve.refused.len() as u64;
    let rows = staged.saturating_sub(quarantined);
    let result = Published { rows, inserted: rows, quarantined, ..Published::default() };
    control::leave(client, place, &result, &sieve.refused)?;
    Ok(result)
}

/// One publishing into a table that stands.
pub(super) struct Run<'a> {
    pub(super) place: &'a Place,
    pub(super) target: Relation,
    pub(super) fields: Fields,
    pub(super) sieve: Sieve<'a>,
    staged: u64,
    /// Staged rows that said that their key is gone.
    deletes: u64,
    /// Staged rows that stood there before.
    pub(super) overlap: u64,
    took_staging: bool,
}

impl Run<'_> {
    /// Staged rows that were not refused, and are there.
    pub(super) fn left(&self) -> u64 {
        self.staged.saturating_sub(self.sieve.refused.len() as u64 + self.deletes)
    }
    pub(super) fn staging(&self) -> String {
        self.sieve.staging.name.to_string()
    }
    pub(super) fn own(&self) -> &str {
        &self.sieve.staging.own
    }

    /// Nobody else changes the table until the commit; readers are not held up.
    pub(super) fn lock(&self, client: &mut Client) -> Result<(), WireError> {
        client.batch(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.target.name))
    }

    /// Deletes what staged rows say is gone, and takes them out of the staging table: what is left there is upserted. How
    /// many rows of the target went; a key that was not there is none.
    fn take_deletes(&mut self, client: &mut Client) -> Result<u64, Fail> {
        let Some(operation) = &self.place.landing.operation else { return Ok(0) };
        let (target, staging, own, same) = (&self.target.name, self.staging(), self.own(), self.fields.same_key());
        let doomed = format!("s.{} = {}", quote(operation), literal(Operation::Delete.letter()));
        let deleted = client
            .execute(&format!("DELETE FROM {target} t USING {staging} s WHERE {own} AND {doomed} AND {same}"), &[])?;
        self.deletes = client.execute(&format!("DELETE FROM {staging} s WHERE {own} AND {doomed}"), &[])?;
        Ok(deleted)
    }

    /// Values that the database would shorten or round without a word are refused here.
    fn take_losses(&mut self, client: &mut Client) -> Result<(), Fail> {
        let losses: Vec<(String, String)> =
            self.fields.losses().map(|(loss, reason)| (format!("({loss})"), reason)).collect();
        for (loss, reason) in losses {
            self.sieve.take(client, &loss, &reason)?;
        }
        Ok(())
    }

    /// All rows give way to the new ones; how many there were.
    fn replace(&mut self, client: &mut Client) -> Result<(Counts, u64), Fail> {
        if replace::obstacles(client, &self.target)?.is_empty() {
            let (staging, left) = (&self.sieve.staging, self.left());
            if let Ok(swapped) = replace::swap(client, self.place, &self.target, staging, &self.fields, left)? {
                self.took_staging = swapped.took_staging;
                return Ok((Counts { inserted: swapped.inserted, updated: 0 }, swapped.deleted));
            }
        }
        self.lock(client)?;
        let referrers = replace::referrers(client, &self.target)?;
        if !referrers.is_empty() {
            return self.replace_by_key(client, &referrers);
        }
        let deleted = client.execute(&format!("DELETE FROM {}", self.target.name), &[])?;
        Ok((self.insert_all(client)?, deleted))
    }

    /// Other tables refer to rows of this one: those that come again stay where they are.
    fn replace_by_key(&mut self, client: &mut Client, referrers: &[Referrer]) -> Result<(Counts, u64), Fail> {
        let unkeyed = self.place.landing.contract.key.is_empty();
        if unkeyed || !self.is_unique(client)? {
            let cause =
                "other tables refer to its rows, which are not known by a key: name the key that is unique there";
            return Err(self.refuse(cause).into());
        }
        self.compare(client)?;
        let refused = self.sieve.refused.len();
        let mut deleted = self.delete_unreferred(client, referrers)?;
        let counts = self.change_and_add(client, true)?;
        if self.sieve.refused.len() > refused {
            deleted += self.delete_unreferred(client, referrers)?;
        }
        Ok((counts, deleted))
    }

    /// Deletes what was not handed over, unless other tables refer to it: their rows would go along, or change.
    fn delete_unreferred(&self, client: &mut Client, referrers: &[Referrer]) -> Result<u64, Fail> {
        let gone = self.gone();
        for referrer in referrers {
            let join = referrer.columns.iter().map(|(there, here)| format!("r.{there} = t.{here}"));
            let join = join.collect::<Vec<_>>().join(" AND ");
            let (table, target) = (&referrer.table, &self.target.name);
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {table} r JOIN {target} t ON {join} WHERE {gone} LIMIT 1) x"
            );
            if control::count(client, &sql, &[])? > 0 {
                let cause = format!(
                    "rows that {table} refers to would be gone; use upsert or mirror, or land what refers to them too"
                );
                return Err(self.refuse(&cause).into());
            }
        }
        self.delete_absent(client, false)
    }

    fn refuse(&self, cause: &str) -> Problem {
        Problem::new(Code::DestinationFailed).with("target", &self.place.landing.table).cause(cause)
    }

    /// Deletes what a mirror has no row for any more. How many went; and how many would have, where the keys of all rows
    /// are not known.
    fn delete_gone(&mut self, client: &mut Client, held_back: u64) -> Result<(u64, u64), Fail> {
        self.lock(client)?;
        self.take_misplaced(client)?;
        if held_back == 0 && keys::are_known(client, self.place, &self.sieve.staging)? {
            return Ok((self.delete_absent(client, true)?, 0));
        }
        let absent = format!("SELECT count(*) FROM {} t WHERE {}", self.target.name, self.gone());
        Ok((0, control::count(client, &absent, &[])?))
    }

    /// Refuses staged rows whose key has no place in the table, before keys are compared all at once. Nothing stands in
    /// the table with such a key.
    fn take_misplaced(&mut self, client: &mut Client) -> Result<(), Fail> {
        let converted: Vec<String> =
            self.fields.converted_key().into_iter().map(|value| format!("count({value})")).collect();
        if converted.is_empty() {
            return Ok(());
        }
        let (converted, from) = (converted.join(", "), self.staging());
        self.sieve.pass(client, &mut |client, rows| {
            client.query(&format!("SELECT {converted} FROM {from} s WHERE {rows}"), &[])?;
            Ok(Counts::default())
        })?;
        match &self.sieve.staging.keys {
            Some(keys) => keys::drop_misplaced(client, keys, &converted),
            None => Ok(()),
        }
    }

    /// Deletes rows whose key was not handed over, unless a mirror would delete too many of them.
    fn delete_absent(&self, client: &mut Client, is_mirror: bool) -> Result<u64, Fail> {
        let (target, gone) = (&self.target.name, self.gone());
        if is_mirror {
            let total = control::count(client, &format!("SELECT count(*) FROM {target}"), &[])?;
            let count = control::count(client, &format!("SELECT count(*) FROM {target} t WHERE {gone}"), &[])?;
            check_mirror(count, total)?;
        }
        Ok(client.execute(&format!("DELETE FROM {target} t WHERE {gone}"), &[])?)
    }

    /// What holds for rows `t` whose key was not handed over, neither with a row that is staged nor with one that was
    /// refused.
    fn gone(&self) -> String {
        let (staging, own, same) = (self.staging(), self.own(), self.fields.same_key());
        let gone = format!("NOT EXISTS (SELECT 1 FROM {staging} s WHERE {own} AND {same})");
        match &self.sieve.staging.keys {
            Some(keys) => format!("{gone} AND NOT EXISTS (SELECT 1 FROM {keys} s WHERE {same})"),
            None => gone,
        }
    }
}

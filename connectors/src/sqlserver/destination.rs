//! Lands one transfer in one table. `prepare` makes or checks what is needed, `stage` takes splits, `publish` makes
//! them visible. Each call is one transaction, so that dropping the destination at any point leaves a state from which
//! the same transfer goes on; a connection that was lost, or whose load failed, is opened again with the next call,
//! which reads what became of the last one.

use super::catalog::{self, Relation};
use super::client::{Client, SqlError, param};
use super::name::quote;
use super::place::{Fail, Place};
use super::reading::{RowReader, Wanted};
use super::settings::Settings;
use super::sieve::Attempts;
use super::staging::{NUMBER, Staging, TRANSFER};
use super::{Faults, control, ddl, publish};
use crate::publishing;
use crate::types::Window;
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, Sink, SplitLanded};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;

pub(super) struct SqlDestination {
    faults: Faults,
    settings: Settings,
    place: Place,
    client: Option<Client>,
    /// As it was when a split was staged last.
    staging: Option<Staging>,
}

impl SqlDestination {
    pub(super) fn new(faults: Faults, settings: Settings, landing: &Landing) -> Result<Self, Problem> {
        let place = Place::new(landing, &settings)?;
        Ok(Self { faults, settings, place, client: None, staging: None })
    }

    fn has_charset(&self) -> bool {
        self.settings.charset.is_some()
    }

    /// Runs `work` as one transaction.
    fn transact<T>(&mut self, work: impl FnOnce(&mut Client, &Place) -> Result<T, Fail>) -> Result<T, Problem> {
        let outcome = self.attempt(BEGIN, work);
        outcome.map_err(|fail| self.problem(fail))
    }

    fn attempt<T>(
        &mut self,
        begin: &str,
        work: impl FnOnce(&mut Client, &Place) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let mut client = self.begin(begin)?;
        let worked = work(&mut client, &self.place);
        let outcome = match worked {
            Ok(done) => client.batch("COMMIT TRANSACTION").map(|()| done).map_err(Fail::Sql),
            Err(fail) => Err(fail),
        };
        // It is kept for the next call, if it is good for one.
        if outcome.is_ok() || (!client.is_broken() && client.roll_back().is_ok()) {
            self.client = Some(client);
        }
        outcome
    }

    /// A client with an open transaction. Nothing was done yet, so that a connection that was lost in the meantime is
    /// opened again without a word.
    fn begin(&mut self, begin: &str) -> Result<Client, Fail> {
        if let Some(mut client) = self.client.take()
            && !client.is_broken()
        {
            client.be_quick();
            match client.batch(begin) {
                Ok(()) => return Ok(client),
                Err(error) if error.is_lost() || client.is_broken() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut client = Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?;
        client.batch(begin)?;
        Ok(client)
    }

    fn problem(&self, fail: Fail) -> Problem {
        match fail {
            Fail::Sql(error) => self.faults.write(&self.place.landing.table, error),
            Fail::Problem(problem) => problem,
        }
    }

    fn try_prepare(&mut self) -> Result<(), Fail> {
        let has_charset = self.has_charset();
        self.attempt(BEGIN, |client, place| {
            let target = examine(client, place)?;
            prepare_control(client, place)?;
            control::check_epoch(client, place)?;
            check_alone(client, place)?;
            control::begin(client, place)?;
            let target = match target {
                Some(target) => target,
                None => {
                    let create = ddl::create_target(place)?;
                    ddl::make_target(client, place, &create).map_err(|e| no_right(place, e))?;
                    Relation::find(client, &place.target)?.ok_or_else(|| nothing(place))?
                }
            };
            let staging = Staging::beside(place, &target, has_charset)?;
            if control::published(client, place)?.is_none() {
                let create = staging.create();
                if staging.found(client, place)?.is_none() {
                    client.batch(&create).map_err(|e| no_right(place, e))?;
                }
            }
            Ok(())
        })
    }
}

impl Destination for SqlDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        let mut tries = 0;
        loop {
            match self.try_prepare() {
                // Somebody else made the same in the meantime: it is looked at once more.
                Err(Fail::Sql(error)) if error.code().is_some_and(|code| IS_THERE.contains(&code)) && tries < 3 => {
                    tries += 1;
                }
                outcome => return outcome.map_err(|fail| self.problem(fail)),
            }
        }
    }

    fn applied(&mut self) -> Result<Vec<Applied>, Problem> {
        self.transact(|client, place| {
            Ok(if control::exist(client, place)? { control::applied(client, place)? } else { Vec::new() })
        })
    }

    fn published(&mut self) -> Result<Option<Published>, Problem> {
        self.transact(|client, place| {
            Ok(if control::exist(client, place)? { control::published(client, place)? } else { None })
        })
    }

    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem> {
        let (known, has_charset) = (self.staging.take(), self.has_charset());
        let (landed, staging) = self.transact(|client, place| {
            control::check_epoch(client, place)?;
            if let Some(before) = control::landed(client, place, split, root)? {
                return Ok((before, known));
            }
            if control::published(client, place)?.is_some() {
                return Err(nothing(place).into());
            }
            let staging = match known {
                Some(staging) => staging,
                None => find_staging(client, place, has_charset)?.1,
            };
            client.take_time();
            // What was taken over under this name was another one.
            control::give_up(client, place, &staging, split, None)?;
            let taken = staging.take(client, place, batches)?;
            control::note(client, place, split, root, &taken)?;
            let bad = taken.refused.into_iter().map(|refused| refused.row).collect();
            Ok((SplitLanded { landed: taken.landed, bad }, Some(staging)))
        })?;
        self.staging = staging;
        Ok(landed)
    }

    fn hands_over(&mut self) -> Result<bool, Problem> {
        // A split's rows have the numbers that are noted of it.
        self.transact(|client, place| Ok(catalog::is_there(client, &place.staging())?))
    }

    fn take_over(&mut self, failed: &TransferId) -> Result<bool, Problem> {
        self.staging = None;
        let has_charset = self.has_charset();
        self.transact(|client, place| {
            let landing = Landing { transfer: failed.clone(), ..place.landing.clone() };
            let before = Place { landing, ..place.clone() };
            if !control::exist(client, place)? {
                return Ok(false);
            }
            control::check_epoch(client, &before)?;
            if control::published(client, &before)?.is_some() || catalog::is_there(client, &place.staging())? {
                return Ok(false);
            }
            let target = Relation::find(client, &place.target)?;
            let found = Relation::find(client, &before.staging())?;
            let is_like = match (&target, &found) {
                (Some(target), Some(found)) => {
                    Staging::beside(place, target, has_charset).is_ok_and(|staging| staging.is_like(found))
                }
                _ => false,
            };
            let is_mirror = place.landing.write == Write::Mirror;
            // Whether the keys of refused rows were kept is not known: the job may have been another kind of write.
            let lacks_keys = is_mirror && control::refused_before(client, &before)? > 0;
            if !is_like || lacks_keys || !control::take_over(client, place, &before)? {
                discard(client, &before)?;
                return Ok(false);
            }
            let (old, new) = (before.staging().to_string(), place.staging().table);
            client.execute("EXEC sys.sp_rename @objname = @P1, @newname = @P2", &[param(&old), param(&new)])?;
            if !is_mirror {
                // Keys that were kept are no rows to land.
                client.execute(&format!("DELETE FROM {} WHERE {} <= 0", place.staging(), quote(NUMBER)), &[])?;
            }
            Ok(true)
        })
    }

    fn give_up(&mut self, splits: &[(String, [u8; 32])]) -> Result<(), Problem> {
        let has_charset = self.has_charset();
        self.transact(|client, place| {
            control::check_epoch(client, place)?;
            let (_, staging) = find_staging(client, place, has_charset)?;
            client.take_time();
            for (split, root) in splits {
                control::give_up(client, place, &staging, split, Some(*root))?;
            }
            Ok(())
        })
    }

    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem> {
        let has_charset = self.has_charset();
        let mut attempts = Attempts::default();
        let outcome = loop {
            let outcome = self.attempt(BEGIN, |client, place| {
                control::check_epoch(client, place)?;
                if let Some(before) = control::published(client, place)? {
                    return Ok(before);
                }
                let (target, staging) = find_staging(client, place, has_charset)?;
                publish::publish(client, place, &target, &staging, how, &mut attempts)
            });
            match outcome {
                Err(Fail::Sql(error)) if error.is_refusal() && attempts.go_on() => {}
                outcome => break outcome,
            }
        };
        match outcome.map_err(|fail| self.problem(fail)) {
            // It may be the answer that was lost, and not the commit.
            Err(problem) if problem.code == Code::ConnectionFailed => match self.published() {
                Ok(Some(published)) => Ok(published),
                _ => Err(problem),
            },
            outcome => outcome,
        }
    }

    fn refused(&mut self) -> Result<Vec<BadRow>, Problem> {
        self.transact(|client, place| Ok(control::refused(client, place, "")?))
    }

    fn discard(&mut self) -> Result<(), Problem> {
        self.staging = None;
        self.transact(discard)
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let has_charset = self.has_charset();
        let charset = self.settings.charset;
        let snapshots = self.transact(|client, _| Ok(catalog::has_snapshots(client)?))?;
        let begin = if snapshots { BEGIN_SNAPSHOT } else { BEGIN };
        let outcome = self.attempt(begin, |client, place| {
            let Some(target) = Relation::find(client, &place.target)? else { return Ok(0) };
            // What would be landed in is what is read.
            if !has_charset {
                Staging::beside(place, &target, false)?;
            }
            let contract = &place.landing.contract;
            let mut columns = Vec::with_capacity(contract.items.len());
            for item in &contract.items {
                let kind = target.column(&item.name).and_then(|column| column.kind).ok_or_else(|| nothing(place))?;
                let kind = charset.map_or(kind, |charset| kind.with_page(super::codepage::Page::Ours(charset)));
                columns.push(Wanted { name: item.name.clone(), kind, r#type: item.r#type });
            }
            let mark = place.landing.watermark_column.as_deref().and_then(|name| contract.position(name));
            let window = Window::up_to(to.filter(|_| mark.is_some()));
            let mut reader = RowReader::new(columns, contract, mark, window, None);
            let hint = if snapshots { "" } else { " WITH (TABLOCK, HOLDLOCK)" };
            let sql = format!("SELECT {} FROM {} AS t{hint}", reader.select(), place.target);
            client.take_time();
            client.stream(&sql, &[], &mut |row: &tiberius::Row| reader.row(row, sink).map_err(Fail::Problem))?;
            Ok(reader.finish(sink)?.read)
        });
        outcome.map_err(|fail| self.problem(fail))
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        let has_charset = self.has_charset();
        self.transact(|client, place| dry_run(client, place, has_charset))
    }

    fn line(&self) -> Option<&'static str> {
        self.settings.line()
    }
}

/// What stands in the way of landing here; the target as it stands, if it does.
fn examine(client: &mut Client, place: &Place) -> Result<Option<Relation>, Fail> {
    let landing = &place.landing;
    if matches!(landing.write, Write::Upsert | Write::Mirror) && landing.contract.key.is_empty() {
        return Err(Problem::new(Code::KeyMissing).with("table", &landing.table).with("write", landing.write).into());
    }
    let Some(target) = Relation::find(client, &place.target)? else { return Ok(None) };
    if !target.is_table {
        let problem = Problem::new(Code::DestinationFailed).with("target", &landing.table);
        return Err(problem.cause("it is a view").into());
    }
    Ok(Some(target))
}

/// The target and the staging table beside it, which `prepare` has made.
fn find_staging(client: &mut Client, place: &Place, has_charset: bool) -> Result<(Relation, Staging), Fail> {
    let target = examine(client, place)?.ok_or_else(|| nothing(place))?;
    let staging = Staging::beside(place, &target, has_charset)?.found(client, place)?;
    Ok((target, staging.ok_or_else(|| nothing(place))?))
}

/// Leaves nothing of what a transfer has staged and never published.
fn discard(client: &mut Client, place: &Place) -> Result<(), Fail> {
    if catalog::is_there(client, &place.staging())? {
        client.batch(&format!("DROP TABLE {}", place.staging()))?;
    }
    if let Some(found) = Relation::find(client, &place.premade())?
        && found.column(TRANSFER).is_some()
    {
        let sql = format!("DELETE FROM {} WHERE {} = @P1", found.name, quote(TRANSFER));
        client.execute(&sql, &[param(place.transfer())])?;
    }
    if control::exist(client, place)? && control::published(client, place)?.is_none() {
        control::discard(client, place)?;
    }
    Ok(())
}

fn nothing(place: &Place) -> Problem {
    let cause = "nothing is prepared for this transfer, or it is published already";
    Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause)
}

/// What an account lacks that may only read and write rows, and what would help.
fn no_right(place: &Place, error: SqlError) -> Fail {
    if !error.code().is_some_and(|code| NO_RIGHT.contains(&code)) {
        return Fail::Sql(error);
    }
    let cause = format!(
        "the account may not create tables in the schema {}: have the DBA run the script that `posthouse doctor --config \
         FILE --sql CONNECTION` prints; {error}",
        place.control
    );
    Fail::Problem(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause))
}

/// Rows without a key are told apart by their contents only: those of another job could not be.
fn check_alone(client: &mut Client, place: &Place) -> Result<(), Fail> {
    match publishing::is_by_content(&place.landing) {
        true => Ok(publishing::check_alone(&place.landing, control::other_job(client, place)?)?),
        false => Ok(()),
    }
}

fn prepare_control(client: &mut Client, place: &Place) -> Result<(), Fail> {
    if place.control != place.target.schema && !catalog::has_schema(client, &place.control)? {
        client.batch(&format!("CREATE SCHEMA {}", quote(&place.control))).map_err(|e| no_right(place, e))?;
    }
    for (name, create) in control::names(place).iter().zip(control::create(place)) {
        if !catalog::is_there(client, name)? {
            client.batch(&create).map_err(|e| no_right(place, e))?;
        }
    }
    let [applied, _] = control::names(place);
    if Relation::find(client, &applied)?.is_some_and(|found| found.column(control::FIRST_NUMBER).is_none()) {
        client.batch(&control::add_numbers(place)).map_err(|e| no_right(place, e))?;
    }
    Ok(())
}

/// What `prepare` and `publish` would do, in lines.
fn dry_run(client: &mut Client, place: &Place, has_charset: bool) -> Result<Vec<String>, Fail> {
    let landing = &place.landing;
    let mut lines = Vec::new();
    let target = examine(client, place)?;
    match &target {
        None => lines.push(ddl::create_target(place)?),
        Some(target) => {
            Staging::beside(place, target, has_charset)?;
            client.take_time();
            let rows = client.count(&format!("SELECT COUNT_BIG(*) FROM {} AS t", target.name), &[])?;
            lines.push(format!("table {} stands with {rows} rows, its columns are the resource's", target.name));
        }
    }
    let key = landing.contract.key.join(", ");
    lines.push(match publishing::told(landing) {
        Some(line) => line,
        None => {
            let referrers = match &target {
                Some(target) => catalog::referrers(client, target.id)?,
                None => Vec::new(),
            };
            let stays = "the table itself, its indexes, rights, triggers and views stay";
            match referrers.first() {
                None => format!("replace: all rows give way to the new ones in one transaction; {stays}"),
                Some((name, _)) => format!(
                    "replace: rows are added, changed and deleted by their key ({key}) in one transaction, for `{name}` \
                     refers to them; {stays}"
                ),
            }
        }
    });
    if !catalog::has_snapshots(client)? {
        lines.push(
            "readers of the table wait while a transfer is published: the database allows no snapshots".to_owned(),
        );
    }
    Ok(lines)
}

/// Whatever the session had before.
const BEGIN: &str = "SET XACT_ABORT ON; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION";
/// One snapshot.
const BEGIN_SNAPSHOT: &str = "SET XACT_ABORT ON; SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION";
/// There is already an object of this name, or a row of this transfer.
const IS_THERE: [u32; 2] = [2_714, 2_627];
/// No right to create in the database; no right in the schema, or no such schema; no right on an object.
const NO_RIGHT: [u32; 5] = [262, 2_760, 229, 230, 1_088];

//! Lands one transfer in one table. `prepare` makes or checks what is needed, `stage` takes splits, `publish`
//! makes them visible. Each call is one transaction, so that dropping the destination at any point leaves a state
//! from which the same transfer goes on; a connection that was lost is opened again with the next call, which
//! reads what became of the last one.

use super::catalog::{Kind, Relation, TableName, quote};
use super::place::{Fail, Place};
use super::position::RAW_XMIN_KEPT;
use super::settings::Settings;
use super::staging::Staging;
use super::wire::{Client, WireError};
use super::{Faults, control, ddl, fields, publish, replace, staging, standing};
use crate::publishing;
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, RawRows, Sink, SplitLanded};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;

pub(super) struct PgDestination {
    faults: Faults,
    settings: Settings,
    place: Place,
    client: Option<Client>,
    /// As it was when a split was staged last: looking at it anew costs as much as everything else around a split.
    staging: Option<Staging>,
}

impl PgDestination {
    pub(super) fn new(faults: Faults, settings: Settings, landing: &Landing) -> Result<Self, Problem> {
        let place = Place::new(landing, settings.control_schema.as_deref())?;
        Ok(Self { faults, settings, place, client: None, staging: None })
    }

    /// Runs `work` as one transaction, which nobody else of this transfer is in the middle of.
    fn transact<T>(&mut self, work: impl FnOnce(&mut Client, &Place) -> Result<T, Fail>) -> Result<T, Problem> {
        self.transact_under(|client, place| control::lock(client, place.transfer()), work)
    }

    fn transact_under<T>(
        &mut self,
        lock: impl FnOnce(&mut Client, &Place) -> Result<(), WireError>,
        work: impl FnOnce(&mut Client, &Place) -> Result<T, Fail>,
    ) -> Result<T, Problem> {
        let mut client = self.begin(BEGIN)?;
        let place = &self.place;
        let result = lock(&mut client, place)
            .map_err(Fail::Wire)
            .and_then(|()| work(&mut client, place))
            .and_then(|result| client.batch("COMMIT").map(|()| result).map_err(Fail::Wire));
        self.end(client, result)
    }

    /// A client with an open transaction. Nothing was done yet, so that a connection that was lost in the
    /// meantime is opened again without a word.
    fn begin(&mut self, begin: &str) -> Result<Client, Problem> {
        if let Some(mut client) = self.client.take()
            && !client.is_broken()
        {
            match client.batch(begin) {
                Ok(()) => return Ok(client),
                Err(error) if error.is_lost() => {}
                Err(error) => return Err(self.faults.write(&self.place.landing.table, error)),
            }
        }
        let mut client = Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?;
        // What is committed is told to the provider, which then forgets it.
        client.query(DURABLE, &[]).map_err(|e| self.faults.connection(e))?;
        client.batch(begin).map_err(|e| self.faults.write(&self.place.landing.table, e))?;
        Ok(client)
    }

    /// Keeps the client for the next call, if it is good for one.
    fn end<T>(&mut self, mut client: Client, result: Result<T, Fail>) -> Result<T, Problem> {
        let table = &self.place.landing.table;
        match result {
            Ok(result) => {
                self.client = Some(client);
                Ok(result)
            }
            Err(fail) => {
                if !client.is_broken() && client.batch("ROLLBACK").is_ok() {
                    self.client = Some(client);
                }
                Err(match fail {
                    Fail::Wire(error) => self.faults.write(table, error),
                    Fail::Problem(problem) => problem,
                })
            }
        }
    }

    fn stage_with(
        &mut self,
        split: &str,
        root: [u8; 32],
        take: impl FnOnce(&mut Client, &Place, &Staging) -> Result<Taken, Fail>,
    ) -> Result<SplitLanded, Problem> {
        // Splits are staged beside each other, and each of them once.
        let lock = |client: &mut Client, place: &Place| {
            control::lock_together(client, place.transfer())?;
            control::lock(client, &format!("{} {split}", place.transfer()))
        };
        let known = self.staging.take();
        let (landed, staging) = self.transact_under(lock, |client, place| {
            control::check_epoch(client, place)?;
            if let Some(before) = control::landed(client, place, split, root)? {
                return Ok((before, known));
            }
            let over = || {
                let cause = "nothing is prepared for this transfer, or it is published already";
                Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause)
            };
            if control::published(client, place)?.is_some() {
                return Err(over().into());
            }
            let staging = match known {
                Some(staging) => staging,
                None => Staging::find(client, place)?.ok_or_else(over)?,
            };
            client.batch("SET LOCAL search_path TO DEFAULT")?;
            if staging.premade {
                control::name_transfer(client, place)?;
            }
            let Taken { landed, refused, is_one_transaction } = take(client, place, &staging)?;
            control::note(client, place, split, root, landed, &refused, is_one_transaction)?;
            let landed = SplitLanded { landed, bad: refused.iter().map(control::Refused::row).collect() };
            Ok((landed, Some(staging)))
        })?;
        self.staging = staging;
        Ok(landed)
    }
}

/// What became of a split's rows.
struct Taken {
    landed: u64,
    refused: Vec<control::Refused>,
    is_one_transaction: bool,
}

impl Taken {
    fn sifted((landed, refused): (u64, Vec<control::Refused>)) -> Self {
        Self { landed, refused, is_one_transaction: false }
    }
}

impl Destination for PgDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        self.transact(|client, place| {
            control::lock(client, &place.control)?;
            let target = examine(client, place)?;
            prepare_control(client, place)?;
            control::check_epoch(client, place)?;
            check_alone(client, place)?;
            if control::published(client, place)?.is_none() {
                let target = match target {
                    // What is staged has a column more, and cannot become the target.
                    None if place.landing.operation.is_some() => make_target(client, place)?,
                    target => target,
                };
                Staging::prepare(client, place, target.as_ref())?;
            }
            Ok(())
        })
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
        self.stage_with(split, root, |client, place, staging| {
            staging.take_batches(client, place, batches).map(Taken::sifted)
        })
    }

    fn stage_raw(&mut self, split: &str, root: [u8; 32], rows: &mut dyn RawRows) -> Result<SplitLanded, Problem> {
        let natives = self.place.natives.clone().ok_or_else(|| {
            Problem::new(Code::InsideFailed).cause(format!("split {split} came in a form that was not asked for"))
        })?;
        // Without savepoints its rows can be told from others, and nothing is looked at that is not refused.
        let mut is_refused = false;
        let whole = self.stage_with(split, root, |client, place, staging| {
            if !staging.takes(&natives) {
                return staging.take_raw(client, place, &natives, rows).map(Taken::sifted);
            }
            let taken = staging.take_whole(client, rows);
            is_refused = matches!(&taken, Err(Fail::Wire(error)) if error.is_refusal_of_copied());
            taken.map(|landed| Taken { landed, refused: Vec::new(), is_one_transaction: true })
        });
        if !is_refused {
            return whole;
        }
        rows.rewind()?;
        self.stage_with(split, root, |client, place, staging| {
            staging.take_raw(client, place, &natives, rows).map(Taken::sifted)
        })
    }

    fn hands_over(&mut self) -> Result<bool, Problem> {
        self.transact(|client, place| {
            let Some(natives) = place.natives.as_deref().filter(|_| client.version() >= RAW_XMIN_KEPT) else {
                return Ok(false);
            };
            Ok(Staging::find(client, place)?.is_some_and(|staging| !staging.premade && staging.takes(natives)))
        })
    }

    fn take_over(&mut self, failed: &TransferId) -> Result<bool, Problem> {
        self.transact(|client, place| {
            control::lock(client, failed.as_str())?;
            let before =
                Place { landing: Landing { transfer: failed.clone(), ..place.landing.clone() }, ..place.clone() };
            if !control::exist(client, place)? {
                return Ok(false);
            }
            control::check_epoch(client, &before)?;
            if control::published(client, &before)?.is_some() || Relation::find(client, &place.staging())?.is_some() {
                return Ok(false);
            }
            let Some(staging) = Staging::left(client, &before)? else { return Ok(false) };
            // Under other names than now it could not be published.
            if staging.premade || !staging.fits(place) || !control::take_over(client, place, failed.as_str())? {
                staging.drop(client)?;
                control::discard(client, &before)?;
                return Ok(false);
            }
            let rename = |old: &TableName, new: TableName| format!("ALTER TABLE {old} RENAME TO {}", quote(&new.table));
            client.batch(&rename(&staging.name, place.staging()))?;
            match &staging.keys {
                Some(keys) if place.landing.write == Write::Mirror => client.batch(&rename(keys, place.refused()))?,
                Some(keys) => client.batch(&format!("DROP TABLE {keys}"))?,
                None => {}
            }
            Ok(true)
        })
    }

    fn give_up(&mut self, splits: &[(String, [u8; 32])]) -> Result<(), Problem> {
        self.transact(|client, place| {
            control::check_epoch(client, place)?;
            let mut each = splits.iter();
            each.try_for_each(|(split, root)| control::give_up(client, place, split, *root)).map_err(Fail::Wire)
        })
    }

    fn beside(&self) -> Option<Box<dyn Destination>> {
        let Self { faults, settings, place, client: _, staging: _ } = self;
        let (faults, settings, place) = (faults.clone(), settings.clone(), place.clone());
        Some(Box::new(Self { faults, settings, place, client: None, staging: None }))
    }

    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem> {
        let outcome = self.transact(|client, place| {
            // Transfers into one table come one after the other.
            control::lock(client, &place.target.to_string())?;
            control::check_epoch(client, place)?;
            if let Some(before) = control::published(client, place)? {
                return Ok(before);
            }
            let target = examine(client, place)?;
            publish::publish(client, place, target, how)
        });
        match outcome {
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
        self.transact(|client, place| {
            if let Some(staging) = Staging::left(client, place)? {
                staging.drop(client)?;
            }
            if control::exist(client, place)? && control::published(client, place)?.is_none() {
                control::discard(client, place)?;
            }
            Ok(())
        })
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let mut client = self.begin(BEGIN_READING)?;
        let read =
            Relation::find(&mut client, &self.place.target).map_err(Fail::Wire).and_then(|target| match target {
                Some(target) => standing::read(&mut client, &self.place, &target, to, sink),
                None => Ok(0),
            });
        let read = read.and_then(|rows| client.batch("COMMIT").map(|()| rows).map_err(Fail::Wire));
        self.end(client, read)
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        let mut client = self.begin(BEGIN_READING)?;
        let lines = dry_run(&mut client, &self.place);
        let lines = lines.and_then(|lines| client.batch("COMMIT").map(|()| lines).map_err(Fail::Wire));
        self.end(client, lines)
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
    let refused =
        |cause: &str| Fail::Problem(Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause));
    match target.kind {
        Kind::Table | Kind::Partitioned => {}
        Kind::View | Kind::Materialised => return Err(refused("it is a view")),
        // Its rows and what is recorded of them would not be one commit.
        Kind::Foreign => return Err(refused("its rows lie in another database")),
    }
    let hidden = "SELECT CASE WHEN pg_catalog.row_security_active($1::pg_catalog.oid) THEN 1 ELSE 0 END";
    if client.version() >= 90_500 && control::count(client, hidden, &[Some(&target.oid.to_string())])? > 0 {
        return Err(refused("its row security hides rows from this account"));
    }
    fields::check_drift(&landing.contract, place.natives.as_deref(), &target)?;
    Ok(Some(target))
}

/// Makes the table that is to be landed in, as it is when a staging table becomes it.
fn make_target(client: &mut Client, place: &Place) -> Result<Option<Relation>, Fail> {
    if !staging::may_create(client, &place.target.schema)? {
        return Err(staging::no_right(place).into());
    }
    let columns = ddl::final_columns(place, client.version());
    let key: Vec<String> = ddl::primary_key(&place.landing.contract.key).into_iter().collect();
    let create = ddl::create_table(&place.target, &columns, &key);
    let statements = [vec![create], ddl::comments(&place.target, &columns)].concat();
    client.batch(&statements.join(";\n"))?;
    Ok(Relation::find(client, &place.target)?)
}

/// Rows without a key are told apart by their contents only: those of another job could not be.
fn check_alone(client: &mut Client, place: &Place) -> Result<(), Fail> {
    match publishing::is_by_content(&place.landing) {
        true => Ok(publishing::check_alone(&place.landing, control::other_job(client, place)?)?),
        false => Ok(()),
    }
}

fn prepare_control(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let right = |error: WireError| match error.sqlstate() {
        Some("42501") => Fail::Problem(staging::no_right(place)),
        _ => Fail::Wire(error),
    };
    if control::exist(client, place)? {
        // An earlier version made it without.
        return if control::has_xid(client, place)? {
            Ok(())
        } else {
            client.batch(&control::add_xid(place)).map_err(|_| Fail::Problem(control::lacks_xid(place)))
        };
    }
    if place.control != place.target.schema {
        let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&place.control));
        let known = "SELECT count(*) FROM pg_catalog.pg_namespace n WHERE n.nspname = $1";
        if control::count(client, known, &[Some(&place.control)])? == 0 {
            client.batch(&make).map_err(right)?;
        }
    }
    for (name, create) in control::names(place).iter().zip(control::create(place)) {
        if !control::is_there(client, name)? {
            client.batch(&create).map_err(right)?;
        }
    }
    Ok(())
}

/// What `prepare` and `publish` would do, in lines.
fn dry_run(client: &mut Client, place: &Place) -> Result<Vec<String>, Fail> {
    let landing = &place.landing;
    let version = client.version();
    let mut lines = Vec::new();
    let target = examine(client, place)?;
    match &target {
        None => {
            let columns = ddl::final_columns(place, version);
            let key: Vec<String> = ddl::primary_key(&landing.contract.key).into_iter().collect();
            lines.push(ddl::create_table(&place.target, &columns, &key));
            lines.extend(ddl::comments(&place.target, &columns));
        }
        Some(target) => {
            let rows = control::count(client, &format!("SELECT count(*) FROM {}", target.name), &[])?;
            lines.push(format!("table {} stands with {rows} rows, its columns are the resource's", target.name));
        }
    }
    lines.push(match publishing::told(landing) {
        Some(line) => line,
        None => match &target {
            None => "replace: the table is filled beside its place, and takes its name in one transaction".to_owned(),
            Some(target) => {
                let obstacles = replace::obstacles(client, target)?;
                if obstacles.is_empty() {
                    "replace: nothing depends on the table: a new one with its columns, constraints, indexes, rights and \
                     comments is filled beside it and takes its name in one transaction"
                        .to_owned()
                } else {
                    let why = obstacles.join("; ");
                    format!(
                        "replace: all rows give way to the new ones in one transaction, by DELETE and INSERT; the table \
                         itself stays, for {why}"
                    )
                }
            }
        },
    });
    Ok(lines)
}

/// A server or an account may be set to answer before a commit is on the disk.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
                       WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";
/// Whatever the account's own settings say.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// One snapshot, and nothing changes.
const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

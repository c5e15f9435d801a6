//! Lands one transfer in one table. `prepare` makes or checks what is needed, `stage` takes splits, `publish` makes them
//! visible. Each call leaves a state from which the same transfer goes on, wherever it was cut off. Locks that the server
//! keeps by name hold two copies of a node, and two transfers into one table, behind each other.

use super::catalog::{Kind, Relation};
use super::client::Client;
use super::control;
use super::fail::{self, Fail};
use super::place::Place;
use super::publish;
use super::rows::RowReader;
use super::settings::Settings;
use super::staging::{self, Staging};
use super::swap::NotSwapped;
use super::{Faults, alike, ddl, fields, swap, sweep};
use crate::publishing;
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, Sink, SplitLanded};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;

pub(super) struct MyDestination {
    faults: Faults,
    settings: Settings,
    place: Place,
    client: Option<Client>,
    /// Until the server says otherwise.
    takes_files: bool,
}

impl MyDestination {
    pub(super) fn new(faults: Faults, settings: Settings, landing: &Landing) -> Result<Self, Problem> {
        let place = Place::new(landing, &settings.database, settings.control_schema.as_deref())?;
        Ok(Self { faults, settings, place, client: None, takes_files: true })
    }

    #[cfg(test)]
    pub(super) fn without_files(mut self) -> Self {
        self.takes_files = false;
        self
    }

    #[cfg(test)]
    pub(super) fn session(&self) -> u32 {
        self.client.as_ref().map_or(0, Client::id)
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Client, &Place, &mut bool) -> Result<T, Fail>) -> Result<T, Problem> {
        let connected = match self.client.take() {
            Some(client) => Ok(client),
            None => Client::connect(&self.settings),
        };
        let told = |fail| self.faults.write(&self.place.landing.table, fail);
        let mut client = connected.map_err(told)?;
        let done = work(&mut client, &self.place, &mut self.takes_files);
        match &done {
            Ok(_) => self.client = Some(client),
            Err(Fail::Lost(_)) => {}
            // A session that is used again has nothing open.
            Err(_) => self.client = client.run("ROLLBACK").is_ok().then_some(client),
        }
        done.map_err(|fail| self.faults.write(&self.place.landing.table, fail))
    }
}

impl Destination for MyDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        self.with(|client, place, _| {
            both(client, place.transfer(), &place.control, |client| {
                let target = match swap::recover(client, place)? {
                    Some(_) => None,
                    None => examine(client, place)?,
                };
                match control::prepare(client, place) {
                    Err(fail) if fail.code().is_some_and(|code| fail::NO_RIGHT.contains(&code)) => {
                        return Err(staging::no_right(place).into());
                    }
                    prepared => prepared?,
                }
                control::check_epoch(client, place)?;
                check_alone(client, place)?;
                sweep::others(client, place)?;
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
        })
    }

    fn applied(&mut self) -> Result<Vec<Applied>, Problem> {
        self.with(|client, place, _| {
            Ok(if control::exist(client, place)? { control::applied(client, place)? } else { Vec::new() })
        })
    }

    fn published(&mut self) -> Result<Option<Published>, Problem> {
        self.with(|client, place, _| {
            if !control::exist(client, place)? {
                return Ok(None);
            }
            locked(client, place.transfer(), |client| {
                if let Some(published) = swap::recover(client, place)? {
                    return Ok(Some(published));
                }
                let published = control::published(client, place)?;
                if published.is_some() {
                    sweep::own(client, place)?;
                }
                Ok(published)
            })
        })
    }

    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem> {
        self.with(|client, place, takes_files| {
            locked(client, place.transfer(), |client| {
                control::check_epoch(client, place)?;
                if let Some(before) = control::landed(client, place, split)? {
                    return Ok(before);
                }
                let over = || {
                    let cause = "nothing is prepared for this transfer, or it is published already";
                    Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause)
                };
                if control::published(client, place)?.is_some() {
                    return Err(over().into());
                }
                let staging = Staging::find(client, place)?.ok_or_else(over)?;
                transaction(client, |client| {
                    let (landed, refused) = staging.take(client, place, takes_files, batches)?;
                    control::note(client, place, split, root, landed, &refused)?;
                    Ok(SplitLanded { landed, bad: refused.iter().map(control::Refused::row).collect() })
                })
            })
        })
    }

    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem> {
        let outcome = self.with(|client, place, _| {
            // Transfers into one table come one after the other, and what became of this one is looked at by nobody
            // while it is under way: not by the next run either, while the server is still at work for the last.
            both(client, &place.target.to_string(), place.transfer(), |client| {
                let mut tries = TRIES;
                loop {
                    tries -= 1;
                    match publish(client, place, how) {
                        // Others change the table too, and the server took all of it back.
                        Err(fail) if fail.code().is_some_and(|code| AGAIN.contains(&code)) && tries > 0 => {}
                        done => return done,
                    }
                }
            })
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
        self.with(|client, place, _| control::refused(client, place, ""))
    }

    fn discard(&mut self) -> Result<(), Problem> {
        self.with(|client, place, _| {
            both(client, &place.target.to_string(), place.transfer(), |client| {
                let is_known = control::exist(client, place)?;
                let published = match swap::recover(client, place)? {
                    Some(published) => Some(published),
                    None if is_known => control::published(client, place)?,
                    None => None,
                };
                let staging = Staging::find(client, place)?;
                // What is noted goes first: rows of which nothing is noted stand for nothing, and not the other way round.
                transaction(client, |client| {
                    if is_known && published.is_none() {
                        control::discard(client, place)?;
                    }
                    staging.iter().filter(|staging| staging.premade).try_for_each(|staging| staging.drop(client))
                })?;
                match staging.filter(|staging| !staging.premade) {
                    Some(staging) => staging.drop(client),
                    None => Ok(()),
                }
            })
        })
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let faults = self.faults.clone();
        self.with(|client, place, _| {
            client.run(super::source::BEGIN)?;
            let locked = client.run(&format!("SELECT 1 FROM {} LIMIT 0", place.target));
            let Some(target) = Relation::find(client, &place.target)? else {
                client.run("COMMIT")?;
                return Ok(0);
            };
            locked?;
            let landing = &place.landing;
            fields::check_drift(&landing.contract, &target)?;
            let reader = RowReader::of_contract(&target, &landing.contract, landing.watermark_column.as_deref());
            let reader = reader.up_to(to);
            let mut rows = client.stream(&format!("SELECT {} FROM {}", reader.select(), target.name), vec![])?;
            let counts = reader.read(&mut rows, sink, &|fail| faults.write(&landing.table, fail))?;
            drop(rows);
            client.run("COMMIT")?;
            Ok(counts.read)
        })
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        self.with(|client, place, _| dry_run(client, place))
    }

    fn line(&self) -> Option<&'static str> {
        self.settings.line()
    }
}

/// Nobody else has the lock while this works. The server gives it up with the line.
fn locked<T>(client: &mut Client, of: &str, work: impl FnOnce(&mut Client) -> Result<T, Fail>) -> Result<T, Fail> {
    let name = Place::lock(of);
    if client.count("SELECT GET_LOCK(?, ?)", vec![name.as_str().into(), LOCK_SECONDS.into()])? != 1 {
        let cause = format!("somebody else has held the lock `{name}` for {LOCK_SECONDS} s");
        return Err(Problem::new(Code::DestinationFailed).with("target", of).cause(cause).into());
    }
    let done = work(client);
    if !matches!(done, Err(Fail::Lost(_))) {
        client.rows("SELECT RELEASE_LOCK(?)", vec![name.as_str().into()])?;
    }
    done
}

/// The same with two locks. Their order is that of transfers into one table, this transfer, the tables beside it.
fn both<T>(
    client: &mut Client,
    outer: &str,
    inner: &str,
    work: impl FnOnce(&mut Client) -> Result<T, Fail>,
) -> Result<T, Fail> {
    locked(client, outer, |client| locked(client, inner, work))
}

/// All of it is committed, or none.
fn transaction<T>(client: &mut Client, work: impl FnOnce(&mut Client) -> Result<T, Fail>) -> Result<T, Fail> {
    client.run("START TRANSACTION READ WRITE")?;
    match work(client) {
        Ok(done) => client.run("COMMIT").map(|_| done),
        Err(Fail::Lost(why)) => Err(Fail::Lost(why)),
        Err(fail) => {
            client.run("ROLLBACK")?;
            Err(fail)
        }
    }
}

fn publish(client: &mut Client, place: &Place, how: &Publishing) -> Result<Published, Fail> {
    if let Some(published) = swap::recover(client, place)? {
        return Ok(published);
    }
    control::check_epoch(client, place)?;
    if let Some(before) = control::published(client, place)? {
        sweep::own(client, place)?;
        return Ok(before);
    }
    let Some(mut staging) = Staging::find(client, place)? else {
        let cause = "nothing of this transfer is prepared here";
        return Err(Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause).into());
    };
    let mut target = examine(client, place)?;
    let mut is_referred = false;
    if staging.whole {
        staging.check_count(client, place, false)?;
        let gives_way = match &target {
            None => true,
            Some(target) => {
                place.landing.write == Write::Replace
                    && swap::obstacles(client, target, &place.landing.contract.key)?.is_empty()
            }
        };
        if gives_way {
            let staged = control::staged(client, place)?;
            let result = Published { rows: staged, inserted: staged, ..Published::default() };
            match swap::swap(client, place, &staging, target.as_ref(), &result)? {
                Ok(published) => return Ok(published),
                Err(why) => {
                    is_referred = matches!(why, NotSwapped::Referred);
                    tracing::info!(table = %place.target, %why, "Rows give way, and not the table");
                }
            }
            // It may have come since.
            target = examine(client, place)?;
        }
    }
    let Some(target) = target else { return Err(staging::no_right(place).into()) };
    alike::check(client, place, &staging, &target)?;
    if staging.whole && place.landing.write == Write::Mirror && control::refused_before(client, place)? > 0 {
        return Err(alike::changed(place, "it was not there, and rows were refused since").into());
    }
    staging.number(client, is_referred)?;
    let published = transaction(client, |client| publish::merge(client, place, &target, staging.clone(), how))?;
    if !staging.premade {
        staging.drop(client)?;
    }
    Ok(published)
}

/// What stands in the way of landing here; the target as it stands, if it does.
fn examine(client: &mut Client, place: &Place) -> Result<Option<Relation>, Fail> {
    let landing = &place.landing;
    let no_key = || Problem::new(Code::KeyMissing).with("table", &landing.table).with("write", landing.write);
    if matches!(landing.write, Write::Upsert | Write::Mirror) && landing.contract.key.is_empty() {
        return Err(no_key().into());
    }
    let Some(target) = Relation::find(client, &place.target)? else { return Ok(None) };
    if matches!(target.kind, Kind::View | Kind::Query) {
        let problem = Problem::new(Code::DestinationFailed).with("target", &landing.table);
        return Err(problem.cause("it is a view").into());
    }
    if !target.has_snapshots() {
        let problem = Problem::new(Code::DestinationFailed).with("target", &landing.table);
        return Err(problem.cause(format!("its engine is {}, which has no transactions", target.engine)).into());
    }
    fields::check_drift(&landing.contract, &target)?;
    let needs_unique = matches!(landing.write, Write::Upsert | Write::Mirror)
        || (landing.write == Write::Append && !landing.contract.key.is_empty());
    if needs_unique && !target.is_unique(&landing.contract.key) {
        let key = landing.contract.key.join(", ");
        return Err(no_key().cause(format!("it has neither a primary key nor a unique index on ({key})")).into());
    }
    Ok(Some(target))
}

/// Makes the table that is to be landed in, as it is when a staging table becomes it.
fn make_target(client: &mut Client, place: &Place) -> Result<Option<Relation>, Fail> {
    let create = ddl::create_table(&place.target, &place.landing.contract, &client.server, &[])?;
    match client.run(&create) {
        Err(fail) if fail.code().is_some_and(|code| fail::NO_RIGHT.contains(&code)) => {
            Err(staging::no_right(place).into())
        }
        made => {
            made?;
            Relation::find(client, &place.target)
        }
    }
}

/// Rows without a key are told apart by their contents only: those of another job could not be.
fn check_alone(client: &mut Client, place: &Place) -> Result<(), Fail> {
    match publishing::is_by_content(&place.landing) {
        true => Ok(publishing::check_alone(&place.landing, control::other_job(client, place)?)?),
        false => Ok(()),
    }
}

/// What `prepare` and `publish` would do, in lines.
fn dry_run(client: &mut Client, place: &Place) -> Result<Vec<String>, Fail> {
    let landing = &place.landing;
    let mut lines = Vec::new();
    let target = examine(client, place)?;
    match &target {
        None => {
            let server = client.server;
            lines.push(ddl::create_table(&place.target, &landing.contract, &server, &[])?);
        }
        Some(target) => {
            let rows = client.count(&format!("SELECT COUNT(*) FROM {}", target.name), vec![])?;
            lines.push(format!("table {} stands with {rows} rows, its columns are the resource's", target.name));
        }
    }
    lines.push(match publishing::told(landing) {
        Some(line) => line,
        None => match &target {
            None => "replace: the table is filled beside its place, and takes its name by one RENAME TABLE".to_owned(),
            Some(target) => match swap::obstacles(client, target, &landing.contract.key)? {
                obstacles if obstacles.is_empty() => {
                    "replace: nothing depends on the table: one like it is filled beside it and takes its name by one \
                     RENAME TABLE"
                        .to_owned()
                }
                obstacles => format!(
                    "replace: all rows give way to the new ones in one transaction, by DELETE and INSERT; the table itself \
                     stays, for {}",
                    obstacles.join("; ")
                ),
            },
        },
    });
    Ok(lines)
}

/// Another transfer may take long to publish.
const LOCK_SECONDS: u64 = 3_600;
/// Of a publishing that the server takes back.
const TRIES: u32 = 5;
const AGAIN: &[u16] = &[fail::DEADLOCK, fail::LOCK_WAIT];

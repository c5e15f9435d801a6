//! Runs batches: a statement at a time, each whole or not at all, waiting where another transaction stands in the way.
//! It blocks; what comes out goes to a sink as it is made, so that whoever reads it sets the pace.

use super::bind::Named;
use super::run::OutColumn;
use super::tree::{Declared, Statement};
use super::{bind, parse};
use crate::faults::Faults;
use crate::store::database::{Database, Isolation};
use crate::store::error::Step;
use crate::store::table::{Transaction, View};
use crate::store::{Moment, Row, SqlError, Stop, Type, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const VERSION: &str = "Microsoft SQL Server 2012 - 11.0.2100.60 (Posthouse test server, no product of Microsoft)";

/// What a statement says while it runs.
#[derive(Clone, Debug)]
pub enum Event {
    Columns(Arc<Vec<OutColumn>>),
    Rows(Vec<Row>),
    Info(SqlError),
    Error(SqlError),
    /// Begun, committed or rolled back: the transaction's descriptor, old or new.
    Begun(u64),
    Committed(u64),
    RolledBack(u64),
    Database {
        new: String,
        old: String,
    },
    /// A statement is done, with its rows where it counts them.
    Done {
        count: Option<u64>,
        failed: bool,
    },
}

/// Nobody takes what is made: the connection is gone or has called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

pub trait Sink {
    fn put(&mut self, event: Event) -> Result<(), Gone>;
}

/// Shared by all sessions.
#[derive(Debug)]
pub struct Engine {
    database: Mutex<Database>,
    freed: Condvar,
    pub faults: Arc<Faults>,
    pub stopping: AtomicBool,
    unknown: Mutex<Vec<String>>,
    /// Every batch and call that came, for tests that assert what was asked.
    heard: Mutex<Vec<String>>,
    lock_timeout: Duration,
    /// Every count that a statement tells beside its result is wrong.
    pub false_counts: bool,
    /// Who logs in may read and write rows, and make, change and drop nothing.
    pub rows_only: bool,
}

impl Engine {
    pub fn new(name: &str, faults: Arc<Faults>, lock_timeout: Duration) -> Self {
        Engine {
            database: Mutex::new(Database::new(name)),
            freed: Condvar::new(),
            faults,
            stopping: AtomicBool::new(false),
            unknown: Mutex::new(Vec::new()),
            heard: Mutex::new(Vec::new()),
            lock_timeout,
            false_counts: false,
            rows_only: false,
        }
    }

    pub fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, error: &SqlError, about: &str) {
        if error.unknown {
            let about: String = about.chars().take(400).collect();
            self.unknown.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error}: {about}"));
        }
    }

    pub fn unknown(&self) -> Vec<String> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn hear(&self, text: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < 100_000 {
            heard.push(text.to_owned());
        }
    }

    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn free(&self) {
        self.freed.notify_all();
    }

    pub fn lose_power(&self) {
        self.database().lose_power();
        self.free();
    }
}

/// A bulk load that was announced and whose rows come next.
#[derive(Clone, Debug)]
pub struct Pending {
    pub table: Vec<String>,
    pub columns: Vec<(String, Declared)>,
    pub options: Vec<String>,
}

#[derive(Debug)]
pub struct Session {
    pub engine: Arc<Engine>,
    pub spid: u16,
    pub user: String,
    pub database_name: String,
    pub variables: BTreeMap<String, (Type, Value)>,
    /// The transaction that was begun, and how often.
    pub open: Option<Transaction>,
    pub depth: u32,
    pub isolation: Isolation,
    pub xact_abort: bool,
    pub no_count: bool,
    pub lock_timeout_ms: Option<i64>,
    pub identity_insert: Option<Vec<String>>,
    pub identity: Option<i64>,
    pub rowcount: i64,
    pub error: i64,
    pub now: Moment,
    pub pending: Option<Pending>,
    pub cancelled: Arc<AtomicBool>,
    pub trigger_depth: u32,
    pub prepared: BTreeMap<i64, (String, String)>,
    pub next_handle: i64,
    /// The connection is to be cut, as a test asked for.
    pub cut: bool,
}

impl Session {
    pub fn new(engine: Arc<Engine>, spid: u16, user: &str) -> Self {
        let database_name = engine.database().name.clone();
        Session {
            engine,
            spid,
            user: user.to_owned(),
            database_name,
            variables: BTreeMap::new(),
            open: None,
            depth: 0,
            isolation: Isolation::ReadCommitted,
            xact_abort: false,
            no_count: false,
            lock_timeout_ms: None,
            identity_insert: None,
            identity: None,
            rowcount: 0,
            error: 0,
            now: Moment { days: 0, ticks: 0 },
            pending: None,
            cancelled: Arc::new(AtomicBool::new(false)),
            trigger_depth: 0,
            prepared: BTreeMap::new(),
            next_handle: 1,
            cut: false,
        }
    }

    pub fn trancount(&self) -> i64 {
        i64::from(self.depth)
    }

    pub fn resolve(&self, name: &[String]) -> Option<(String, String)> {
        bind::resolve(name, &self.database_name, self.spid)
    }

    /// As a new login would find it.
    pub fn reset(&mut self) {
        if let Some(open) = self.open.take() {
            self.engine.database().roll_back(open);
            self.engine.free();
        }
        let fresh = Session::new(Arc::clone(&self.engine), self.spid, &self.user);
        let cancelled = Arc::clone(&self.cancelled);
        // Dropping what was there would roll back and drop temporary tables: it has nothing open any more.
        *self = fresh;
        self.cancelled = cancelled;
    }

    /// A whole batch; its errors go to the sink.
    pub fn batch(&mut self, text: &str, sink: &mut dyn Sink) -> Result<(), Gone> {
        self.engine.hear(text);
        self.pending = None;
        if let Some(error) = self.engine.faults.error_at_statement() {
            self.after_error(&error, sink)?;
            return self.fail(error, text, sink);
        }
        let statements = match parse::batch(text) {
            Ok(statements) => statements,
            Err(error) => return self.fail(error, text, sink),
        };
        for statement in &statements {
            match self.statement(statement, sink)? {
                Flow::On => {}
                Flow::End => break,
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: SqlError, about: &str, sink: &mut dyn Sink) -> Result<(), Gone> {
        self.engine.note(&error, about);
        self.error = i64::from(error.number);
        sink.put(Event::Error(error))?;
        sink.put(Event::Done { count: None, failed: true })
    }

    pub(super) fn statement(&mut self, statement: &Statement, sink: &mut dyn Sink) -> Result<Flow, Gone> {
        match statement {
            Statement::Block(statements) => {
                for statement in statements {
                    if self.statement(statement, sink)? == Flow::End {
                        return Ok(Flow::End);
                    }
                }
                return Ok(Flow::On);
            }
            Statement::If { condition, then, otherwise } => {
                let held = self.attempt(sink, |work| {
                    let typed = work.binder().expression(condition, &bind::Scope::default())?;
                    let frame = super::expression::Frame { row: &[], outer: None };
                    Ok(typed.bound.holds(&frame)?)
                })?;
                return match (held, otherwise) {
                    (None, _) => Ok(Flow::End),
                    (Some(true), _) => self.statement(then, sink),
                    (Some(false), Some(otherwise)) => self.statement(otherwise, sink),
                    (Some(false), None) => Ok(Flow::On),
                };
            }
            Statement::Return => return Ok(Flow::End),
            Statement::WaitFor(text) => {
                let ticks = crate::store::calendar::read(text).and_then(|read| read.ticks).unwrap_or(0);
                let until = Instant::now() + Duration::from_micros(u64::try_from(ticks / 10).unwrap_or(0));
                while Instant::now() < until && !self.called_off() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                sink.put(Event::Done { count: None, failed: false })?;
                return Ok(Flow::On);
            }
            _ => {}
        }
        if let Some(flow) = self.control(statement, sink)? {
            return Ok(flow);
        }
        let made = self.attempt(sink, |work| work.run(statement))?;
        let Some(outcome) = made else { return Ok(if self.goes_on() { Flow::On } else { Flow::End }) };
        self.deliver(outcome, sink)?;
        Ok(Flow::On)
    }

    /// A batch goes on after an error of one statement when its transaction does.
    fn goes_on(&self) -> bool {
        !self.xact_abort && GOES_ON.contains(&self.error)
    }

    fn deliver(&mut self, outcome: Outcome, sink: &mut dyn Sink) -> Result<(), Gone> {
        self.error = 0;
        if let Some((columns, rows)) = outcome.result {
            let count = rows.len() as u64;
            self.rowcount = rows.len() as i64;
            sink.put(Event::Columns(columns))?;
            let fault = self.engine.faults.error_in_result();
            let mut sent = 0;
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                if self.called_off() {
                    return Err(Gone);
                }
                let mut chunk: Vec<Row> = rows.by_ref().take(256).collect();
                if let Some((after, error)) = &fault
                    && sent + chunk.len() as u64 >= *after
                {
                    chunk.truncate(usize::try_from(after - sent).unwrap_or(0));
                    sink.put(Event::Rows(chunk))?;
                    self.after_error(error, sink)?;
                    return self.fail(error.clone(), "a fault", sink);
                }
                sent += chunk.len() as u64;
                sink.put(Event::Rows(chunk))?;
            }
            return sink.put(Event::Done { count: Some(self.told(count)), failed: false });
        }
        if let Some(info) = outcome.info {
            sink.put(Event::Info(info))?;
        }
        if let Some(count) = outcome.count {
            self.rowcount = count as i64;
        }
        let count = if self.no_count { None } else { outcome.count.map(|count| self.told(count)) };
        sink.put(Event::Done { count, failed: false })
    }

    /// Tests themselves come as `sa`, who may do anything.
    pub fn has_rows_only(&self) -> bool {
        self.engine.rows_only && self.user != "sa"
    }

    /// A count as it is told beside a result.
    pub fn told(&self, count: u64) -> u64 {
        if self.engine.false_counts { count + 7 } else { count }
    }

    /// Runs a piece of work as one statement: again after each wait, undone when it fails.
    pub fn attempt<T>(
        &mut self,
        sink: &mut dyn Sink,
        mut work: impl FnMut(&mut Work) -> Step<T>,
    ) -> Result<Option<T>, Gone> {
        let engine = Arc::clone(&self.engine);
        let timeout = match self.lock_timeout_ms {
            Some(ms) if ms >= 0 => Duration::from_millis(ms.cast_unsigned()),
            _ => engine.lock_timeout,
        };
        let begun = Instant::now();
        let mut database = engine.database();
        self.now = present();
        let own = match self.open {
            Some(open) => open,
            None => match database.begin(self.isolation) {
                Ok(own) => own,
                Err(error) => {
                    drop(database);
                    self.fail(error, "begin", sink)?;
                    return Ok(None);
                }
            },
        };
        let mark = database.mark(own);
        let failed = loop {
            if self.called_off() {
                database.undo_to(own, mark);
                if self.open.is_none() {
                    database.roll_back(own);
                }
                return Err(Gone);
            }
            let (identity, rowcount) = (self.identity, self.rowcount);
            let made = database.view(own).map_err(Stop::from).and_then(|view| {
                let mut piece = Work { database: &mut database, session: self, own, view, named: BTreeMap::new() };
                work(&mut piece)
            });
            match made {
                Ok(value) => {
                    database.waited(own);
                    if self.open.is_none() {
                        database.commit(own);
                    }
                    drop(database);
                    engine.free();
                    return Ok(Some(value));
                }
                Err(Stop::Wait(other)) => {
                    database.undo_to(own, mark);
                    (self.identity, self.rowcount) = (identity, rowcount);
                    if database.wait(own, other) {
                        break SqlError::new(1205, format!("Transaction (Process ID {}) was deadlocked on lock resources with another process and has been chosen as the deadlock victim. Rerun the transaction.", self.spid)).with_state(51);
                    }
                    if begun.elapsed() >= timeout {
                        break SqlError::new(1222, "Lock request time out period exceeded.").with_state(51);
                    }
                    let waited = engine.freed.wait_timeout(database, Duration::from_millis(20));
                    database = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Err(Stop::Error(error)) => break error,
            }
        };
        database.waited(own);
        database.undo_to(own, mark);
        if self.open.is_none() {
            database.roll_back(own);
        }
        drop(database);
        engine.free();
        self.after_error(&failed, sink)?;
        self.fail(failed, "a statement", sink)?;
        Ok(None)
    }

    /// What an error does to the transaction that is open.
    fn after_error(&mut self, error: &SqlError, sink: &mut dyn Sink) -> Result<(), Gone> {
        let ends = self.xact_abort
            || matches!(error.number, 1205 | 245 | 3609 | 8114 | 241 | 242 | 3952 | 3960)
            || error.class >= 20;
        if let Some(open) = self.open.filter(|_| ends && !error.unknown) {
            self.engine.database().roll_back(open);
            self.engine.free();
            self.open = None;
            self.depth = 0;
            sink.put(Event::RolledBack(open))?;
        }
        Ok(())
    }

    pub fn called_off(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.engine.stopping.load(Ordering::Acquire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut database = self.engine.database();
        if let Some(open) = self.open.take() {
            database.roll_back(open);
        }
        // Temporary tables go with their session.
        if let Ok(own) = database.begin(Isolation::ReadCommitted) {
            let view = database.names(own);
            let suffix = format!("\u{1}{}", self.spid);
            let mine: Vec<i64> = database
                .seen_objects(view)
                .filter(|object| object.schema == crate::store::catalog::TEMPORARY && object.name.ends_with(&suffix))
                .map(|object| object.id)
                .collect();
            for id in mine {
                if database.end_object(own, id).is_err() {
                    break;
                }
            }
            database.commit(own);
        }
        drop(database);
        self.engine.free();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    End,
}

/// One statement at work: the database, locked, and the transaction it runs in.
pub struct Work<'a> {
    pub database: &'a mut Database,
    pub session: &'a mut Session,
    pub own: Transaction,
    pub view: View,
    /// `inserted` and `deleted`, in a trigger.
    pub named: BTreeMap<String, Named>,
}

/// What a statement made.
#[derive(Debug, Default)]
pub struct Outcome {
    pub result: Option<(Arc<Vec<OutColumn>>, Vec<Row>)>,
    pub count: Option<u64>,
    pub info: Option<SqlError>,
}

impl Outcome {
    pub fn count(count: u64) -> Self {
        Outcome { count: Some(count), ..Outcome::default() }
    }
}

impl Work<'_> {
    pub fn binder(&mut self) -> bind::Binder<'_> {
        bind::Binder::new(self.database, self.session, self.own, self.view, &self.named)
    }

    /// Every statement but those of control.
    pub fn run(&mut self, statement: &Statement) -> Step<Outcome> {
        match statement {
            Statement::Select(query) => self.select(query),
            Statement::Insert { target, hints, columns, source } => self.insert(target, *hints, columns, source),
            Statement::Update { target, top, set, from, filter } => {
                self.update(target, top.as_ref(), set, from.as_ref(), filter.as_ref())
            }
            Statement::Delete { target, top, from, filter } => {
                self.delete(target, top.as_ref(), from.as_ref(), filter.as_ref())
            }
            Statement::Truncate(_) | Statement::Execute { .. } if self.session.has_rows_only() => Err(no_right()),
            Statement::Truncate(name) => self.truncate(name),
            Statement::Execute { name, arguments } => self.execute(name, arguments),
            Statement::BulkInsert { table, columns, options } => self.announce_bulk(table, columns, options),
            _ if self.session.has_rows_only() => Err(no_right()),
            other => self.define(other),
        }
    }

    fn select(&mut self, query: &super::tree::Query) -> Step<Outcome> {
        if let super::tree::QueryBody::Select(select) = &query.body
            && let Some(super::tree::Source::Table { name, alias, hints }) = &select.from
            && hints.update
        {
            self.hold_rows(name, alias.as_deref(), select.filter.as_ref())?;
            // The rows may have been waited for: what was committed meanwhile is seen.
            if self.database.isolation(self.own) != Isolation::Snapshot {
                self.view = self.database.view(self.own)?;
            }
        }
        let plan = self.binder().query(query, None)?;
        let rows = plan.rows(None)?;
        let super::tree::QueryBody::Select(select) = &query.body else { return Ok(shown(plan.columns, rows)) };
        let assigns = |item: &super::tree::Item| matches!(item, super::tree::Item::Assign(..));
        if !select.items.iter().any(assigns) {
            return Ok(shown(plan.columns, rows));
        }
        // The last row is what the variables keep.
        if let Some(row) = rows.last() {
            for ((item, value), column) in select.items.iter().zip(row.iter()).zip(&plan.columns) {
                let super::tree::Item::Assign(name, _) = item else {
                    return Err(SqlError::new(141, "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.").into());
                };
                self.assign(name, value, column.ty)?;
            }
        }
        Ok(Outcome::default())
    }

    pub fn assign(&mut self, name: &str, value: &Value, from: Type) -> Step<()> {
        let Some((to, _)) = self.session.variables.get(&name.to_lowercase()).cloned() else {
            return Err(SqlError::new(137, format!("Must declare the scalar variable \"{name}\".")).into());
        };
        let value = crate::store::convert::convert(value, from, to, crate::store::convert::Mode::Cast, None)?;
        self.session.variables.insert(name.to_lowercase(), (to, value));
        Ok(())
    }
}

fn no_right() -> Stop {
    Stop::Error(SqlError::new(262, "CREATE TABLE permission denied in database."))
}

fn shown(columns: Vec<OutColumn>, rows: Vec<Row>) -> Outcome {
    Outcome { result: Some((Arc::new(columns), rows)), ..Outcome::default() }
}

/// Universal time, to the tick.
fn present() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let days = i32::try_from(seconds / 86_400).unwrap_or(0) + EPOCH_DAY;
    let ticks = seconds % 86_400 * crate::store::calendar::TICKS_A_SECOND + i64::from(since.subsec_nanos() / 100);
    Moment { days, ticks }
}

/// 1970-01-01.
const EPOCH_DAY: i32 = 719_162;

/// Errors of one statement, after which the next one runs.
const GOES_ON: &[i64] = &[515, 544, 547, 1222, 2601, 2627, 2628, 8106, 8115, 8152, 8134];

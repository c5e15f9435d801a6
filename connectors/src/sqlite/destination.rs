//! Lands one transfer in one table. `prepare` makes or checks what is needed, `stage` takes splits, `publish`
//! (in its own file) makes them visible. Each call is its own transaction, so that dropping the destination
//! at any point leaves a state from which the same transfer goes on.

use super::source::RowReader;
use super::staging::{self, Staging};
use super::{Faults, columns, open, publish, quote};
use crate::charset::Charset;
use crate::publishing;
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, Sink, SplitLanded};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub(super) struct SqliteDestination {
    faults: Faults,
    landing: Landing,
    staging: Staging,
    connection: Option<Connection>,
}

impl SqliteDestination {
    pub(super) fn new(faults: Faults, landing: &Landing, charset: Charset) -> Result<Self, Problem> {
        posthouse_protocol::batch::check_contract(&landing.contract)?;
        landing.check_operations()?;
        let table = landing.table.to_ascii_lowercase();
        if table.is_empty()
            || table.contains('\0')
            || ["sqlite_", "posthouse_"].iter().any(|own| table.starts_with(own))
        {
            let cause = "this name is kept for other uses";
            return Err(Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause));
        }
        Ok(Self { faults, landing: landing.clone(), staging: Staging::new(landing, charset), connection: None })
    }

    /// The open file; it is made where it is missing.
    fn connection(&mut self) -> Result<&mut Connection, Problem> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let is_new = std::fs::metadata(&self.faults.path).map_or(true, |file| file.len() == 0);
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
                let connection = open(&self.faults, flags)?;
                let sql = |e| self.faults.write(&self.landing.table, &e);
                connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -16384").map_err(sql)?;
                // Whether references still hold after a replacement is looked at as a whole.
                connection.pragma_update(None, "foreign_keys", self.landing.write != Write::Replace).map_err(sql)?;
                if is_new {
                    // Readers of a file that is ours from the start never wait for a landing.
                    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(sql)?;
                }
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// What stands in the way of landing here, or the statement that would create the table.
    fn examine(connection: &Connection, landing: &Landing, faults: &Faults) -> Result<Option<String>, Problem> {
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let no_key = || Problem::new(Code::KeyMissing).with("table", &landing.table).with("write", landing.write);
        if matches!(landing.write, Write::Upsert | Write::Mirror) && landing.contract.key.is_empty() {
            return Err(no_key());
        }
        let Some(found) = columns::of_table(connection, &landing.table).map_err(sql)? else {
            return Ok(Some(columns::create_table(&landing.table, &landing.contract)));
        };
        let is_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        if connection.query_row(is_table, [&landing.table], |row| row.get::<_, i64>(0)).map_err(sql)? == 0 {
            let problem = Problem::new(Code::DestinationFailed).with("target", &landing.table);
            return Err(problem.cause("it is a view"));
        }
        let generated = columns::generated(connection, &landing.table).map_err(sql)?;
        let writable: Vec<_> = found.into_iter().filter(|column| !generated.contains(&column.name)).collect();
        columns::check_drift(&landing.table, &landing.contract, &writable)?;
        let needs_unique = matches!(landing.write, Write::Upsert | Write::Mirror)
            || (landing.write == Write::Append && !landing.contract.key.is_empty());
        if needs_unique && !columns::is_unique(connection, &landing.table, &landing.contract.key).map_err(sql)? {
            let key = landing.contract.key.join(", ");
            return Err(no_key().cause(format!("it has neither a primary key nor a unique index on ({key})")));
        }
        if publishing::is_by_content(landing) {
            Self::check_alone(connection, landing).map_err(sql)??;
        }
        Ok(None)
    }

    /// Rows without a key are told apart by their contents only: those of another job could not be.
    fn check_alone(connection: &Connection, landing: &Landing) -> rusqlite::Result<Result<(), Problem>> {
        if !staging::has_control(connection)? {
            return Ok(Ok(()));
        }
        let others = "SELECT min(job) FROM posthouse_applied WHERE target = ?1 AND job <> ?2";
        let other: Option<String> =
            connection.query_row(others, (&landing.table, landing.job.as_str()), |row| row.get(0))?;
        Ok(publishing::check_alone(landing, other))
    }
}

impl Destination for SqliteDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let create_staging = self.staging.create(&landing);
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = self.connection()?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        if let Some(create) = Self::examine(&tx, &landing, &faults)? {
            tx.execute_batch(&create).map_err(sql)?;
        }
        tx.execute_batch(staging::CONTROL).map_err(sql)?;
        staging::check_epoch(&tx, &landing).map_err(sql)??;
        if staging::published(&tx, &landing).map_err(sql)?.is_none() {
            tx.execute_batch(&create_staging).map_err(sql)?;
        }
        tx.commit().map_err(sql)
    }

    fn applied(&mut self) -> Result<Vec<Applied>, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = self.connection()?;
        if !staging::has_control(connection).map_err(sql)? {
            return Ok(Vec::new());
        }
        staging::applied(connection, &landing).map_err(sql)
    }

    fn published(&mut self) -> Result<Option<Published>, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = self.connection()?;
        if !staging::has_control(connection).map_err(sql)? {
            return Ok(None);
        }
        staging::published(connection, &landing).map_err(sql)
    }

    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        self.connection()?;
        let Some(connection) = self.connection.as_mut() else { return Ok(SplitLanded::default()) };
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        staging::check_epoch(&tx, &landing).map_err(sql)??;
        let result = self.staging.stage(&tx, &landing, split, root, batches, &faults)?;
        tx.commit().map_err(sql)?;
        Ok(result)
    }

    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        self.connection()?;
        let Some(connection) = self.connection.as_mut() else { return Ok(Published::default()) };
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        staging::check_epoch(&tx, &landing).map_err(sql)??;
        if let Some(before) = staging::published(&tx, &landing).map_err(sql)? {
            return Ok(before);
        }
        let published = publish::publish(&tx, &landing, &self.staging, how, &faults)?;
        tx.commit().map_err(sql)?;
        Ok(published)
    }

    fn refused(&mut self) -> Result<Vec<BadRow>, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        staging::quarantined(self.connection()?, &landing, "").map_err(sql)
    }

    fn discard(&mut self) -> Result<(), Problem> {
        let (landing, faults, drop_staging) = (self.landing.clone(), self.faults.clone(), self.staging.drop());
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = self.connection()?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        tx.execute_batch(&drop_staging).map_err(sql)?;
        if staging::has_control(&tx).map_err(sql)? && staging::published(&tx, &landing).map_err(sql)?.is_none() {
            for table in ["posthouse_applied", "posthouse_quarantine"] {
                let delete = format!("DELETE FROM {table} WHERE transfer = ?1");
                tx.execute(&delete, [landing.transfer.as_str()]).map_err(sql)?;
            }
        }
        tx.commit().map_err(sql)
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let (landing, faults, charset) = (self.landing.clone(), self.faults.clone(), self.staging.charset);
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = self.connection()?;
        let Some(found) = columns::of_table(connection, &landing.table).map_err(sql)? else { return Ok(0) };
        let generated = columns::generated(connection, &landing.table).map_err(sql)?;
        let writable: Vec<_> = found.into_iter().filter(|column| !generated.contains(&column.name)).collect();
        columns::check_drift(&landing.table, &landing.contract, &writable)?;
        let reader = RowReader::of_contract(&landing.contract, landing.watermark_column.as_deref(), to, charset);
        // The last column numbers the rows, for those that cannot be named by their key.
        let select = format!("SELECT {}, row_number() OVER () FROM {}", reader.select(), quote(&landing.table));
        let mut statement = connection.prepare(&select).map_err(sql)?;
        let mut rows = statement.query([]).map_err(sql)?;
        Ok(reader.read(&mut rows, sink, &sql)?.read)
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        let (landing, faults) = (self.landing.clone(), self.faults.clone());
        if std::fs::metadata(&faults.path).is_err() {
            let create = columns::create_table(&landing.table, &landing.contract);
            return Ok(vec![format!("create the file {}", faults.path.display()), create]);
        }
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        let connection = open(&faults, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut lines = Vec::new();
        match Self::examine(&connection, &landing, &faults)? {
            Some(create) => lines.push(create),
            None => {
                let count = format!("SELECT count(*) FROM {}", quote(&landing.table));
                let rows = super::count(&connection, &count).map_err(sql)?;
                lines.push(format!("table {} stands with {rows} rows, its columns are the resource's", landing.table));
            }
        }
        lines.push(match publishing::told(&landing) {
            Some(line) => line,
            None => {
                "replace: all rows give way to the new ones in one transaction; the table itself, its indexes, triggers and views stay".to_owned()
            }
        });
        Ok(lines)
    }
}

//! The server: a runtime of its own, a listener on loopback, and what tests look at.

use crate::faults::{Fault, Faults};
use crate::language::engine::{Engine, Event, Gone, Session, Sink};
use crate::language::run::OutColumn;
use crate::line::Faulty;
use crate::session;
use crate::store::convert::show;
use crate::store::{Row, SqlError};
use crate::wire::greeting::Encryption;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Debug)]
pub struct Options {
    pub user: String,
    pub password: String,
    pub database: String,
    pub encryption: Encryption,
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// Names and addresses in the certificate.
    pub names: Vec<String>,
    /// Texts of fixed length must come padded in a bulk load.
    pub strict_char: bool,
    /// How long a statement waits for another transaction, where the client sets nothing.
    pub lock_timeout: Duration,
    /// Every count that is told beside a result is wrong: who counts by a query is not misled.
    pub false_counts: bool,
    /// Who logs in may read and write rows, and make, change and drop nothing.
    pub rows_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            user: "posthouse".to_owned(),
            password: "驿站-Passw0rd".to_owned(),
            database: "housing".to_owned(),
            encryption: Encryption::On,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            strict_char: true,
            lock_timeout: Duration::from_secs(20),
            false_counts: false,
            rows_only: false,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: Options,
    pub(crate) tls: TlsAcceptor,
    next_spid: AtomicU16,
}

/// A result of `Server::batch`: names of its columns, and its values as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

pub struct Server {
    shared: Arc<Shared>,
    addr: SocketAddr,
    ca: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// # Errors
    /// When there is no port, no certificate or no thread.
    pub fn start(options: Options) -> std::io::Result<Server> {
        let (tls, ca) = crate::certificate::make(&options.names)?;
        let faults = Arc::new(Faults::default());
        let mut engine = Engine::new(&options.database, faults, options.lock_timeout);
        (engine.false_counts, engine.rows_only) = (options.false_counts, options.rows_only);
        let engine = Arc::new(engine);
        let listen = options.listen;
        let shared = Arc::new(Shared { engine, options, tls, next_spid: AtomicU16::new(51) });
        let mut server = Server { shared, addr: listen, ca, runtime: None };
        server.listen()?;
        Ok(server)
    }

    #[cfg(test)]
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.shared.engine)
    }

    fn listen(&mut self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.addr)?;
        listener.set_nonblocking(true)?;
        self.addr = listener.local_addr()?;
        self.shared.engine.stopping.store(false, Ordering::Release);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                if shared.engine.faults.refuses() {
                    continue;
                }
                let _ = stream.set_nodelay(true);
                let spid = shared.next_spid.fetch_add(1, Ordering::Relaxed);
                let line = Faulty::new(stream, Arc::clone(&shared.engine.faults));
                let shared = Arc::clone(&shared);
                // How a connection ends is the client's to tell.
                tokio::spawn(async move {
                    let _ = session::serve(line, shared, spid).await;
                });
            }
        });
        self.runtime = Some(runtime);
        Ok(())
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The certificate that clients are to trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.engine.faults.arm(fault);
    }

    /// Faults that have not happened yet.
    pub fn faults_left(&self) -> Vec<Fault> {
        self.shared.engine.faults.left()
    }

    pub fn disarm(&self) {
        self.shared.engine.faults.disarm();
    }

    /// Every statement, option and token that came and was not known: a test asserts that this is empty.
    pub fn unknown(&self) -> Vec<String> {
        self.shared.engine.unknown()
    }

    /// Every batch, call and load that came, in order.
    pub fn heard(&self) -> Vec<String> {
        self.shared.engine.heard()
    }

    /// Ends at once: every connection is cut and what was not committed is lost. What was committed stays.
    pub fn kill(&mut self) {
        self.shared.engine.stopping.store(true, Ordering::Release);
        self.shared.engine.free();
        if let Some(runtime) = self.runtime.take() {
            // A thread of its own: a runtime may not be waited for from within another one.
            let stopper = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            let _ = stopper.join();
        }
        self.shared.engine.lose_power();
    }

    /// Listens again, on the same port, with what was committed.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn restart(&mut self) -> std::io::Result<()> {
        if self.runtime.is_some() {
            self.kill();
        }
        self.listen()
    }

    /// Runs a batch within this process, as a session of its own.
    ///
    /// # Errors
    /// The first error that it says.
    pub fn batch(&self, text: &str) -> Result<Vec<Table>, SqlError> {
        let spid = self.shared.next_spid.fetch_add(1, Ordering::Relaxed);
        let mut session = Session::new(Arc::clone(&self.shared.engine), spid, "sa");
        let mut collected = Collected::default();
        let ended = session.batch(text, &mut collected);
        match (collected.error, ended) {
            (Some(error), _) => Err(error),
            (None, Err(Gone)) => Err(SqlError::new(0, "The server is stopping.")),
            (None, Ok(())) => Ok(collected.tables),
        }
    }

    /// What is committed of every table, by `schema.name`: values as texts, in the order of insertion.
    pub fn tables(&self) -> BTreeMap<String, Vec<Vec<Option<String>>>> {
        let database = self.shared.engine.database();
        let view = database.names(0);
        let mut tables = BTreeMap::new();
        for object in database.seen_objects(view) {
            let crate::store::catalog::Body::Table(at) = object.body else { continue };
            let Ok(table) = database.table(at) else { continue };
            let rows = table.seen(view).map(|(_, row)| {
                let values = row.iter().zip(&table.columns);
                values.map(|(value, column)| (!value.is_null()).then(|| show(value, column.ty, Some(2)))).collect()
            });
            tables.insert(object.full_name(), rows.collect());
        }
        tables
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
pub(crate) struct Collected {
    tables: Vec<Table>,
    columns: Arc<Vec<OutColumn>>,
    pub(crate) error: Option<SqlError>,
}

impl Sink for Collected {
    fn put(&mut self, event: Event) -> Result<(), Gone> {
        match event {
            Event::Columns(columns) => {
                let names = columns.iter().map(|column| column.name.clone()).collect();
                self.tables.push(Table { columns: names, rows: Vec::new() });
                self.columns = columns;
            }
            Event::Rows(rows) => {
                let texts = rows.iter().map(|row| texts(row, &self.columns)).collect::<Vec<_>>();
                if let Some(table) = self.tables.last_mut() {
                    table.rows.extend(texts);
                }
            }
            Event::Error(error) => {
                self.error.get_or_insert(error);
            }
            _ => {}
        }
        Ok(())
    }
}

fn texts(row: &Row, columns: &[OutColumn]) -> Vec<Option<String>> {
    let values = row.iter().zip(columns);
    values.map(|(value, column)| (!value.is_null()).then(|| show(value, column.ty, Some(2)))).collect()
}

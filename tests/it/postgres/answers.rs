//! A COMMIT whose answer is lost: a proxy between the consumer's node and its server forwards the COMMIT, waits until
//! it is done there, and cuts the line. The node has to find out by itself what became of it.

use super::{Job, Pair};
use crate::support::postgres::Postgres;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

#[test]
fn a_commit_that_was_not_answered_counts_once() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    // Two splits.
    source.psql(
        "CREATE TABLE notices (id bigint PRIMARY KEY, body text NOT NULL) WITH (fillfactor = 10);
         INSERT INTO notices SELECT i, repeat(md5(i::text), 25) FROM generate_series(1, 5000) i",
    );
    destination.psql(
        "CREATE TABLE notices (id bigint PRIMARY KEY, body text NOT NULL);
         CREATE VIEW shown AS SELECT * FROM notices",
    );
    let proxy = Proxy::start(destination.socket());
    let job = |write| Job { name: write, ..Job::new("notices", "key = [\"id\"]", "full", write) };
    let jobs = ["append", "upsert", "replace"].map(job);
    let pair = Pair::start(source, destination, &jobs, Some(&proxy.url()));
    for (number, (statement, write)) in
        [(STAGING, "replace"), (PUBLISHING, "append"), (PUBLISHING, "upsert"), (PUBLISHING, "replace")]
            .iter()
            .enumerate()
    {
        // Some are there before, of which none is lost or doubled.
        pair.destination.psql("DELETE FROM notices WHERE id > 100");
        proxy.cut_at(statement);
        let end = pair.site.take(write);
        assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &5_000.into()), "{end}");
        assert!(proxy.has_cut(), "the line was cut at {statement}");
        pair.assert_equal("notices");
        let published = "SELECT count(*) || ' ' || sum(landed) FROM posthouse_applied";
        let transfers = number + 1;
        assert_eq!(pair.destination.value(published), format!("{transfers} {}", 5_000 * transfers), "{write}");
    }
    for (write, transfers) in [("append", 1), ("upsert", 1), ("replace", 2)] {
        assert_eq!(pair.assert_ended_once(write), (transfers, 0), "{write}");
    }
}

/// What is said in a transaction that stages a split, and in one that publishes.
const STAGING: &str = "FROM STDIN (FORMAT binary)";
const PUBLISHING: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Passes everything on, but for one answer.
struct Proxy {
    port: u16,
    cut: Arc<Mutex<Cut>>,
}

/// The COMMIT whose answer is kept back, by a statement of its transaction; None once it was.
type Cut = Option<&'static str>;

impl Proxy {
    fn start(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let server = socket.join(".s.PGSQL.5432");
        let cut = Arc::new(Mutex::new(None));
        let shared = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, cut) = (server.clone(), shared.clone());
                // How a line ends is the node's to bear.
                std::thread::spawn(move || pass(client, &server, &cut));
            }
        });
        Self { port, cut }
    }
    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
    fn cut_at(&self, statement: &'static str) {
        *locked(&self.cut) = Some(statement);
    }
    fn has_cut(&self) -> bool {
        locked(&self.cut).is_none()
    }
}

/// One connection: answers pass as they come, what the client says is looked at message by message.
fn pass(mut client: TcpStream, server: &Path, cut: &Mutex<Cut>) -> io::Result<()> {
    let mut server = UnixStream::connect(server)?;
    let (mut answers, mut to_client) = (server.try_clone()?, client.try_clone()?);
    // Held while an answer is kept back.
    let gate = Arc::new(Mutex::new(()));
    let (passing, told) = (gate.clone(), Arc::new(Mutex::new(0_usize)));
    let counted = told.clone();
    let back = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = answers.read(&mut buffer) {
            *locked(&counted) += read;
            let _open = locked(&passing);
            if to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let mut said = String::new();
    let mut is_first = true;
    loop {
        let mut head = vec![0; if is_first { 4 } else { 5 }];
        if client.read_exact(&mut head).is_err() {
            break;
        }
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().expect("four bytes")) as usize - 4;
        let mut body = vec![0; length];
        client.read_exact(&mut body)?;
        let message = [&head[..], &body].concat();
        if !is_first && head[0] == b'Q' {
            let text = String::from_utf8_lossy(&body).into_owned();
            if text.starts_with("BEGIN") {
                said.clear();
            }
            said.push_str(&text);
            let is_it = |statement: &mut &'static str| text.starts_with("COMMIT") && said.contains(*statement);
            if locked(cut).take_if(is_it).is_some() {
                let closed = locked(&gate);
                let before = *locked(&told);
                server.write_all(&message)?;
                while *locked(&told) == before {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                client.shutdown(std::net::Shutdown::Both)?;
                drop(closed);
                break;
            }
        }
        is_first = false;
        server.write_all(&message)?;
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
    Ok(())
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

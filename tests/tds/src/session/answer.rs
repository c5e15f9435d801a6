//! What a request says while it runs, as tokens. The last DONE is held back until it is known to be the last.

use crate::language::engine::{Engine, Event, Gone, Sink};
use crate::language::run::OutColumn;
use crate::store::SqlError;
use crate::wire::tokens;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Of bytes that go to the line together.
const CHUNK: usize = 32 << 10;

pub(super) struct Answer {
    bytes: mpsc::Sender<Vec<u8>>,
    engine: Arc<Engine>,
    out: Vec<u8>,
    /// Tokens of a call differ from those of a batch.
    pub in_call: bool,
    columns: Option<Arc<Vec<OutColumn>>>,
    /// The result could not be shown.
    unshown: bool,
    held: Option<(u16, u64)>,
}

impl Answer {
    pub(super) fn new(bytes: mpsc::Sender<Vec<u8>>, engine: Arc<Engine>) -> Self {
        Answer { bytes, engine, out: Vec::new(), in_call: false, columns: None, unshown: false, held: None }
    }

    /// Lets the last DONE go, with more behind it.
    fn release(&mut self) {
        if let Some((status, count)) = self.held.take() {
            let token = if self.in_call { tokens::DONE_IN_CALL } else { tokens::DONE };
            tokens::done(&mut self.out, token, status | tokens::MORE, 0, count);
        }
    }

    fn error(&mut self, error: &SqlError) {
        tokens::message(&mut self.out, error, false);
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.bytes.blocking_send(std::mem::take(&mut self.out)).map_err(|_| Gone)
    }

    /// Ends a batch.
    pub(super) fn end(mut self) -> Result<(), Gone> {
        let (status, count) = self.held.take().unwrap_or((0, 0));
        tokens::done(&mut self.out, tokens::DONE, status, 0, count);
        self.flush()
    }

    /// Ends a call: its status, what goes back, and its own DONE.
    pub(super) fn end_call(&mut self, back: &[u8], more: bool) -> Result<(), Gone> {
        let failed = self.held.is_some_and(|(status, _)| status & tokens::FAILED != 0);
        if failed {
            self.held = None;
        }
        self.release();
        tokens::return_status(&mut self.out, i32::from(failed));
        self.out.extend_from_slice(back);
        let status = if failed { tokens::FAILED } else { 0 } | if more { tokens::MORE } else { 0 };
        tokens::done(&mut self.out, tokens::DONE_OF_CALL, status, 0, 0);
        self.flush()
    }

    fn refuse(&mut self, error: &SqlError) {
        self.engine.note(error, "a result");
        self.error(error);
        self.unshown = true;
        self.columns = None;
    }
}

impl Sink for Answer {
    fn put(&mut self, event: Event) -> Result<(), Gone> {
        if !matches!(event, Event::Rows(_)) {
            self.release();
        }
        match event {
            Event::Columns(columns) => {
                let mut out = Vec::new();
                match tokens::columns(&mut out, &columns) {
                    Ok(()) => {
                        self.out.extend(out);
                        self.columns = Some(columns);
                    }
                    Err(error) => self.refuse(&error),
                }
            }
            Event::Rows(rows) => {
                let Some(columns) = self.columns.clone() else { return Ok(()) };
                for row in rows {
                    let mut out = Vec::new();
                    match tokens::row(&mut out, &columns, &row) {
                        Ok(()) => self.out.extend(out),
                        Err(error) => {
                            self.refuse(&error);
                            return Ok(());
                        }
                    }
                    if self.out.len() >= CHUNK {
                        self.flush()?;
                    }
                }
            }
            Event::Info(info) => tokens::message(&mut self.out, &info, true),
            Event::Error(error) => self.error(&error),
            Event::Begun(descriptor) => tokens::changed_transaction(&mut self.out, tokens::BEGUN, descriptor),
            Event::Committed(descriptor) => tokens::changed_transaction(&mut self.out, tokens::COMMITTED, descriptor),
            Event::RolledBack(descriptor) => {
                tokens::changed_transaction(&mut self.out, tokens::ROLLED_BACK, descriptor);
            }
            Event::Database { new, old } => tokens::changed_text(&mut self.out, tokens::DATABASE, &new, &old),
            Event::Done { count, failed } => {
                let failed = failed || std::mem::take(&mut self.unshown);
                let mut status = if count.is_some() && !failed { tokens::COUNTED } else { 0 };
                if failed {
                    status |= tokens::FAILED;
                }
                self.held = Some((status, count.unwrap_or(0)));
                self.columns = None;
            }
        }
        if self.out.len() >= CHUNK { self.flush() } else { Ok(()) }
    }
}

//! Requests by their kind: batches, calls, transactions, bulk loads. Runs on a thread that may block.

use super::answer::Answer;
use crate::language::engine::{Event, Gone, Session, Sink};
use crate::language::procedures::Parameter;
use crate::language::scalar;
use crate::store::database::Isolation;
use crate::store::{Kind, SqlError, Type, Value};
use crate::wire::packet::{BATCH, BULK, CALL, Packet, TRANSACTION};
use crate::wire::reading::{Broken, Read, Reader, broken};
use crate::wire::rpc::{self, Call, Procedure};
use crate::wire::tokens;
use crate::wire::{bulk, reading};
use tokio::sync::mpsc;

/// Whether the connection goes on behind it.
pub(super) fn run(session: &mut Session, message: &Packet, strict: bool, bytes: mpsc::Sender<Vec<u8>>) -> bool {
    let mut answer = Answer::new(bytes, std::sync::Arc::clone(&session.engine));
    let served = match message.kind {
        BATCH => batch(session, &message.body, &mut answer),
        CALL => return calls(session, &message.body, answer),
        TRANSACTION => transaction(session, &message.body, &mut answer),
        BULK => load(session, &message.body, strict, &mut answer),
        other => Err(Trouble::Broken(Broken(format!("a packet of kind {other}")))),
    };
    finish(session, served, answer)
}

enum Trouble {
    Gone,
    /// What came is not the protocol: the connection ends over it.
    Broken(Broken),
}

impl From<Gone> for Trouble {
    fn from(_: Gone) -> Self {
        Trouble::Gone
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Trouble::Broken(broken)
    }
}

type Served = Result<(), Trouble>;

fn finish(session: &Session, served: Served, mut answer: Answer) -> bool {
    match served {
        Ok(()) => answer.end().is_ok(),
        // A request that was called off leaves the connection as it is.
        Err(Trouble::Gone) => !session.cut,
        Err(Trouble::Broken(broken)) => {
            let error = SqlError::from(broken);
            session.engine.note(&error, "the line");
            let told =
                answer.put(Event::Error(error)).and_then(|()| answer.put(Event::Done { count: None, failed: true }));
            if told.is_ok() {
                let _ = answer.end();
            }
            false
        }
    }
}

/// The request is for the transaction that is open, or for none.
fn headers(session: &Session, reader: &mut Reader) -> Read<()> {
    let descriptor = rpc::read_headers(reader)?;
    let open = session.open.unwrap_or(0);
    if descriptor == open {
        Ok(())
    } else {
        broken(format!("a request for transaction {descriptor} where {open} is open"))
    }
}

fn batch(session: &mut Session, body: &[u8], answer: &mut Answer) -> Served {
    let mut reader = Reader::new(body);
    headers(session, &mut reader)?;
    let left = reader.left();
    let text = reading::utf16(reader.take(left)?)?;
    session.variables.clear();
    session.batch(&text, answer)?;
    Ok(())
}

fn calls(session: &mut Session, body: &[u8], mut answer: Answer) -> bool {
    let mut reader = Reader::new(body);
    let read = headers(session, &mut reader).and_then(|()| rpc::read_calls(&mut reader));
    let calls = match read {
        Ok(calls) => calls,
        Err(broken) => return finish(session, Err(Trouble::Broken(broken)), answer),
    };
    answer.in_call = true;
    let last = calls.len().saturating_sub(1);
    for (at, call) in calls.into_iter().enumerate() {
        let mut back = Vec::new();
        let served = one_call(session, call, &mut answer, &mut back);
        let ended = served.and_then(|()| answer.end_call(&back, at < last));
        if ended.is_err() {
            return !session.cut;
        }
    }
    true
}

fn one_call(session: &mut Session, call: Call, answer: &mut Answer, back: &mut Vec<u8>) -> Result<(), Gone> {
    let number = match &call.procedure {
        Procedure::Number(number) => *number,
        Procedure::Name(name) => match name.to_ascii_lowercase().trim_start_matches("sys.") {
            "sp_executesql" => rpc::EXECUTE_SQL,
            "sp_prepare" => rpc::PREPARE,
            "sp_execute" => rpc::EXECUTE,
            "sp_prepexec" => rpc::PREPARE_AND_EXECUTE,
            "sp_unprepare" => rpc::UNPREPARE,
            "sp_reset_connection" => {
                session.reset();
                return Ok(());
            }
            _ => return session.procedure(name, &call.parameters, answer),
        },
    };
    session.variables.clear();
    let mut parameters = call.parameters.into_iter();
    let served = match number {
        rpc::EXECUTE_SQL => {
            let statement = text_of(parameters.next());
            let declared = text_of(parameters.next());
            let rest: Vec<Parameter> = parameters.collect();
            if rest.iter().any(|parameter| parameter.back) {
                Err(SqlError::unknown("sp_executesql with a parameter that goes back"))
            } else {
                let (statement, declared) = (statement.unwrap_or_default(), declared.unwrap_or_default());
                return session.with_parameters(&statement, &declared, rest, answer);
            }
        }
        rpc::PREPARE | rpc::PREPARE_AND_EXECUTE => {
            let name = parameters.next().map(|parameter| parameter.name).unwrap_or_default();
            let declared = text_of(parameters.next()).unwrap_or_default();
            let statement = text_of(parameters.next()).unwrap_or_default();
            let handle = session.next_handle;
            session.next_handle += 1;
            session.prepared.insert(handle, (statement.clone(), declared.clone()));
            let told = tokens::return_value(back, 0, &name, &Value::Int(handle), Type::of(Kind::Int));
            if number == rpc::PREPARE_AND_EXECUTE && told.is_ok() {
                return session.with_parameters(&statement, &declared, parameters.collect(), answer);
            }
            told
        }
        rpc::EXECUTE | rpc::UNPREPARE => {
            let handle = match parameters.next().map(|parameter| parameter.value) {
                Some(Value::Int(handle)) => handle,
                _ => 0,
            };
            match session.prepared.get(&handle).cloned() {
                None => Err(SqlError::new(8179, format!("Could not find prepared statement with handle {handle}."))),
                Some(_) if number == rpc::UNPREPARE => {
                    session.prepared.remove(&handle);
                    Ok(())
                }
                Some((statement, declared)) => {
                    return session.with_parameters(&statement, &declared, parameters.collect(), answer);
                }
            }
        }
        other => Err(SqlError::unknown(format!("procedure number {other}"))),
    };
    match served {
        Ok(()) => Ok(()),
        Err(error) => {
            session.engine.note(&error, "a call");
            answer.put(Event::Error(error))?;
            answer.put(Event::Done { count: None, failed: true })
        }
    }
}

fn text_of(parameter: Option<Parameter>) -> Option<String> {
    parameter.and_then(|parameter| scalar::text_of(&parameter.value)).map(|text| text.to_string())
}

/// Begins, commits, rolls back and saves that come as requests of their own.
fn transaction(session: &mut Session, body: &[u8], answer: &mut Answer) -> Served {
    let mut reader = Reader::new(body);
    headers(session, &mut reader)?;
    let kind = reader.u16()?;
    session.engine.hear(&format!("transaction request {kind}"));
    let failed = match kind {
        5 => {
            let isolation = isolation(reader.u8()?, session.isolation)?;
            reader.short_text()?;
            session.begin(isolation, answer)?
        }
        7 | 8 => {
            let name = reader.short_text()?;
            let next = if reader.is_empty() { 0 } else { reader.u8()? };
            let failed = match (kind, name.as_str()) {
                (7, _) => session.commit(answer)?,
                (_, "") => session.roll_back(None, answer)?,
                (_, name) => session.roll_back(Some(name), answer)?,
            };
            if next & 1 != 0 && failed.is_none() {
                let isolation = isolation(reader.u8()?, session.isolation)?;
                reader.short_text()?;
                session.begin(isolation, answer)?
            } else {
                failed
            }
        }
        9 => {
            let name = reader.short_text()?;
            session.save(&name)
        }
        other => return Err(Broken(format!("request {other} to the transaction manager")).into()),
    };
    if !reader.is_empty() {
        return Err(Broken("bytes behind a request to the transaction manager".to_owned()).into());
    }
    let refused = failed.is_some();
    if let Some(error) = failed {
        session.engine.note(&error, "a transaction's request");
        answer.put(Event::Error(error))?;
    }
    answer.put(Event::Done { count: None, failed: refused })?;
    Ok(())
}

fn isolation(level: u8, now: Isolation) -> Read<Isolation> {
    Ok(match level {
        0 => now,
        1 => Isolation::ReadUncommitted,
        2 => Isolation::ReadCommitted,
        3 => Isolation::RepeatableRead,
        4 => Isolation::Serializable,
        5 => Isolation::Snapshot,
        other => return broken(format!("isolation level {other}")),
    })
}

fn load(session: &mut Session, body: &[u8], strict: bool, answer: &mut Answer) -> Served {
    let Some(mut pending) = session.pending.take() else {
        return Err(Broken("a bulk load that nobody announced".to_owned()).into());
    };
    let mut load = bulk::read(body, strict)?;
    let announced: Vec<&str> = pending.columns.iter().map(|(name, _)| name.as_str()).collect();
    let named: Vec<&str> = load.columns.iter().map(|(name, _)| name.as_str()).collect();
    // Columns are matched by their place; names that are given must be the ones announced.
    let same = announced.len() == named.len()
        && announced.iter().zip(&named).all(|(a, b)| b.is_empty() || crate::store::table::same_name(a, b));
    if !same {
        return Err(Broken(format!("columns {named:?} of a bulk load where {announced:?} were announced")).into());
    }
    let types: Vec<Type> = load.columns.iter().map(|(_, ty)| *ty).collect();
    // The collation of what is announced is the one its bytes are in.
    for ((_, declared), ty) in pending.columns.iter_mut().zip(&types) {
        declared.ty.collation = ty.collation;
    }
    session.engine.hear(&format!("bulk load of {} rows into {}", load.rows.len(), pending.table.join(".")));
    let sent = load.rows.len() as u64;
    if session.engine.faults.loses_row() {
        load.rows.pop();
    }
    let fault = session.engine.faults.error_at_bulk_end();
    let made = session.attempt(answer, |work| match &fault {
        Some(error) => Err(error.clone().into()),
        None => work.bulk(&pending, &types, &load.rows),
    })?;
    if let Some(outcome) = made {
        // What came is told, whatever was kept of it.
        let count = outcome.count.map(|_| session.told(sent));
        answer.put(Event::Done { count, failed: false })?;
    }
    Ok(())
}

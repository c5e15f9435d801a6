//! What goes wrong when a test says so. Each fault happens once, in the order of arming.

use crate::store::SqlError;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut once so many bytes have come from clients, counted from the arming.
    CutAfterReceived(u64),
    /// The connection is cut once so many bytes have gone to clients, counted from the arming; half a packet is cut
    /// where it falls into one.
    CutAfterSent(u64),
    /// From there on nothing is read.
    StallAfterReceived(u64),
    /// From there on nothing is sent, and the connection stays open.
    StallAfterSent(u64),
    /// The next connections are closed as soon as they are accepted.
    Refuse(u32),
    /// The batch or call that comes after so many others fails before it runs; zero is the next one.
    ErrorAtStatement { after: u32, number: u32 },
    /// Of the next result only so many rows come, and an error behind them.
    ErrorInResult { after_rows: u64, number: u32 },
    /// All rows of the next bulk load are read, and none is kept.
    ErrorAtBulkEnd { number: u32 },
    /// Of the next bulk load the last row is not kept, and all are told: as where a driver loses one.
    LoseRowInBulk,
    /// The next commit fails and rolls back.
    ErrorAtCommit { number: u32 },
    /// The next commit is done, and the connection is cut before it is answered.
    CutAtCommit,
}

/// What a line does at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// So many bytes may still pass.
    Pass(u64),
    Cut,
    Stall,
}

#[derive(Debug, Default)]
struct Armed {
    faults: Vec<Fault>,
}

#[derive(Debug, Default)]
pub struct Faults {
    armed: Mutex<Armed>,
}

impl Faults {
    pub fn arm(&self, fault: Fault) {
        self.armed().faults.push(fault);
    }

    /// What is armed and has not happened.
    pub fn left(&self) -> Vec<Fault> {
        self.armed().faults.clone()
    }

    pub fn disarm(&self) {
        self.armed().faults.clear();
    }

    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<T>(&self, wanted: impl Fn(&mut Fault) -> Option<T>) -> Option<T> {
        let mut armed = self.armed();
        let found = armed.faults.iter_mut().enumerate().find_map(|(at, fault)| Some((at, wanted(fault)?)));
        let (at, made) = found?;
        armed.faults.remove(at);
        Some(made)
    }

    pub fn refuses(&self) -> bool {
        let mut armed = self.armed();
        let Some(at) = armed.faults.iter().position(|fault| matches!(fault, Fault::Refuse(_))) else { return false };
        if let Some(Fault::Refuse(left)) = armed.faults.get_mut(at) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                armed.faults.remove(at);
            }
        }
        true
    }

    pub fn error_at_statement(&self) -> Option<SqlError> {
        self.take(|fault| match fault {
            Fault::ErrorAtStatement { after: 0, number } => Some(injected(*number)),
            Fault::ErrorAtStatement { after, .. } => {
                *after -= 1;
                None
            }
            _ => None,
        })
    }

    pub fn error_in_result(&self) -> Option<(u64, SqlError)> {
        self.take(|fault| match fault {
            Fault::ErrorInResult { after_rows, number } => Some((*after_rows, injected(*number))),
            _ => None,
        })
    }

    pub fn error_at_bulk_end(&self) -> Option<SqlError> {
        self.take(|fault| match fault {
            Fault::ErrorAtBulkEnd { number } => Some(injected(*number)),
            _ => None,
        })
    }

    pub fn loses_row(&self) -> bool {
        self.take(|fault| matches!(fault, Fault::LoseRowInBulk).then_some(())).is_some()
    }

    pub fn error_at_commit(&self) -> Option<SqlError> {
        self.take(|fault| match fault {
            Fault::ErrorAtCommit { number } => Some(injected(*number)),
            _ => None,
        })
    }

    pub fn cut_at_commit(&self) -> bool {
        self.take(|fault| matches!(fault, Fault::CutAtCommit).then_some(())).is_some()
    }

    /// How many of `wanted` bytes may come in.
    pub fn receive(&self, wanted: u64) -> Line {
        self.pass(wanted, |fault| match fault {
            Fault::CutAfterReceived(left) => Some((left, Line::Cut)),
            Fault::StallAfterReceived(left) => Some((left, Line::Stall)),
            _ => None,
        })
    }

    /// How many of `wanted` bytes may go out.
    pub fn send(&self, wanted: u64) -> Line {
        self.pass(wanted, |fault| match fault {
            Fault::CutAfterSent(left) => Some((left, Line::Cut)),
            Fault::StallAfterSent(left) => Some((left, Line::Stall)),
            _ => None,
        })
    }

    fn pass(&self, wanted: u64, of: impl Fn(&mut Fault) -> Option<(&mut u64, Line)>) -> Line {
        let mut armed = self.armed();
        for at in 0..armed.faults.len() {
            let Some(fault) = armed.faults.get_mut(at) else { break };
            let Some((left, line)) = of(fault) else { continue };
            if *left == 0 {
                armed.faults.remove(at);
                return line;
            }
            return Line::Pass(wanted.min(*left));
        }
        Line::Pass(wanted)
    }

    /// Bytes that have passed.
    pub fn received(&self, bytes: u64) {
        self.passed(bytes, |fault| match fault {
            Fault::CutAfterReceived(left) | Fault::StallAfterReceived(left) => Some(left),
            _ => None,
        });
    }

    pub fn sent(&self, bytes: u64) {
        self.passed(bytes, |fault| match fault {
            Fault::CutAfterSent(left) | Fault::StallAfterSent(left) => Some(left),
            _ => None,
        });
    }

    fn passed(&self, bytes: u64, of: impl Fn(&mut Fault) -> Option<&mut u64>) {
        for fault in &mut self.armed().faults {
            if let Some(left) = of(fault) {
                *left = left.saturating_sub(bytes);
            }
        }
    }
}

fn injected(number: u32) -> SqlError {
    let mut error = SqlError::new(number, match number {
        1205 => "Transaction was deadlocked on lock resources with another process and has been chosen as the deadlock victim. Rerun the transaction.".to_owned(),
        1222 => "Lock request time out period exceeded.".to_owned(),
        other => format!("Error {other}, as a test asked for."),
    });
    if number == 1205 {
        error.state = 51;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_once_and_at_its_place() {
        let faults = Faults::default();
        faults.arm(Fault::ErrorAtStatement { after: 1, number: 1205 });
        assert_eq!(faults.error_at_statement(), None);
        assert_eq!(faults.error_at_statement().map(|error| error.number), Some(1205));
        assert_eq!(faults.error_at_statement(), None);
        faults.arm(Fault::CutAfterSent(5));
        assert_eq!(faults.send(100), Line::Pass(5));
        faults.sent(5);
        assert_eq!(faults.receive(100), Line::Pass(100));
        assert_eq!(faults.send(100), Line::Cut);
        assert_eq!(faults.send(100), Line::Pass(100));
        faults.arm(Fault::Refuse(2));
        assert_eq!([faults.refuses(), faults.refuses(), faults.refuses()], [true, true, false]);
    }
}

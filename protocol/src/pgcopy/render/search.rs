//! Text search: words with their places, and queries over words. A query's operators are walked without recursion,
//! as a long one is as deep as it has words.

use super::{check, end, take};
use crate::pgcopy::{Fault, text};
use bytes::Buf as _;
use std::fmt::Write as _;

pub(super) fn vector(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let count = usize::try_from(value.try_get_i32()?).map_err(|_| Fault::from("has fewer than no words"))?;
    for index in 0..count {
        if index > 0 {
            out.push(' ');
        }
        quoted(word(&mut value)?, out);
        for place in 0..value.try_get_u16()? {
            let (mark, at) = (if place == 0 { ':' } else { ',' }, value.try_get_u16()?);
            let _ = write!(out, "{mark}{}{}", at & 0x3fff, ["", "C", "B", "A"][usize::from(at >> 14)]);
        }
        check(out)?;
    }
    end(value)
}

enum Item<'a> {
    Word {
        text: &'a str,
        weight: u8,
        prefix: bool,
    },
    Not,
    /// With the item at which its left side begins; the right one follows at once.
    Pair {
        operator: Pair,
        left: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    Or,
    And,
    Phrase(i16),
}

enum Task {
    Item { at: usize, parent: u8, right_of_phrase: bool },
    Write(&'static str),
    Distance(i16),
}

pub(super) fn query(value: &[u8], out: &mut String) -> Result<(), Fault> {
    let items = items(value)?;
    let mut tasks =
        if items.is_empty() { vec![] } else { vec![Task::Item { at: 0, parent: 0, right_of_phrase: false }] };
    while let Some(task) = tasks.pop() {
        match task {
            Task::Write(mark) => out.push_str(mark),
            Task::Distance(1) => out.push_str(" <-> "),
            Task::Distance(distance) => {
                let _ = write!(out, " <{distance}> ");
            }
            Task::Item { at, parent, right_of_phrase } => {
                let (priority, apart) = match items.get(at) {
                    Some(Item::Word { text, weight, prefix }) => {
                        quoted(text, out);
                        marks(*weight, *prefix, out);
                        check(out)?;
                        continue;
                    }
                    Some(Item::Not) => (4, false),
                    Some(Item::Pair { operator: Pair::Phrase(_), .. }) => (3, right_of_phrase),
                    Some(Item::Pair { operator: Pair::And, .. }) => (2, false),
                    Some(Item::Pair { operator: Pair::Or, .. }) => (1, false),
                    None => return Err(MALFORMED.into()),
                };
                let parentheses = priority < parent || apart;
                // What is written last is put down first.
                if parentheses {
                    out.push_str("( ");
                    tasks.push(Task::Write(" )"));
                }
                let side = |at, right_of_phrase| Task::Item { at, parent: priority, right_of_phrase };
                match items.get(at) {
                    Some(Item::Pair { operator, left }) => {
                        tasks.push(side(at + 1, matches!(operator, Pair::Phrase(_))));
                        tasks.push(match operator {
                            Pair::Or => Task::Write(" | "),
                            Pair::And => Task::Write(" & "),
                            Pair::Phrase(distance) => Task::Distance(*distance),
                        });
                        tasks.push(side(*left, false));
                    }
                    _ => {
                        out.push('!');
                        tasks.push(side(at + 1, false));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The items of a query, operators before what they join.
fn items(mut value: &[u8]) -> Result<Vec<Item<'_>>, Fault> {
    let count = value.try_get_u32()? as usize;
    if count > ITEMS_MAX {
        return Err("is too long a query".into());
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(match (value.try_get_u8()?, value.try_get_u8()?) {
            (1, weight) if weight <= 15 => {
                let prefix = value.try_get_u8()? != 0;
                Item::Word { text: word(&mut value)?, weight, prefix }
            }
            (2, 1) => Item::Not,
            (2, 2) => Item::Pair { operator: Pair::And, left: 0 },
            (2, 3) => Item::Pair { operator: Pair::Or, left: 0 },
            (2, 4) => Item::Pair { operator: Pair::Phrase(value.try_get_i16()?), left: 0 },
            _ => return Err(MALFORMED.into()),
        });
    }
    end(value)?;
    // From the end, each item is a whole that consumes those behind it: where each begins is then known.
    let mut begins: Vec<usize> = Vec::new();
    for (at, item) in items.iter_mut().enumerate().rev() {
        match item {
            Item::Word { .. } => {}
            Item::Not => {
                begins.pop().ok_or(MALFORMED)?;
            }
            Item::Pair { left, .. } => {
                begins.pop().ok_or(MALFORMED)?;
                *left = begins.pop().ok_or(MALFORMED)?;
            }
        }
        begins.push(at);
    }
    if begins.len() == count.min(1) { Ok(items) } else { Err(MALFORMED.into()) }
}

fn marks(weight: u8, prefix: bool, out: &mut String) {
    if weight != 0 || prefix {
        out.push(':');
    }
    if prefix {
        out.push('*');
    }
    out.extend(
        [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')].iter().filter(|(bit, _)| weight & bit != 0).map(|(_, mark)| mark),
    );
}

/// Text up to a zero byte.
fn word<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Fault> {
    let length = rest.iter().position(|byte| *byte == 0).ok_or_else(|| Fault::from("has a word without an end"))?;
    let word = text(take(rest, length)?)?;
    take(rest, 1)?;
    Ok(word)
}

fn quoted(word: &str, out: &mut String) {
    out.push('\'');
    for c in word.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
}

const MALFORMED: &str = "is no query";
/// Words and operators of one query.
const ITEMS_MAX: usize = 1 << 20;

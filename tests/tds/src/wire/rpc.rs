//! Calls: a procedure by number or name, and its parameters.

use super::reading::{Read, Reader, broken};
use super::types::{read_type, read_value};
use crate::language::procedures::Parameter;

#[derive(Clone, Debug)]
pub enum Procedure {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub procedure: Procedure,
    pub parameters: Vec<Parameter>,
}

pub const EXECUTE_SQL: u16 = 10;
pub const PREPARE: u16 = 11;
pub const EXECUTE: u16 = 12;
pub const PREPARE_AND_EXECUTE: u16 = 13;
pub const UNPREPARE: u16 = 15;

/// What stands before every request: the descriptor of the transaction that it is for.
pub fn read_headers(reader: &mut Reader) -> Read<u64> {
    let total = reader.u32()? as usize;
    let Some(length) = total.checked_sub(4) else { return broken("headers shorter than their length") };
    let mut headers = Reader::new(reader.take(length)?);
    let mut descriptor = None;
    while !headers.is_empty() {
        let length = headers.u32()? as usize;
        let kind = headers.u16()?;
        let Some(length) = length.checked_sub(6) else { return broken("a header shorter than its length") };
        let mut header = Reader::new(headers.take(length)?);
        match kind {
            2 => {
                descriptor = Some(header.u64()?);
                if header.u32()? != 1 {
                    return broken("more than one request at a time");
                }
            }
            3 => {}
            other => return broken(format!("header {other} is not known")),
        }
    }
    match descriptor {
        Some(descriptor) => Ok(descriptor),
        None => broken("a request without a transaction's header"),
    }
}

/// Every call of a message.
pub fn read_calls(reader: &mut Reader) -> Read<Vec<Call>> {
    let mut calls = Vec::new();
    loop {
        let length = reader.u16()?;
        let procedure = if length == 0xffff {
            Procedure::Number(reader.u16()?)
        } else {
            Procedure::Name(reader.utf16(usize::from(length))?)
        };
        let options = reader.u16()?;
        if options & !0x07 != 0 {
            return broken(format!("options 0x{options:04x} of a call"));
        }
        let mut parameters = Vec::new();
        let mut further = false;
        while let Some(next) = reader.peek() {
            // A mark, and the next call behind it. No name has 128 units or more.
            if matches!(next, 0x80 | 0xff) {
                reader.u8()?;
                further = true;
                break;
            }
            let name = reader.short_text()?;
            let status = reader.u8()?;
            if status & !0x03 != 0 {
                return broken(format!("status 0x{status:02x} of parameter {name}"));
            }
            let wire = read_type(reader)?;
            let value = read_value(reader, &wire)?;
            parameters.push(Parameter { name, value, ty: wire.ty, back: status & 0x01 != 0 });
        }
        calls.push(Call { procedure, parameters });
        if !further {
            return Ok(calls);
        }
    }
}

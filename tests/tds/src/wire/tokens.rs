//! Tokens of an answer.

use super::reading::to_utf16;
use super::types::{write_type, write_value};
use crate::language::run::OutColumn;
use crate::store::{Collation, Kind, SqlError, Type, Value};

pub const DONE: u8 = 0xfd;
pub const DONE_OF_CALL: u8 = 0xfe;
pub const DONE_IN_CALL: u8 = 0xff;

pub const MORE: u16 = 0x01;
pub const FAILED: u16 = 0x02;
pub const COUNTED: u16 = 0x10;
pub const CALLED_OFF: u16 = 0x20;

pub fn done(out: &mut Vec<u8>, token: u8, status: u16, command: u16, count: u64) {
    out.push(token);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&command.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
}

fn short_text(out: &mut Vec<u8>, text: &str) {
    let bytes = to_utf16(text);
    let bytes = bytes.get(..bytes.len().min(510)).unwrap_or_default();
    out.push((bytes.len() / 2) as u8);
    out.extend_from_slice(bytes);
}

/// With its own length, in two bytes, before it.
fn measured(out: &mut Vec<u8>, token: u8, body: &[u8]) {
    out.push(token);
    out.extend_from_slice(&(body.len() as u16).to_le_bytes());
    out.extend_from_slice(body);
}

pub fn message(out: &mut Vec<u8>, error: &SqlError, info: bool) {
    let mut body = Vec::new();
    body.extend_from_slice(&error.number.to_le_bytes());
    body.push(error.state);
    body.push(error.class);
    let text: String = error.text.chars().take(2000).collect();
    let text = to_utf16(&text);
    body.extend_from_slice(&((text.len() / 2) as u16).to_le_bytes());
    body.extend_from_slice(&text);
    short_text(&mut body, "POSTHOUSE-TEST");
    short_text(&mut body, "");
    body.extend_from_slice(&1_u32.to_le_bytes());
    measured(out, if info { 0xab } else { 0xaa }, &body);
}

pub fn login_ack(out: &mut Vec<u8>) {
    let mut body = vec![1];
    body.extend_from_slice(&0x7400_0004_u32.to_be_bytes());
    short_text(&mut body, "Microsoft SQL Server");
    body.extend_from_slice(&[11, 0, 0x08, 0x34]);
    measured(out, 0xad, &body);
}

pub fn changed_text(out: &mut Vec<u8>, what: u8, new: &str, old: &str) {
    let mut body = vec![what];
    short_text(&mut body, new);
    short_text(&mut body, old);
    measured(out, 0xe3, &body);
}

pub const DATABASE: u8 = 1;
pub const LANGUAGE: u8 = 2;
pub const PACKET_SIZE: u8 = 4;
pub const BEGUN: u8 = 8;
pub const COMMITTED: u8 = 9;
pub const ROLLED_BACK: u8 = 10;
pub const RESET: u8 = 18;

pub fn changed_collation(out: &mut Vec<u8>) {
    let mut body = vec![7, 5];
    body.extend_from_slice(&Collation::usual().wire());
    body.push(0);
    measured(out, 0xe3, &body);
}

/// A transaction begun, with its new descriptor, or ended, with its old one.
pub fn changed_transaction(out: &mut Vec<u8>, what: u8, descriptor: u64) {
    let mut body = vec![what];
    if what == BEGUN {
        body.push(8);
        body.extend_from_slice(&descriptor.to_le_bytes());
        body.push(0);
    } else {
        body.push(0);
        body.push(8);
        body.extend_from_slice(&descriptor.to_le_bytes());
    }
    measured(out, 0xe3, &body);
}

pub fn reset(out: &mut Vec<u8>) {
    measured(out, 0xe3, &[RESET, 0, 0]);
}

pub fn return_status(out: &mut Vec<u8>, status: i32) {
    out.push(0x79);
    out.extend_from_slice(&status.to_le_bytes());
}

/// A parameter that goes back.
pub fn return_value(out: &mut Vec<u8>, ordinal: u16, name: &str, value: &Value, ty: Type) -> Result<(), SqlError> {
    out.push(0xac);
    out.extend_from_slice(&ordinal.to_le_bytes());
    short_text(out, name);
    out.push(1);
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&1_u16.to_le_bytes());
    write_type(out, ty, true)?;
    write_value(out, value, ty, true)
}

pub fn columns(out: &mut Vec<u8>, columns: &[OutColumn]) -> Result<(), SqlError> {
    out.push(0x81);
    out.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    for column in columns {
        let user: u32 = if column.ty.kind == Kind::RowVersion { 80 } else { 0 };
        out.extend_from_slice(&user.to_le_bytes());
        out.extend_from_slice(&flags(column).to_le_bytes());
        write_type(out, column.ty, column.nullable)?;
        if matches!(column.ty.kind, Kind::Text | Kind::NText | Kind::Image) {
            // The table's name, in parts.
            out.push(1);
            out.extend_from_slice(&1_u16.to_le_bytes());
            out.extend_from_slice(&to_utf16("t"));
        }
        short_text(out, &column.name);
    }
    Ok(())
}

fn flags(column: &OutColumn) -> u16 {
    let mut flags = u16::from(column.nullable);
    if column.ty.kind.is_text() && column.ty.collation.case_sensitive() {
        flags |= 0x02;
    }
    match column.origin {
        None => {}
        Some(origin) if origin.identity => flags |= 0x10,
        Some(origin) if origin.computed => flags |= 0x20,
        Some(origin) if origin.rowversion => {}
        // Whether it may be written is not said: so does SQL Server.
        Some(_) => flags |= 0x08,
    }
    flags
}

/// A row; with many nulls in the shorter form, as there.
pub fn row(out: &mut Vec<u8>, columns: &[OutColumn], row: &[Value]) -> Result<(), SqlError> {
    let nulls = row.iter().filter(|value| value.is_null()).count();
    if nulls == 0 || columns.len() < 4 {
        out.push(0xd1);
        for (value, column) in row.iter().zip(columns) {
            write_value(out, value, column.ty, column.nullable)?;
        }
        return Ok(());
    }
    out.push(0xd2);
    let mut bits = vec![0_u8; columns.len().div_ceil(8)];
    for (at, value) in row.iter().enumerate() {
        if let (true, Some(byte)) = (value.is_null(), bits.get_mut(at / 8)) {
            *byte |= 1 << (at % 8);
        }
    }
    out.extend_from_slice(&bits);
    for (value, column) in row.iter().zip(columns).filter(|(value, _)| !value.is_null()) {
        write_value(out, value, column.ty, column.nullable)?;
    }
    Ok(())
}

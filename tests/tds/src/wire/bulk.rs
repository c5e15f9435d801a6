//! Rows of a bulk load. Each value is read by its own length, and nothing may be left over.

use super::reading::{Read, Reader, broken};
use super::types::{WireType, read_type, read_value};
use crate::store::{Kind, Type, Value};

#[derive(Clone, Debug)]
pub struct Bulk {
    /// Name and type of each column.
    pub columns: Vec<(String, Type)>,
    pub rows: Vec<Vec<Value>>,
}

/// With `strict`, a text of fixed length that comes unpadded is refused: there are servers that keep it so, and
/// readers that hang over it.
pub fn read(message: &[u8], strict: bool) -> Read<Bulk> {
    let mut reader = Reader::new(message);
    if reader.u8()? != 0x81 {
        return broken("a bulk load begins without its columns");
    }
    let count = reader.u16()?;
    let mut columns: Vec<(String, WireType)> = Vec::new();
    for _ in 0..count {
        reader.u32()?; // user type
        reader.u16()?; // flags
        let wire = read_type(&mut reader)?;
        if matches!(wire.ty.kind, Kind::Text | Kind::NText | Kind::Image) {
            reader.text()?; // the table's name
        }
        let name = reader.short_text()?;
        columns.push((name, wire));
    }
    let mut rows = Vec::new();
    loop {
        match reader.u8()? {
            0xd1 => {
                let mut row = Vec::with_capacity(columns.len());
                for (name, wire) in &columns {
                    let before = reader.left();
                    let value = read_value(&mut reader, wire)?;
                    let taken = before - reader.left();
                    let fixed = matches!(wire.ty.kind, Kind::Char(_) | Kind::NChar(_) | Kind::Binary(_));
                    if strict && fixed && !value.is_null() && taken != wire.size + 2 {
                        return broken(format!(
                            "column {name} is a {} and came with {} bytes",
                            wire.ty.declared(),
                            taken - 2
                        ));
                    }
                    row.push(value);
                }
                rows.push(row);
            }
            0xd2 => {
                let bits = reader.take(columns.len().div_ceil(8))?;
                let mut row = Vec::with_capacity(columns.len());
                for (at, (_, wire)) in columns.iter().enumerate() {
                    let null = bits.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0);
                    row.push(if null { Value::Null } else { read_value(&mut reader, wire)? });
                }
                rows.push(row);
            }
            0xfd => {
                reader.take(12)?;
                break;
            }
            other => return broken(format!("token 0x{other:02x} within a bulk load")),
        }
    }
    if !reader.is_empty() {
        return broken(format!("{} bytes behind the end of a bulk load", reader.left()));
    }
    Ok(Bulk { columns: columns.into_iter().map(|(name, wire)| (name, wire.ty)).collect(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(rows: &[&[u8]], tail: &[u8]) -> Vec<u8> {
        let mut message = vec![0x81, 2, 0];
        message.extend([0, 0, 0, 0, 8, 0, 0x26, 4, 1, b'a', 0]);
        message.extend([0, 0, 0, 0, 9, 0, 0xaf, 3, 0, 0, 0, 0, 0, 0, 1, b'b', 0]);
        for row in rows {
            message.push(0xd1);
            message.extend(*row);
        }
        message.push(0xfd);
        message.extend([0; 12]);
        message.extend(tail);
        message
    }

    #[test]
    fn rows_are_read_to_the_last_byte() {
        let whole = message(&[&[4, 7, 0, 0, 0, 3, 0, b'x', b'y', b' '], &[0, 0xff, 0xff]], &[]);
        let bulk = read(&whole, true).expect("a load");
        assert_eq!(bulk.columns[1].0, "b");
        assert_eq!(bulk.rows, [vec![Value::Int(7), Value::text("xy ")], vec![Value::Null, Value::Null]]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], true).is_err(), "cut at {length}");
        }
        assert!(read(&message(&[], &[0]), true).is_err(), "a byte too many");
        let short = message(&[&[0, 2, 0, b'x', b'y']], &[]);
        assert!(read(&short, true).is_err() && read(&short, false).is_ok(), "an unpadded text");
    }
}

//! Hashes one row whose values are too large to be kept, as its bytes pass: text and bytes go straight into the
//! hash; what must be whole to be written in its canonical form is kept, up to a bound.

use super::digest::{RowHasher, Scratch, TOO_LARGE, encode};
use super::shape::{Column, Form};
use super::utf8::Utf8;
use super::walk::Part;
use super::{CopyError, Fault, NOT_UTF8};
use crate::digest::encoding::{KEY, NULL, ROW, TEXT, head};
use crate::digest::{RowHash, bucket_of};
use crate::limits::VALUE_HELD_BYTES_MAX;
use std::collections::BTreeMap;

pub(super) struct LargeRow {
    row: blake3::Hasher,
    /// Canonical forms of the key's columns.
    keys: BTreeMap<usize, Vec<u8>>,
    /// The column that comes next, or is coming.
    column: usize,
    passing: bool,
    utf8: Utf8,
    value: Vec<u8>,
    form: Vec<u8>,
    scratch: Scratch,
}

impl LargeRow {
    pub(super) fn new(hasher: &RowHasher) -> Self {
        let mut row = blake3::Hasher::new_keyed(&hasher.key);
        row.update(&[ROW]);
        let keys = hasher.key_columns().iter().map(|column| (*column, Vec::new())).collect();
        Self {
            row,
            keys,
            column: 0,
            passing: false,
            utf8: Utf8::default(),
            value: Vec::new(),
            form: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Takes the next part; gives the row's hash with the last.
    pub(super) fn part(&mut self, hasher: &RowHasher, row: u64, part: Part<'_>) -> Result<Option<RowHash>, CopyError> {
        if matches!(part, Part::End) {
            return Ok(Some(self.end(hasher, row)));
        }
        let Some(column) = hasher.columns.get(self.column) else {
            return Err(CopyError::Stream { what: super::walk::COUNT, rows: row });
        };
        let done = match part {
            Part::Begin | Part::End => Ok(()),
            Part::Field(length) => match usize::try_from(i32::from_be_bytes(length)) {
                Ok(length) => self.begin(column, length),
                Err(_) => match column.null_error(row, length) {
                    Some(error) => return Err(error),
                    None => {
                        let done = self.put(&[NULL]);
                        self.column += 1;
                        done
                    }
                },
            },
            Part::Bytes(bytes) if !self.passing => {
                self.value.extend_from_slice(bytes);
                Ok(())
            }
            Part::Bytes(bytes) if column.form == Form::Text && !self.utf8.push(bytes) => Err(NOT_UTF8.into()),
            Part::Bytes(bytes) => self.put(bytes),
            Part::FieldEnd => self.field_end(column),
        };
        done.map(|()| None).map_err(|fault| column.error(row, fault))
    }

    fn begin(&mut self, column: &Column, length: usize) -> Result<(), Fault> {
        self.passing = matches!(column.form, Form::Text | Form::Bytes);
        if self.passing {
            return self.put(&head(TEXT, length));
        }
        self.value.clear();
        if length > VALUE_HELD_BYTES_MAX { Err(TOO_LARGE.into()) } else { Ok(()) }
    }

    fn field_end(&mut self, column: &Column) -> Result<(), Fault> {
        if !self.passing {
            let mut form = std::mem::take(&mut self.form);
            form.clear();
            encode(column, &self.value, &mut form, &mut self.scratch)?;
            self.put(&form)?;
            self.form = form;
        } else if !self.utf8.end() {
            return Err(NOT_UTF8.into());
        }
        self.column += 1;
        Ok(())
    }

    /// Adds to the current column's canonical form.
    fn put(&mut self, form: &[u8]) -> Result<(), Fault> {
        self.row.update(form);
        if let Some(key) = self.keys.get_mut(&self.column) {
            if key.len() + form.len() > VALUE_HELD_BYTES_MAX {
                return Err("is larger than a key's column may be".into());
            }
            key.extend_from_slice(form);
        }
        Ok(())
    }

    fn end(&self, hasher: &RowHasher, row: u64) -> RowHash {
        let hash = *self.row.finalize().as_bytes();
        if self.keys.is_empty() {
            return RowHash { row: row as usize, bucket: bucket_of(&hash), hash };
        }
        let mut key = blake3::Hasher::new_keyed(&hasher.key);
        key.update(&[KEY]);
        hasher.key_columns().iter().filter_map(|column| self.keys.get(column)).for_each(|form| {
            key.update(form);
        });
        RowHash { row: row as usize, bucket: bucket_of(key.finalize().as_bytes()), hash }
    }
}

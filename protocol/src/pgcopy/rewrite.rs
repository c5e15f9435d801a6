//! Writes tuples anew for a table in which some columns are text: what lies in them alike is copied as it is, and the
//! others are the text that the server itself would write.

use super::encode::RowFault;
use super::shape::{Form, Shape};
use super::{Fault, render};
use crate::limits::TUPLE_BYTES_MAX;

/// Rewrites tuples of one shape.
pub struct Rewriter {
    shape: Shape,
    as_text: Vec<bool>,
    text: String,
}

impl Rewriter {
    /// Columns that are `as_text`, one for each; none where one of them is no text to its contract, so that its value
    /// would be another.
    pub fn new(shape: &Shape, as_text: Vec<bool>) -> Option<Self> {
        let all = shape.columns.iter().zip(&as_text);
        let fits = all.clone().count() == shape.columns.len()
            && all.clone().all(|(column, as_text)| !as_text || matches!(column.form, Form::Text | Form::Rendered));
        fits.then(|| Self { shape: shape.clone(), as_text, text: String::new() })
    }

    /// Appends the tuple that these bytes are, or nothing of it.
    pub fn row(&mut self, tuple: &[u8], out: &mut Vec<u8>) -> Result<(), RowFault> {
        let start = out.len();
        let done = self.write(tuple, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }

    fn write(&mut self, tuple: &[u8], out: &mut Vec<u8>) -> Result<(), RowFault> {
        let start = out.len();
        let cut = || RowFault { column: String::new(), fault: "of its row are cut off".into() };
        let (count, mut rest) = tuple.split_first_chunk::<2>().ok_or_else(cut)?;
        out.extend_from_slice(count);
        for (column, as_text) in self.shape.columns.iter().zip(&self.as_text) {
            let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let Ok(bytes) = usize::try_from(i32::from_be_bytes(*length)) else {
                out.extend_from_slice(length);
                rest = after;
                continue;
            };
            let (value, after) = after.split_at_checked(bytes).ok_or_else(cut)?;
            rest = after;
            let value = if *as_text {
                self.text.clear();
                let rendered = render(&column.native, value, &mut self.text);
                rendered.map_err(|fault| RowFault { column: column.name.clone(), fault })?;
                self.text.as_bytes()
            } else {
                value
            };
            if out.len() - start + value.len() > TUPLE_BYTES_MAX {
                let fault: Fault = "makes its row larger than PostgreSQL takes".into();
                return Err(RowFault { column: column.name.clone(), fault });
            }
            // What was just measured has fewer than 31 bits.
            out.extend_from_slice(&(value.len() as i32).to_be_bytes());
            out.extend_from_slice(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Contract, Item};

    #[test]
    fn text_is_made_of_some_columns_and_the_others_stay() {
        let natives = ["inet", "composite<int4,bool>", "json"].map(|native| native.parse().unwrap());
        let items = natives.iter().enumerate().map(|(index, native): (usize, &super::super::NativeType)| Item {
            name: format!("c{index}"),
            r#type: native.contract_type(),
            nullable: true,
            comment: None,
        });
        let shape = Shape::new(&Contract { items: items.collect(), key: vec![] }, &natives).unwrap();
        let mut tuple = vec![0, 3, 0, 0, 0, 2, 9, 9];
        let composite = [0, 0, 0, 2, 0, 0, 0, 23, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 1, 1];
        tuple.extend_from_slice(&(composite.len() as i32).to_be_bytes());
        tuple.extend_from_slice(&composite);
        tuple.extend_from_slice(&(-1i32).to_be_bytes());
        let mut out = vec![1];
        let mut rewriter = Rewriter::new(&shape, vec![false, true, false]).unwrap();
        rewriter.row(&tuple, &mut out).unwrap();
        assert_eq!(out, b"\x01\0\x03\0\0\0\x02\x09\x09\0\0\0\x05(7,t)\xff\xff\xff\xff");
        // What cannot be shown is a fault of its column, and leaves nothing behind.
        let last = tuple.len() - 5;
        tuple[last] = 7;
        let fault = rewriter.row(&tuple, &mut out).unwrap_err();
        assert_eq!(fault.to_string(), "the column `c1` is neither true nor false");
        assert!(rewriter.row(&tuple[..9], &mut out).is_err());
        assert_eq!(out.len(), 22);
        // To its contract json is no text, but a value with other forms.
        assert!(Rewriter::new(&shape, vec![false, false, true]).is_none());
    }
}

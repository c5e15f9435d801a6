//! 操作标识: what a row of a front-end table does to the table that it lands in. An application leaves rows with a mark
//! of its own for added, changed and deleted; here and on the line there is one letter for each, in the last column of
//! the contract. Which row of a key counts, and whose flag is written back, is the provider's business.

use crate::batch::{Batch, Value};
use crate::manifest::Operations;
use crate::problem::{Code, Problem};
use crate::schema::{Contract, ContractType, Item};

/// What one row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    /// As it stands in the column.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Insert => "I",
            Self::Update => "U",
            Self::Delete => "D",
        }
    }
    pub fn of_letter(letter: &str) -> Option<Self> {
        match letter {
            "I" => Some(Self::Insert),
            "U" => Some(Self::Update),
            "D" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// The column that carries the letters.
pub const COLUMN: &str = "posthouse_operation";

pub fn item() -> Item {
    Item { name: COLUMN.to_owned(), r#type: ContractType::Text, nullable: false, comment: None }
}

/// The columns of what is landed in: the contract without the column of that name, which must be its last one and
/// none of its key.
pub fn landed(contract: &Contract, column: &str) -> Option<Contract> {
    let (last, items) = contract.items.split_last()?;
    let is_one = *last == Item { name: column.to_owned(), ..item() };
    (is_one && !contract.key.is_empty() && contract.key.iter().all(|key| key != column))
        .then(|| Contract { items: items.to_vec(), key: contract.key.clone() })
}

/// Counts what the rows of a batch do, by its last column.
pub fn count(batch: &Batch, operations: &mut Operations) -> Result<(), Problem> {
    let last = batch.columns().len().saturating_sub(1);
    for row in 0..batch.rows() {
        let operation = match batch.value(last, row) {
            Value::Text(letter) => Operation::of_letter(letter),
            _ => None,
        };
        let operation = operation.ok_or_else(|| {
            let cause = format!("a row says `{}` of what it does", batch.value(last, row));
            Problem::new(Code::Mismatch).with("peer", "the provider").cause(cause)
        })?;
        operations.add(operation);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    fn contract() -> Contract {
        let id = Item { name: "id".to_owned(), r#type: ContractType::Integer, nullable: false, comment: None };
        Contract { items: vec![id, item()], key: vec!["id".to_owned()] }
    }

    #[test]
    fn letters_are_counted_and_no_other_text_is_one() {
        let mut builder = BatchBuilder::new(&contract());
        for (id, letter) in [(1, "I"), (2, "U"), (3, "D"), (4, "D")] {
            builder.push(&[Value::Integer(id), Value::Text(letter)]).unwrap();
        }
        let batch = Batch::new(&contract(), builder.finish().unwrap()).unwrap();
        let mut operations = Operations::default();
        count(&batch, &mut operations).unwrap();
        assert_eq!(operations, Operations { inserts: 1, updates: 1, deletes: 2 });
        assert_eq!((operations.total(), operations.to_string().as_str()), (4, "I 1 U 1 D 2"));
        let mut builder = BatchBuilder::new(&contract());
        builder.push(&[Value::Integer(1), Value::Text("i")]).unwrap();
        let batch = Batch::new(&contract(), builder.finish().unwrap()).unwrap();
        assert_eq!(count(&batch, &mut operations).unwrap_err().code, Code::Mismatch);
    }

    #[test]
    fn only_the_last_column_says_what_a_row_does_and_it_is_none_of_the_key() {
        let landed_in = landed(&contract(), COLUMN).unwrap();
        assert_eq!((landed_in.items.len(), landed_in.key.len()), (1, 1));
        assert_eq!(landed(&contract(), "id"), None);
        let mut turned = contract();
        turned.items.reverse();
        assert_eq!(landed(&turned, COLUMN), None, "it stands first");
        assert_eq!(landed(&Contract { key: Vec::new(), ..contract() }, COLUMN), None, "nothing names a row");
        let mut keyed = contract();
        keyed.key.push(COLUMN.to_owned());
        assert_eq!(landed(&keyed, COLUMN), None);
    }
}

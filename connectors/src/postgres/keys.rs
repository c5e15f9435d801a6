//! Keys of rows that are refused before they are staged. To a mirror what stands with such a key is out of date, and not
//! gone. So the keys are kept in a table beside the staging table, in the transaction that stages the other rows of
//! their split. A row whose key nobody can read leaves a line without any: then the mirror deletes nothing.

use super::catalog::{TableName, quote, quoted};
use super::control::{self, Refused};
use super::place::{Fail, Place};
use super::sieve::{attempt, each};
use super::staging::Staging;
use super::transcode::Transcoder;
use super::wire::{Client, WireError};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::pgcopy::{Encoder, HEADER, NativeType, TRAILER};
use posthouse_protocol::schema::Contract;

/// The statement that makes the table, once the staging table stands.
pub(super) fn create(place: &Place) -> String {
    let key = quoted(place.landing.contract.key.iter().map(String::as_str));
    format!("CREATE TABLE {} AS SELECT {key} FROM {} WITH NO DATA", place.refused(), place.staging())
}

/// Whether it is known of all rows that were refused before they were staged what their keys are.
pub(super) fn are_known(client: &mut Client, place: &Place, staging: &Staging) -> Result<bool, WireError> {
    let unknown = match (&staging.keys, place.landing.contract.key.first()) {
        (Some(keys), Some(first)) => {
            let sql = format!("SELECT count(*) FROM {keys} s WHERE s.{} IS NULL", quote(first));
            control::count(client, &sql, &[])?
        }
        _ => control::refused_before(client, place)?,
    };
    Ok(unknown == 0)
}

/// Drops the keys that have no place in the target: nothing stands there with them. `converted` is an expression that fails
/// for them.
pub(super) fn drop_misplaced(client: &mut Client, keys: &TableName, converted: &str) -> Result<(), Fail> {
    let look = |client: &mut Client, condition: &str| {
        let sql = format!("SELECT {converted} FROM {keys} s WHERE {condition}");
        attempt(client, WireError::is_refusal, |client| Ok(client.query(&sql, &[]).map(|_| ())?))
    };
    if look(client, "true")?.is_ok() {
        return Ok(());
    }
    let rows = client.query(&format!("SELECT s.ctid FROM {keys} s"), &[])?;
    let places = rows.iter().map(|row| row.text(0).map(str::to_owned)).collect::<Result<Vec<String>, WireError>>()?;
    let mut left = vec![places];
    while let Some(mut places) = left.pop() {
        let condition = each(&places);
        if places.is_empty() || look(client, &condition)?.is_ok() {
            continue;
        }
        if places.len() == 1 {
            client.batch(&format!("DELETE FROM {keys} s WHERE {condition}"))?;
        } else {
            let second = places.split_off(places.len() / 2);
            left.extend([places, second]);
        }
    }
    Ok(())
}

/// The refused rows of one split, and what is kept of their keys.
pub(super) struct Refusals {
    rows: Vec<Refused>,
    /// None where no mirror asks for them.
    keys: Option<Keys>,
}

impl Refusals {
    pub(super) fn new(place: &Place, staging: &Staging) -> Self {
        Self { rows: Vec::new(), keys: Keys::new(place, staging) }
    }

    pub(super) fn add(&mut self, row: Refused, key: impl FnOnce(&mut Keys) -> Key) {
        self.rows.push(row);
        let Some(keys) = &mut self.keys else { return };
        match key(keys) {
            Key::Known(tuple) => keys.tuples.push(tuple),
            Key::Nowhere => {}
            Key::Unknown => keys.has_unknown = true,
        }
    }

    /// Keeps the keys, and gives the rows.
    pub(super) fn keep(self, client: &mut Client) -> Result<Vec<Refused>, Fail> {
        if let Some(keys) = self.keys {
            keys.keep(client)?;
        }
        Ok(self.rows)
    }
}

/// What can be said of a refused row's key.
pub(super) enum Key {
    /// As a tuple of the key's columns.
    Known(Vec<u8>),
    /// No row of the target can have it.
    Nowhere,
    Unknown,
}

pub(super) struct Keys {
    table: TableName,
    /// Where the key's columns lie in a staged row.
    at: Vec<usize>,
    /// Of the key's columns alone.
    contract: Contract,
    /// For rows that come as batches.
    encoder: Option<Encoder>,
    /// Where the database's texts are not UTF-8.
    transcoder: Option<Transcoder>,
    /// Whether the staging table has the source's types: what they refuse the target need not.
    is_native: bool,
    tuples: Vec<Vec<u8>>,
    has_unknown: bool,
}

impl Keys {
    fn new(place: &Place, staging: &Staging) -> Option<Self> {
        let table = staging.keys.clone()?;
        let whole = &place.landing.contract;
        let at = whole.key_positions();
        let items = at.iter().filter_map(|at| whole.items.get(*at).cloned()).collect();
        let contract = Contract { items, key: whole.key.clone() };
        // A column without a type of its own here is written as text.
        let native = |at: &usize| staging.columns.get(*at).and_then(|column| column.native.clone());
        let natives: Vec<NativeType> =
            at.iter().map(|at| native(at).unwrap_or(NativeType::Plain(Plain::Text))).collect();
        let encoder = Encoder::new(&contract, &natives).ok();
        let names = contract.items.iter().map(|item| item.name.as_str());
        let transcoder = Transcoder::new(staging.charset, names.zip(&natives));
        let is_native = place.natives.is_some();
        Some(Self { table, at, contract, encoder, transcoder, is_native, tuples: Vec::new(), has_unknown: false })
    }

    /// Of a tuple as it would be staged, in the database's charset.
    pub(super) fn of_copied(&self, tuple: &[u8]) -> Key {
        of_fields(tuple, &self.at)
    }

    /// The same where its texts are UTF-8.
    pub(super) fn of_tuple(&self, tuple: &[u8]) -> Key {
        self.encoded(of_fields(tuple, &self.at))
    }

    /// Of a row of a batch.
    pub(super) fn of_batch(&mut self, batch: &Batch, row: usize) -> Key {
        if self.at.iter().any(|at| batch.value(*at, row).is_null()) {
            return Key::Nowhere;
        }
        let Some(encoder) = &mut self.encoder else { return Key::Unknown };
        let Ok(record) = batch.record().slice(row, 1).project(&self.at) else { return Key::Unknown };
        let Ok(key) = Batch::new(&self.contract, record) else { return Key::Unknown };
        let mut tuple = Vec::new();
        match encoder.row(&key, 0, &mut tuple) {
            Ok(()) => self.encoded(Key::Known(tuple)),
            Err(_) if self.is_native => Key::Unknown,
            Err(_) => Key::Nowhere,
        }
    }

    /// A key in the database's charset. One with a character that this lacks is none of the table's.
    fn encoded(&self, key: Key) -> Key {
        let Some(transcoder) = &self.transcoder else { return key };
        match key {
            Key::Known(tuple) => {
                let mut encoded = Vec::new();
                match transcoder.encode(&tuple, &mut encoded) {
                    Ok(()) => Key::Known(encoded),
                    Err(_) => Key::Nowhere,
                }
            }
            other => other,
        }
    }

    fn keep(mut self, client: &mut Client) -> Result<(), Fail> {
        let columns = quoted(self.contract.items.iter().map(|item| item.name.as_str()));
        let sql = format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", self.table);
        let tuples = std::mem::take(&mut self.tuples);
        let mut left = vec![tuples.as_slice()];
        while let Some(tuples) = left.pop() {
            if tuples.is_empty() || copy(client, &sql, tuples)?.is_ok() {
                continue;
            }
            if tuples.len() > 1 {
                let (first, second) = tuples.split_at(tuples.len() / 2);
                left.extend([first, second]);
            } else {
                // Columns of the target's types refuse what the target does.
                self.has_unknown |= self.is_native;
            }
        }
        if self.has_unknown {
            copy(client, &sql, &[none(self.at.len())])?.map_err(Fail::Wire)?;
        }
        Ok(())
    }
}

fn copy(client: &mut Client, sql: &str, tuples: &[Vec<u8>]) -> Result<Result<u64, WireError>, Fail> {
    attempt(client, WireError::is_refusal_of_copied, |client| {
        let mut copy = client.copy_in(sql)?;
        copy.write(&HEADER)?;
        tuples.iter().try_for_each(|tuple| copy.write(tuple))?;
        copy.write(&TRAILER)?;
        Ok(copy.finish()?)
    })
}

/// Some fields of a tuple as a tuple.
fn of_fields(tuple: &[u8], at: &[usize]) -> Key {
    let Some((_, mut rest)) = tuple.split_first_chunk::<2>() else { return Key::Unknown };
    let mut fields = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        // Of NULL the length is negative.
        let (value, after) = match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => (None, after),
            Ok(length) => match after.split_at_checked(length) {
                Some((value, after)) => (Some(value), after),
                None => return Key::Unknown,
            },
        };
        fields.push((length, value));
        rest = after;
    }
    let mut key = (at.len() as u16).to_be_bytes().to_vec();
    for at in at {
        match fields.get(*at) {
            Some((length, Some(value))) => {
                key.extend_from_slice(*length);
                key.extend_from_slice(value);
            }
            Some((_, None)) => return Key::Nowhere,
            None => return Key::Unknown,
        }
    }
    Key::Known(key)
}

/// A tuple of nothing but NULL.
fn none(columns: usize) -> Vec<u8> {
    let mut tuple = (columns as u16).to_be_bytes().to_vec();
    (0..columns).for_each(|_| tuple.extend_from_slice(&(-1i32).to_be_bytes()));
    tuple
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_out_of_a_tuple_in_the_keys_order() {
        // Three fields: `ab`, NULL, `c`.
        let tuple = [0, 3, 0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255, 0, 0, 0, 1, b'c'];
        let key = |tuple: &[u8], at: &[usize]| match of_fields(tuple, at) {
            Key::Known(key) => Some(key),
            Key::Nowhere => Some(Vec::new()),
            Key::Unknown => None,
        };
        let expected = vec![0, 2, 0, 0, 0, 1, b'c', 0, 0, 0, 2, b'a', b'b'];
        assert_eq!(key(&tuple, &[2, 0]), Some(expected));
        assert_eq!(key(&tuple, &[0, 1]), Some(Vec::new()), "NULL is nobody's key");
        assert_eq!(key(&tuple, &[3]), None);
        assert_eq!(key(&tuple[..tuple.len() - 1], &[0]), None, "it is cut off");
        assert_eq!(none(2), [0, 2, 255, 255, 255, 255, 255, 255, 255, 255]);
    }
}

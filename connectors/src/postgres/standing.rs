//! Reads a standing table as the contract has it: its rows come by COPY, in the table's own types, and a value
//! that the contract cannot hold makes its row a bad row.

use super::catalog::{Relation, literal, quote};
use super::fields;
use super::place::{Fail, Place};
use super::transcode::{Incoming, Stream, Transcoder, holds_texts_within};
use super::wire::{Client, Copied};
use crate::{BadRow, Sink, types};
use posthouse_protocol::batch::{Batch, BatchBuilder, Column, Value};
use posthouse_protocol::number;
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::pgcopy::{Decoder, NativeType, Shape};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType};
use posthouse_protocol::watermark::Watermark;

/// How many rows there are, bad ones among them.
pub(super) fn read(
    client: &mut Client,
    place: &Place,
    target: &Relation,
    to: Option<&Watermark>,
    sink: &mut dyn Sink,
) -> Result<u64, Fail> {
    let wanted = &place.landing.contract;
    fields::check_drift(wanted, place.natives.as_deref(), target)?;
    let charset = client.charset();
    let (mut found, mut natives, mut select) = (wanted.clone(), Vec::new(), Vec::new());
    for item in &mut found.items {
        let native = target.column(&item.name).and_then(|column| column.native.clone());
        let native = native.filter(|native| charset.is_utf8() || !holds_texts_within(native));
        let cast = if native.is_some() { "" } else { "::pg_catalog.text" };
        select.push(format!("t.{}{cast}", quote(&item.name)));
        let native = native.unwrap_or(NativeType::Plain(Plain::Text));
        item.r#type = native.contract_type();
        natives.push(native);
    }
    let shape = Shape::new(&found, &natives)
        .map_err(|e| Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(e))?;
    let condition = match (&place.landing.watermark_column, to) {
        (Some(mark), Some(to)) => format!(" WHERE {}", up_to(target, mark, to)?),
        _ => String::new(),
    };
    let sql =
        format!("COPY (SELECT {} FROM {} t{condition}) TO STDOUT (FORMAT binary)", select.join(", "), target.name);
    let names = found.items.iter().map(|item| item.name.as_str());
    let (transcoder, mut coded) = (Transcoder::new(charset, names.zip(&natives)), Stream::default());
    let is_rendered = |name: &str| {
        let native = target.column(name).and_then(|column| column.native.as_ref());
        native.is_none_or(holds_texts_within)
    };
    let transcoder = transcoder.map(|transcoder| transcoder.rendered(is_rendered));
    let mut decoder = Decoder::new(&shape);
    let mut take = |decoded: Decoded| match decoded {
        Decoded::Batch(batch) if found == *wanted => sink.batch(batch),
        Decoded::Batch(batch) => convert(&Batch::new(&found, batch)?, wanted, sink),
        Decoded::Bad(bad) => {
            sink.bad_row(BadRow { key: format!("row {}", bad.row + 1), reason: bad.reason, original: bad.original })
        }
    };
    let mut copy = client.copy_out(&sql, None)?;
    let mut buffer = Vec::with_capacity(PIECE_BYTES);
    loop {
        buffer.clear();
        let copied = copy.fill(&mut buffer, PIECE_BYTES)?;
        match &transcoder {
            None => decoder.feed(&buffer, &mut take)?,
            Some(transcoder) => coded.feed(transcoder, &buffer, &mut |incoming| match incoming {
                Incoming::Bytes(bytes) => decoder.feed(bytes, &mut take),
                Incoming::Bad(row) => take(Decoded::Bad(row)),
            })?,
        }
        if matches!(copied, Copied::End(_)) {
            break;
        }
    }
    Ok(decoder.finish(&mut take)? + coded.bad)
}

/// Rows as the contract has them, where the table's columns are wider.
fn convert(batch: &Batch, wanted: &Contract, sink: &mut dyn Sink) -> Result<(), Problem> {
    let mut builder = BatchBuilder::new(wanted);
    for row in 0..batch.rows() {
        let texts: Vec<String> = (0..wanted.items.len()).map(|column| number_text(batch.value(column, row))).collect();
        let values = wanted.items.iter().enumerate().map(|(column, item)| {
            let value = unpadded(batch, column, row, item.r#type);
            exactly(value, item.r#type, texts.get(column).map_or("", String::as_str)).ok_or_else(|| {
                format!("the column `{}` holds what a {} does not", item.name, types::type_name(item.r#type))
            })
        });
        let pushed =
            values.collect::<Result<Vec<_>, _>>().and_then(|row| builder.push(&row).map_err(|e| e.to_string()));
        if let Err(reason) = pushed {
            sink.bad_row(BadRow { key: batch.key_text(row), reason, original: batch.json(row) })?;
        }
        if builder.is_full() {
            sink.batch(builder.finish()?)?;
        }
    }
    if builder.rows() > 0 {
        sink.batch(builder.finish()?)?;
    }
    Ok(())
}

/// A value of the table; what only fills a char up is no part of the text that it was landed as.
fn unpadded(batch: &Batch, column: usize, row: usize, wanted: ContractType) -> Value<'_> {
    match (batch.columns().get(column), batch.value(column, row)) {
        (Some(Column::Char(_)), Value::Text(text)) if wanted == ContractType::Text => {
            Value::Text(text.trim_end_matches(' '))
        }
        (_, value) => value,
    }
}

/// A number's digits; nothing for anything else.
fn number_text(value: Value<'_>) -> String {
    match value {
        Value::Integer(_) | Value::Decimal(..) | Value::Number(_) => {
            let text = value.to_string();
            number::canonical(&text).map_or_else(String::new, std::borrow::Cow::into_owned)
        }
        _ => String::new(),
    }
}

/// The same value as another type has it, or none.
fn exactly<'a>(value: Value<'a>, wanted: ContractType, text: &'a str) -> Option<Value<'a>> {
    Some(match (value, wanted) {
        (Value::Null, _) => Value::Null,
        (Value::Integer(_) | Value::Decimal(..) | Value::Number(_), wanted) => match wanted {
            ContractType::Integer => Value::Integer(text.parse().ok()?),
            ContractType::Decimal { precision, scale } => {
                Value::Decimal(types::parse_decimal(text, precision, scale)?, scale)
            }
            ContractType::Number => Value::Number(text),
            _ => return None,
        },
        (value, _) => value,
    })
}

/// Rows `t` up to a mark; those without one always belong to them.
fn up_to(target: &Relation, mark: &str, to: &Watermark) -> Result<String, Problem> {
    let name = format!("t.{}", quote(mark));
    let native = target.column(mark).and_then(|column| column.native.clone());
    let compare = match to {
        Watermark::Integer(number) => format!("{name} <= {number}"),
        Watermark::Text(text) => format!("{name}::pg_catalog.text COLLATE \"C\" <= {}", literal(text)),
        Watermark::Timestamp(us) => {
            let mut text = String::new();
            if !types::write_timestamp(*us, &mut text) {
                let problem = Problem::new(Code::DestinationFailed).with("target", target.name.to_string());
                return Err(problem.cause("its mark lies outside of the years that a time has here"));
            }
            match native {
                Some(NativeType::Plain(Plain::Timestamptz) | NativeType::Timed(Plain::Timestamptz, _)) => {
                    format!("{name} <= '{text}+00'::pg_catalog.timestamptz")
                }
                // A day counts as its first instant.
                _ => format!("{name} <= '{text}'::pg_catalog.timestamp"),
            }
        }
    };
    Ok(format!("({name} IS NULL OR {compare})"))
}

/// What is asked of the server at a time.
const PIECE_BYTES: usize = 1 << 20;

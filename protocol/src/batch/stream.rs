//! A split's bytes: its batches as an uncompressed Arrow IPC stream. The same batches give the same
//! bytes, and anyone's Arrow library reads them.
//! Reading takes nothing on trust: every declared length is compared with what is left before anything
//! is allocated, and arrays are built from parts that were checked, so that no stream makes it panic.

use super::{Batch, BatchError, arrow_schema, arrow_type};
use crate::limits::{SPLIT_META_BYTES_MAX, STREAM_BATCH_BYTES_MAX, STREAM_BATCH_ROWS_MAX};
use crate::schema::{Contract, ContractType};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, SchemaRef};
use arrow::ipc;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::io::{Read, Write};
use std::sync::Arc;

/// Writes the batches of one split.
pub struct BatchWriter<W: Write> {
    writer: StreamWriter<W>,
}

impl<W: Write> BatchWriter<W> {
    pub fn new(out: W, contract: &Contract) -> Result<Self, BatchError> {
        super::check_contract(contract)?;
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, ipc::MetadataVersion::V5)?;
        Ok(Self { writer: StreamWriter::try_new_with_options(out, &arrow_schema(contract), options)? })
    }
    pub fn write(&mut self, batch: &Batch) -> Result<(), BatchError> {
        Ok(self.writer.write(batch.record())?)
    }
    /// Ends the stream and gives the writer back.
    pub fn finish(mut self) -> Result<W, BatchError> {
        self.writer.finish()?;
        Ok(self.writer.into_inner()?)
    }
}

/// Reads the batches of one split, from a peer's bytes.
pub struct BatchReader<R: Read> {
    input: R,
    left: u64,
    contract: Contract,
    schema: SchemaRef,
    /// Where the batch before lay: used again where nothing of that is in use any more, since new memory comes from the
    /// system page by page and is zeroed before.
    body: Buffer,
    ended: bool,
}

impl<R: Read> BatchReader<R> {
    /// `total_bytes` is the length of the whole stream, as its entry stated it and the file has it.
    pub fn new(input: R, total_bytes: u64, contract: &Contract) -> Result<Self, BatchError> {
        super::check_contract(contract)?;
        let schema = arrow_schema(contract);
        let mut reader = Self {
            input,
            left: total_bytes,
            contract: contract.clone(),
            schema,
            body: Buffer::default(),
            ended: false,
        };
        let Some((meta, body)) = reader.message()? else {
            return wrong("it ends before its schema");
        };
        let message = ipc::root_as_message(&meta).map_err(|e| BatchError::Stream(e.to_string()))?;
        let Some(schema) = message.header_as_schema() else {
            return wrong("it does not begin with a schema");
        };
        if body != 0 {
            return wrong("its schema has a body");
        }
        check_schema(contract, schema)?;
        Ok(reader)
    }

    fn batch(&mut self) -> Result<Option<Batch>, BatchError> {
        let Some((meta, body_bytes)) = self.message()? else {
            return if self.left == 0 { Ok(None) } else { wrong("bytes follow its end") };
        };
        let message = ipc::root_as_message(&meta).map_err(|e| BatchError::Stream(e.to_string()))?;
        let Some(header) = message.header_as_record_batch() else {
            return wrong("it has a message that is no batch");
        };
        if header.compression().is_some() {
            return wrong("its batches are compressed");
        }
        let rows = match usize::try_from(header.length()) {
            Ok(rows) if rows <= STREAM_BATCH_ROWS_MAX => rows,
            _ => return wrong("a batch has too many rows"),
        };
        // The body's length was compared with what is left of the file, so these bytes exist.
        let mut body = match std::mem::take(&mut self.body).into_mutable() {
            Ok(free) if free.capacity() >= body_bytes => free,
            // The next one may be somewhat longer.
            _ => MutableBuffer::with_capacity(body_bytes + body_bytes / 8),
        };
        body.resize(body_bytes, 0);
        self.input.read_exact(body.as_slice_mut())?;
        self.left -= body_bytes as u64;
        self.body = body.into();
        let mut parts = Parts { header, body: self.body.clone(), rows, node: 0, buffer: 0 };
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.contract.items.len());
        for item in &self.contract.items {
            let array = parts.array(item.r#type).map_err(|e| match e {
                BatchError::Stream(what) => BatchError::Column { column: item.name.clone(), what },
                other => other,
            })?;
            if array.null_count() > 0 && !item.nullable {
                let what = "has a NULL where the contract allows none".to_owned();
                return Err(BatchError::Column { column: item.name.clone(), what });
            }
            arrays.push(array);
        }
        parts.finish()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let record = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        Batch::new(&self.contract, record).map(Some)
    }

    /// The next message's metadata and the length of its body, which is known to be there; none at the end mark.
    fn message(&mut self) -> Result<Option<(Vec<u8>, usize)>, BatchError> {
        let mut prefix = [0u8; 8];
        if self.left < prefix.len() as u64 {
            return wrong("it is cut off");
        }
        self.input.read_exact(&mut prefix)?;
        self.left -= prefix.len() as u64;
        let [a, b, c, d, e, f, g, h] = prefix;
        if [a, b, c, d] != CONTINUATION {
            return wrong("a message does not begin with its mark");
        }
        let meta_bytes = u32::from_le_bytes([e, f, g, h]);
        if meta_bytes == 0 {
            return Ok(None);
        }
        if meta_bytes as usize > SPLIT_META_BYTES_MAX || u64::from(meta_bytes) > self.left {
            return wrong("a message's head is longer than may be");
        }
        let mut meta = vec![0u8; meta_bytes as usize];
        self.input.read_exact(&mut meta)?;
        self.left -= u64::from(meta_bytes);
        let message = ipc::root_as_message(&meta).map_err(|e| BatchError::Stream(e.to_string()))?;
        if message.version() != ipc::MetadataVersion::V5 {
            return wrong("its metadata has another version");
        }
        match usize::try_from(message.bodyLength()) {
            Ok(body) if body > STREAM_BATCH_BYTES_MAX => wrong("a batch has too many bytes"),
            Ok(body) if body as u64 <= self.left => Ok(Some((meta, body))),
            _ => wrong("a message's body is longer than what is left"),
        }
    }
}

impl<R: Read> Iterator for BatchReader<R> {
    type Item = Result<Batch, BatchError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.batch().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Takes one batch apart, column by column.
struct Parts<'a> {
    header: ipc::RecordBatch<'a>,
    body: Buffer,
    rows: usize,
    node: usize,
    buffer: usize,
}

impl Parts<'_> {
    fn array(&mut self, r#type: ContractType) -> Result<ArrayRef, BatchError> {
        let nulls = self.nulls()?;
        Ok(match r#type {
            ContractType::Boolean => {
                let bits = self.bits()?;
                Arc::new(BooleanArray::new(bits, nulls))
            }
            ContractType::Integer => Arc::new(Int64Array::try_new(self.numbers()?, nulls)?),
            ContractType::Float => Arc::new(Float64Array::try_new(self.numbers()?, nulls)?),
            ContractType::Date => Arc::new(Date32Array::try_new(self.numbers()?, nulls)?),
            ContractType::Timestamp => {
                Arc::new(TimestampMicrosecondArray::try_new(self.numbers()?, nulls)?.with_timezone("UTC"))
            }
            ContractType::Decimal { .. } => {
                Arc::new(Decimal128Array::try_new(self.numbers()?, nulls)?.with_data_type(arrow_type(r#type)))
            }
            ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => {
                let (offsets, values) = self.offsets()?;
                Arc::new(StringArray::try_new(offsets, values, nulls)?)
            }
            ContractType::Bytes => {
                let (offsets, values) = self.offsets()?;
                Arc::new(BinaryArray::try_new(offsets, values, nulls)?)
            }
        })
    }
    fn finish(&self) -> Result<(), BatchError> {
        let nodes = self.header.nodes().map_or(0, |nodes| nodes.len());
        let buffers = self.header.buffers().map_or(0, |buffers| buffers.len());
        if nodes == self.node && buffers == self.buffer { Ok(()) } else { wrong("a batch has more columns") }
    }
    fn nulls(&mut self) -> Result<Option<NullBuffer>, BatchError> {
        let node = match self.header.nodes() {
            Some(nodes) if self.node < nodes.len() => *nodes.get(self.node),
            _ => return wrong("lacks its description"),
        };
        self.node += 1;
        if node.length() != self.rows as i64 {
            return wrong("has another number of rows than its batch");
        }
        let bitmap = self.next()?;
        if node.null_count() == 0 {
            return Ok(None);
        }
        if bitmap.len() < self.rows.div_ceil(8) {
            return wrong("has too few null marks");
        }
        let nulls = NullBuffer::new(BooleanBuffer::new(bitmap, 0, self.rows));
        if nulls.null_count() as i64 == node.null_count() { Ok(Some(nulls)) } else { wrong("miscounts its NULLs") }
    }
    fn bits(&mut self) -> Result<BooleanBuffer, BatchError> {
        let buffer = self.next()?;
        if buffer.len() < self.rows.div_ceil(8) {
            return wrong("has too few values");
        }
        Ok(BooleanBuffer::new(buffer, 0, self.rows))
    }
    fn numbers<T: ArrowNativeType>(&mut self) -> Result<ScalarBuffer<T>, BatchError> {
        let buffer = self.next()?;
        scalars(buffer, self.rows)
    }
    fn offsets(&mut self) -> Result<(OffsetBuffer<i32>, Buffer), BatchError> {
        let (offsets, values) = (self.next()?, self.next()?);
        if self.rows == 0 {
            return Ok((OffsetBuffer::new_empty(), values));
        }
        let offsets: ScalarBuffer<i32> = scalars(offsets, self.rows + 1)?;
        let mut before = 0;
        for offset in offsets.iter() {
            if *offset < before {
                return wrong("has lengths below zero");
            }
            before = *offset;
        }
        if before as usize > values.len() {
            return wrong("has fewer bytes than its lengths say");
        }
        Ok((OffsetBuffer::new(offsets), values))
    }
    fn next(&mut self) -> Result<Buffer, BatchError> {
        let place = match self.header.buffers() {
            Some(buffers) if self.buffer < buffers.len() => *buffers.get(self.buffer),
            _ => return wrong("lacks its values"),
        };
        self.buffer += 1;
        match (usize::try_from(place.offset()), usize::try_from(place.length())) {
            (Ok(from), Ok(bytes)) if from.checked_add(bytes).is_some_and(|to| to <= self.body.len()) => {
                Ok(self.body.slice_with_length(from, bytes))
            }
            _ => wrong("lies outside of its batch"),
        }
    }
}

fn scalars<T: ArrowNativeType>(buffer: Buffer, count: usize) -> Result<ScalarBuffer<T>, BatchError> {
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_none_or(|bytes| bytes > buffer.len()) {
        return wrong("has too few values");
    }
    if !buffer.as_ptr().addr().is_multiple_of(align_of::<T>()) {
        return wrong("is not aligned");
    }
    Ok(ScalarBuffer::new(buffer, 0, count))
}

fn check_schema(contract: &Contract, schema: ipc::Schema<'_>) -> Result<(), BatchError> {
    let fields = schema.fields();
    if schema.endianness() != ipc::Endianness::Little {
        return wrong("its numbers are not little-endian");
    }
    if fields.map_or(0, |fields| fields.len()) != contract.items.len() {
        return wrong("its schema has another number of columns than the contract");
    }
    for (item, field) in contract.items.iter().zip(fields.iter().flatten()) {
        if field.name() != Some(item.name.as_str())
            || field.nullable() != item.nullable
            || field.dictionary().is_some()
            || !same_type(item.r#type, field)
        {
            let what = "is not what the contract says of it".to_owned();
            return Err(BatchError::Column { column: item.name.clone(), what });
        }
    }
    Ok(())
}

fn same_type(r#type: ContractType, field: ipc::Field<'_>) -> bool {
    match r#type {
        ContractType::Boolean => field.type_as_bool().is_some(),
        ContractType::Integer => field.type_as_int().is_some_and(|int| int.bitWidth() == 64 && int.is_signed()),
        ContractType::Decimal { precision, scale } => field.type_as_decimal().is_some_and(|decimal| {
            decimal.bitWidth() == 128
                && decimal.precision() == i32::from(precision)
                && decimal.scale() == i32::from(scale)
        }),
        ContractType::Float => {
            field.type_as_floating_point().is_some_and(|float| float.precision() == ipc::Precision::DOUBLE)
        }
        ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => {
            field.type_as_utf_8().is_some()
        }
        ContractType::Bytes => field.type_as_binary().is_some(),
        ContractType::Date => field.type_as_date().is_some_and(|date| date.unit() == ipc::DateUnit::DAY),
        ContractType::Timestamp => field.type_as_timestamp().is_some_and(|timestamp| {
            timestamp.unit() == ipc::TimeUnit::MICROSECOND && timestamp.timezone() == Some("UTC")
        }),
    }
}

fn wrong<T>(what: &str) -> Result<T, BatchError> {
    Err(BatchError::Stream(what.to_owned()))
}

const CONTINUATION: [u8; 4] = [0xff; 4];
const ALIGNMENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Value};
    use super::*;
    use crate::schema::Item;

    #[test]
    fn a_split_reads_back_as_it_was_written_and_is_the_same_bytes_twice() {
        let bytes = sample();
        assert_eq!(bytes, sample());
        let batches: Vec<Batch> = read(&bytes).unwrap();
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].value(4, 0), Value::Text("𠮷田 䶮 㛃"));
        assert_eq!(batches[0].value(2, 0), Value::Decimal(-12_345, 2));
        assert!((0..11).all(|column| batches[0].value(column, 1).is_null() == (column != 1)));
        assert_eq!(batches[1].rows(), 1);
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_an_error_or_a_checked_batch_and_never_a_panic() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = read(&damaged);
            }
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_declared_body_larger_than_the_file_is_refused_before_it_is_read() {
        let bytes = sample();
        let contract = contract();
        // The reader is told of fewer bytes than the stream declares: the batch's body no longer fits.
        let first = BatchReader::new(bytes.as_slice(), 2_000, &contract);
        assert!(first.and_then(|mut reader| reader.next().unwrap_or(wrong("ended"))).is_err());
    }

    #[test]
    fn a_stream_of_another_contract_is_refused() {
        let bytes = sample();
        let mut other = contract();
        other.items[0].name = "another".to_owned();
        assert!(BatchReader::new(bytes.as_slice(), bytes.len() as u64, &other).is_err());
    }

    fn read(bytes: &[u8]) -> Result<Vec<Batch>, BatchError> {
        BatchReader::new(bytes, bytes.len() as u64, &contract())?.collect()
    }

    #[test]
    fn a_batch_in_use_keeps_its_memory_and_one_that_is_not_leaves_it_to_the_next() {
        let item = Item { name: "t".to_owned(), r#type: ContractType::Text, nullable: false, comment: None };
        let contract = Contract { items: vec![item], key: vec!["t".to_owned()] };
        let mut writer = BatchWriter::new(Vec::new(), &contract).unwrap();
        let mut builder = BatchBuilder::new(&contract);
        for rows in [2_000, 1] {
            (0..rows).for_each(|_| builder.push(&[Value::Text("解放路 1 号")]).unwrap());
            writer.write(&Batch::new(&contract, builder.finish().unwrap()).unwrap()).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let reader = || BatchReader::new(bytes.as_slice(), bytes.len() as u64, &contract).unwrap();
        let batches: Vec<Batch> = reader().map(Result::unwrap).collect();
        for is_kept in [true, false] {
            let mut reader = reader();
            let first = reader.next().unwrap().unwrap();
            let kept = is_kept.then(|| first.clone());
            drop(first);
            let second = reader.next().unwrap().unwrap();
            // A single row does not take room for two thousand by itself.
            assert_eq!(reader.body.capacity() > 10_000, !is_kept);
            assert!(second.record() == batches[1].record());
            assert!(kept.is_none_or(|kept| kept.record() == batches[0].record()));
        }
    }

    fn sample() -> Vec<u8> {
        let contract = contract();
        let mut writer = BatchWriter::new(Vec::new(), &contract).unwrap();
        let mut builder = BatchBuilder::new(&contract);
        let full = [
            Value::Boolean(true),
            Value::Integer(i64::MIN),
            Value::Decimal(-12_345, 2),
            Value::Float(f64::MAX),
            Value::Text("𠮷田 䶮 㛃"),
            Value::Text("ab "),
            Value::Bytes(&[0, 255]),
            Value::Date(-1),
            Value::Timestamp(i64::MAX),
            Value::Text("{}"),
            Value::Number("-Infinity"),
        ];
        let mut empty = [Value::Null; 11];
        empty[1] = Value::Integer(7);
        builder.push(&full).unwrap();
        builder.push(&empty).unwrap();
        writer.write(&Batch::new(&contract, builder.finish().unwrap()).unwrap()).unwrap();
        builder.push(&full).unwrap();
        writer.write(&Batch::new(&contract, builder.finish().unwrap()).unwrap()).unwrap();
        writer.finish().unwrap()
    }

    fn contract() -> Contract {
        let types = [
            ContractType::Boolean,
            ContractType::Integer,
            ContractType::Decimal { precision: 12, scale: 2 },
            ContractType::Float,
            ContractType::Text,
            ContractType::Char,
            ContractType::Bytes,
            ContractType::Date,
            ContractType::Timestamp,
            ContractType::Json,
            ContractType::Number,
        ];
        let item = |(index, r#type)| Item { name: format!("列{index}"), r#type, nullable: index != 1, comment: None };
        Contract { items: types.into_iter().enumerate().map(item).collect(), key: vec!["列1".to_owned()] }
    }
}

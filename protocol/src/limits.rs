//! Every bound in one place, with the relations between them checked when compiling.

/// Node names are DNS names.
pub const ID_BYTES_MAX: usize = 253;
pub const LABEL_BYTES_MAX: usize = 64;
/// One control frame on the line.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Nesting of CBOR items in anything a peer sends.
pub const NESTING_MAX: usize = 8;
/// A signed statement as bytes.
pub const STATEMENT_BYTES_MAX: usize = 16 << 10;
/// A signed policy as bytes.
pub const POLICY_BYTES_MAX: usize = 8 << 20;
pub const CHUNK_BYTES: u32 = 1 << 20;
/// Chunk size of files over [`LARGE_FILE_BYTES`].
pub const CHUNK_BYTES_LARGE: u32 = 4 << 20;
pub const LARGE_FILE_BYTES: u64 = 4 << 30;
/// Compressed form of a chunk may exceed it by this much at most.
pub const CHUNK_WIRE_OVERHEAD: u32 = 64 << 10;
/// Files or splits in one transfer.
pub const ENTRIES_MAX: u64 = 16 << 20;
/// Entries in one frame.
pub const ENTRIES_PER_FRAME_MAX: usize = 1024;
/// A file's name relative to its folder, in bytes, and one component of it.
pub const PATH_BYTES_MAX: usize = 4096;
pub const COMPONENT_BYTES_MAX: usize = 255;
pub const LINK_BYTES_MAX: usize = 4095;
/// Bytes in flight of one transfer.
pub const CREDIT_BYTES: u64 = 32 << 20;
/// Durable progress at least this often.
pub const PROGRESS_BYTES: u64 = 16 << 20;
pub const PROGRESS_MS: u64 = 200;
pub const DATA_CHANNELS: u8 = 2;
pub const DATA_CHANNELS_MAX: u8 = 8;
/// Connections that one pair of nodes holds.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Columns of a table and rows of a batch.
pub const COLUMNS_MAX: usize = 1600;
pub const BATCH_ROWS: usize = 8192;
/// Rows of a split, the unit of landing.
pub const SPLIT_ROWS: u64 = 65_536;
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// Buckets of a table's standing digest.
pub const BUCKETS: usize = 4096;
/// A row filter's text and depth.
pub const FILTER_BYTES_MAX: usize = 16 << 10;
pub const FILTER_DEPTH_MAX: usize = 32;
/// Statements in one submission to the centre, and what was left out listed in one statement.
pub const SUBMIT_MAX: usize = 32;
pub const LEFT_OUT_LISTED_MAX: usize = 32;
/// A peer that says nothing for this long is given up; the transfer then resumes over a new connection.
pub const IDLE_MS: u64 = 30_000;
pub const HANDSHAKE_MS: u64 = 5_000;
pub const CLOCK_SKEW_MS: i64 = 300_000;

const _: () = {
    assert!(STATEMENT_BYTES_MAX * SUBMIT_MAX <= FRAME_BYTES_MAX);
    assert!(CHUNK_BYTES.is_power_of_two() && CHUNK_BYTES_LARGE.is_power_of_two());
    assert!(CREDIT_BYTES >= 2 * (CHUNK_BYTES_LARGE + CHUNK_WIRE_OVERHEAD) as u64);
    // After one kill at most what was in flight and what was not yet recorded is sent again.
    assert!(CREDIT_BYTES + PROGRESS_BYTES <= 48 << 20);
    assert!(BATCH_ROWS as u64 <= SPLIT_ROWS);
};

//! QUIC (quinn): one connection, a channel is a bidirectional stream.

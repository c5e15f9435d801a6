//! TLS 1.3 over TCP: one control connection, and one more for each channel.

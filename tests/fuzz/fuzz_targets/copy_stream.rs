//! Feeds arbitrary bytes to the parser `copy_stream`; what is called stands in `targets.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::copy_stream(data));

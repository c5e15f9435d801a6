//! Feeds arbitrary bytes to the parser `node_config`; what is called stands in `targets.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::node_config(data));

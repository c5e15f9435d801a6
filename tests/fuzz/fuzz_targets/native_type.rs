//! Feeds arbitrary bytes to the parser `native_type`; what is called stands in `targets.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::native_type(data));

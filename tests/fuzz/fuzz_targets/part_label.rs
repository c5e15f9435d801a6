//! Feeds arbitrary bytes to the parser `part_label`; what is called stands in `targets.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| posthouse_fuzz::part_label(data));

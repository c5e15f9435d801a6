//! The corpora of the fuzz targets as ordinary tests: every parser takes every input of its corpus, cut
//! anywhere and with any bit flipped, without a panic; what it accepts means itself.

#[path = "../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "the fuzzing programs reach it")]
mod targets;

use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

/// Inputs up to this length are flipped bit by bit.
const FLIPPED_BYTES_MAX: usize = 2_048;

#[test]
fn every_parser_takes_its_corpus_cut_and_flipped_without_a_panic() {
    for (name, target) in TARGETS {
        let corpus = inputs(name);
        assert!(corpus.len() >= 3, "corpus/{name} holds {} inputs", corpus.len());
        for path in corpus {
            let bytes = std::fs::read(&path).expect("an input");
            let done = std::panic::catch_unwind(|| mangle(&bytes, *target));
            assert!(done.is_ok(), "{name} on {}", path.display());
        }
    }
}

#[test]
fn every_target_has_its_fuzzing_program_and_every_corpus_its_target() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("its Cargo.toml");
    for (name, _) in TARGETS {
        let program = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).expect(name);
        assert!(program.contains(&format!("posthouse_fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in Cargo.toml");
    }
    for entry in std::fs::read_dir(fuzz().join("corpus")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?} belongs to no target");
    }
}

fn mangle(bytes: &[u8], target: Target) {
    target(bytes);
    for length in 0..bytes.len().min(FLIPPED_BYTES_MAX) {
        target(&bytes[..length]);
    }
    if bytes.len() <= FLIPPED_BYTES_MAX {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            target(&flipped);
        }
    }
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect(name).map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

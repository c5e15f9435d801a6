//! zstd with contexts that are used again. A new one for each chunk takes and clears a mebibyte of memory or two, which
//! is a good part of what packing a chunk costs, and nearly all of it where what is packed are the few steps of a delta.
//! Nothing of one content goes over into the next: what comes out is what a new context gives.

use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};

static COMPRESSORS: Kept<Compressor<'static>> = Kept::new();
static DECOMPRESSORS: Kept<Decompressor<'static>> = Kept::new();

/// One zstd frame.
pub(crate) fn compress(content: &[u8], level: i32) -> Option<Vec<u8>> {
    COMPRESSORS.with(
        || Compressor::new(level).ok(),
        |context| {
            context.set_compression_level(level).ok()?;
            context.compress(content).ok()
        },
    )
}

/// How many bytes `packed` has put into `content`; none where it is no frame, or has more.
pub(crate) fn decompress_into(packed: &[u8], content: &mut [u8]) -> Option<usize> {
    DECOMPRESSORS.with(|| Decompressor::new().ok(), |context| context.decompress_to_buffer(packed, content).ok())
}

/// What is in `packed`, `most` bytes at most.
pub(crate) fn decompress(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    DECOMPRESSORS.with(|| Decompressor::new().ok(), |context| context.decompress(packed, most).ok())
}

/// Contexts that nobody uses just now.
struct Kept<C>(Mutex<Vec<C>>);

impl<C> Kept<C> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One that has failed is not used again.
    fn with<T>(&self, make: impl FnOnce() -> Option<C>, work: impl FnOnce(&mut C) -> Option<T>) -> Option<T> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = kept.or_else(make)?;
        let result = work(&mut context)?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(context);
        }
        Some(result)
    }
}

/// As many threads of a session pack or unpack at once; each context takes up to a few mebibytes.
const KEPT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn text(lines: u32, seed: u32) -> Vec<u8> {
        (0..lines).flat_map(|line| format!("{},{},门牌 {}\n", line, line * seed % 977, seed).into_bytes()).collect()
    }

    #[test]
    fn what_a_used_context_makes_is_what_a_new_one_makes() {
        let packs = |seed: u32| {
            for round in 0..20 {
                let content = text(seed * 900 + round * 137 + 1, seed + round);
                let level = [1, 3][(round % 2) as usize];
                let packed = compress(&content, level).unwrap();
                assert_eq!(packed, zstd::bulk::compress(&content, level).unwrap());
                let mut out = vec![0; content.len()];
                assert_eq!(decompress_into(&packed, &mut out), Some(content.len()));
                assert!(out == content);
                assert!(decompress(&packed, content.len()).unwrap() == content);
            }
        };
        thread::scope(|scope| (1..=6).for_each(|seed| drop(scope.spawn(move || packs(seed)))));
    }

    #[test]
    fn a_context_that_failed_is_not_used_again() {
        let kept: Kept<u32> = Kept::new();
        let with = |made: u32, fails: bool| kept.with(|| Some(made), |used| (!fails).then_some(*used));
        assert_eq!(with(1, false), Some(1));
        assert_eq!(with(2, false), Some(1), "it was there");
        assert_eq!(with(3, true), None);
        assert_eq!(with(4, false), Some(4), "the first one failed");
        let (content, mut room) = (text(1000, 5), [0; 10]);
        let packed = compress(&content, 1).unwrap();
        assert_eq!(decompress_into(&packed, &mut room), None, "there is no room for it");
        assert_eq!((decompress(&packed, 10), decompress(b"no frame", 10)), (None, None));
        assert!(decompress(&packed, content.len()).unwrap() == content);
    }

    #[test]
    fn no_more_are_kept_than_are_used_at_once() {
        let kept: Kept<u32> = Kept::new();
        fn nested(kept: &Kept<u32>, depth: u32) -> Option<()> {
            kept.with(|| Some(depth), |_| if depth == 0 { Some(()) } else { nested(kept, depth - 1) })
        }
        assert_eq!(nested(&kept, 20), Some(()));
        assert_eq!(kept.0.lock().unwrap().len(), KEPT_MAX);
    }
}

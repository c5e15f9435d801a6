//! The whole exchange under turmoil: a coordinator and two nodes in one process, on simulated machines, lines
//! and clocks. A seed decides what is lost, cut and crashed and when; afterwards the oracle compares what
//! landed with what was there, and what the centre holds with both. A failing seed is run alone, with its log,
//! by `SEED=7 cargo test --test sim`, every event of its trace with `POSTHOUSE_LOG=off,trace=trace` too; `SEEDS=100`
//! runs that many.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end it where they fail")]

mod drive;
mod faults;
mod machines;
mod oracle;
mod sources;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Two runs of one seed beside each other in one process do not give the same trace.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn whatever_is_lost_cut_or_crashed_everything_receipted_is_there_and_nothing_else() {
    if let Some(seed) = number("SEED") {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = std::env::var("POSTHOUSE_LOG").unwrap_or_else(|_| "info,turmoil=warn".to_owned());
        let _ = tracing_subscriber::fmt().without_time().with_env_filter(filter).with_test_writer().try_init();
        println!("seed {seed}: {:?}", drive::run(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(if std::env::var_os("POSTHOUSE_LONG").is_some() { 100 } else { 20 });
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    // Named before it runs: a seed that fails is the last one of its thread.
                    println!("seed {seed}");
                    let done = drive::run(seed);
                    println!("seed {seed}: {done:?}");
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = number("SEED").unwrap_or(3);
    let (first, second) = (drive::run(seed), drive::run(seed));
    assert_eq!(first, second);
    assert_ne!(first.trace, drive::run(seed + 1).trace);
    println!("seed {seed}: trace {}", first.trace);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

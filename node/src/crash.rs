//! Named points at which a test makes the process end as a kill would, with nothing run afterwards.
//! `POSTHOUSE_CRASH=NAME` ends it at the first pass of that point, `NAME:3` at the third. Without the
//! variable a point costs one comparison.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A durable step has been taken, or is about to be.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::pass($name)
    };
}

struct Point {
    name: String,
    at: u64,
    passed: AtomicU64,
}

#[expect(clippy::print_stderr, reason = "the process ends here; a log might not be written any more")]
pub fn pass(name: &str) {
    static POINT: OnceLock<Option<Point>> = OnceLock::new();
    let Some(point) = POINT.get_or_init(wanted) else { return };
    if point.name == name && point.passed.fetch_add(1, Ordering::Relaxed) + 1 == point.at {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}

fn wanted() -> Option<Point> {
    let wanted = std::env::var("POSTHOUSE_CRASH").ok()?;
    let (name, at) = match wanted.rsplit_once(':') {
        Some((name, at)) => (name.to_owned(), at.parse().ok()?),
        None => (wanted, 1),
    };
    Some(Point { name, at, passed: AtomicU64::new(0) })
}

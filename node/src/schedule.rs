//! When jobs run: cron in a time zone, "every 30s", or by hand. A run that is due while the previous one is
//! under way is left out or queued (`overlap`); runs missed while the node was off are made up once (`missed`).
//! Due times are remembered in the store before the run starts, so that a restart repeats none.

mod clock;
pub use clock::{Cron, zone};

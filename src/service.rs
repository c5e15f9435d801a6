//! What running roles share: the log, the signals of the operating system, and a word to systemd when the
//! role is ready, alive and stopping. `POSTHOUSE_LOG` takes a filter such as `debug` or
//! `posthouse_node=debug,info`; without it, `info`. Elsewhere than under systemd its words go nowhere.

use posthouse_protocol::problem::{Code, Problem};
use sd_notify::NotifyState;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Sends the log to stderr, from now to the end of the process. The journal adds the time itself.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_env("POSTHOUSE_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second call in one process (the demo) keeps the first log.
    let _ =
        if std::env::var_os("JOURNAL_STREAM").is_some() { lines.without_time().try_init() } else { lines.try_init() };
}

/// The driver for SQL Server logs what a server says of a row it refuses, values and all: that is ours to tell.
const FILTER: &str = "info,refinery_core=warn,tiberius=off";

/// Tells systemd that the service is ready; elsewhere nothing happens.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that the service drains.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Returns at SIGTERM or SIGINT, and tells systemd that the service drains.
pub(crate) async fn until_stopped() -> Result<(), Problem> {
    let mut signals = Signals::listen()?;
    while signals.next().await != Asked::Stop {}
    stopping();
    Ok(())
}

/// Tells systemd's watchdog that the process lives, as often as it wants to hear it; never returns.
pub(crate) async fn watchdog() {
    let Some(every) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep((every / 3).max(Duration::from_millis(100))).await;
    }
}

/// What the operating system asks for, from the moment of listening.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Stop,
    Reload,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Problem> {
        let open = |kind| signal(kind).map_err(|e| Problem::new(Code::InsideFailed).cause(e));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "Failed to tell systemd how the service is");
    }
}

//! What the outside world gives: the real one, and a simulated one behind the same traits.
//!
//! [`World`] bundles clock, randomness, disk, blocking work and network. Everything above this crate
//! reaches them only through it, so that one seed replays a whole exchange.
//! - [`clock`], [`random`], [`disk`], [`blocking`], [`network`]: the seams.
//! - `congestion`, `paced`: how fast a QUIC connection sends, and the socket that keeps to it.
//! - [`endpoint`]: accept and dial authenticated connections over [`quic`] or [`tls_tcp`].
//! - [`identity`]: keys, certificates, the private CA, the pinned trust of a node.
//! - [`frames`]: whole frames on a channel. [`settings`]: configuration files.
//! - [`https`]: TLS for people and scripts.
//! - [`admin_socket`]: one question and its answers over a Unix socket.
//! - [`simulated`] (feature `simulation`): the same world under turmoil.
//!
//! Deliberately absent: what is said on a connection (protocol) and what it means (node, coordinator).

pub mod admin_socket;
pub mod blocking;
pub mod clock;
mod congestion;
pub mod disk;
pub mod endpoint;
pub mod frames;
mod gather;
pub mod https;
pub mod identity;
pub mod local;
pub mod network;
pub mod pace;
mod paced;
pub mod quic;
pub mod random;
pub mod settings;
#[cfg(feature = "simulation")]
pub mod simulated;
pub mod tls_tcp;

use std::sync::Arc;

/// Everything from outside. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn clock::Clock>,
    pub random: Arc<dyn random::Random>,
    pub disk: Arc<dyn disk::Disk>,
    pub blocking: Arc<dyn blocking::Blocking>,
    pub network: Arc<dyn network::Network>,
}

impl World {
    /// The real one.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(clock::SystemClock::new()),
            random: Arc::new(random::SystemRandom),
            disk: Arc::new(disk::RealDisk),
            blocking: Arc::new(blocking::Threads),
            network: Arc::new(network::SystemNetwork),
        }
    }
}

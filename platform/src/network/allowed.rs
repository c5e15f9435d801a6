//! What the system lets sockets have. It gives less than was asked for without a word, so a socket is asked back; what it
//! says of itself under /proc is read where that can be read. Nothing is changed by looking.

use super::{BBR, UDP_BUFFER_BYTES, enlarge};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// None of something: the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Bytes that wait at a UDP socket, as they come and as they go; [`Self::UDP_BYTES`] of each are asked for.
    pub udp_receive_bytes: Option<u64>,
    pub udp_send_bytes: Option<u64>,
    /// Whether a program without privileges may have BBR over TCP.
    pub bbr: Option<bool>,
    /// How long the buffers of a TCP stream become by themselves, with what the system needs beside the content.
    pub tcp_receive_bytes: Option<u64>,
    pub tcp_send_bytes: Option<u64>,
}

impl Allowed {
    pub const UDP_BYTES: u64 = UDP_BUFFER_BYTES as u64;

    pub(super) fn look() -> Self {
        let udp = udp().ok();
        Self {
            udp_receive_bytes: udp.map(|(receive, _)| receive),
            udp_send_bytes: udp.map(|(_, send)| send),
            bbr: bbr(),
            tcp_receive_bytes: longest("tcp_rmem"),
            tcp_send_bytes: longest("tcp_wmem"),
        }
    }
}

/// What a socket has once it was asked for more.
fn udp() -> io::Result<(u64, u64)> {
    let socket = socket(SocketType::DGRAM, ipproto::UDP)?;
    enlarge(&socket);
    // Linux doubles what it grants, for what it needs beside the content, and tells of all of it.
    let granted = |bytes: usize| (bytes / 2) as u64;
    let (receive, send) = (sockopt::socket_recv_buffer_size(&socket)?, sockopt::socket_send_buffer_size(&socket)?);
    Ok((granted(receive), granted(send)))
}

fn bbr() -> Option<bool> {
    // Asked for by an administrator the system would load it, and what an administrator may, the node may not.
    if let Some(allowed) = said("tcp_allowed_congestion_control") {
        return Some(allowed.split_whitespace().any(|name| name == BBR));
    }
    // The service sees no /proc/sys under a newer systemd, and has no privileges either.
    let socket = socket(SocketType::STREAM, ipproto::TCP).ok()?;
    Some(sockopt::set_tcp_congestion(&socket, BBR).is_ok())
}

/// The last of the three lengths of a setting.
fn longest(name: &str) -> Option<u64> {
    said(name)?.split_whitespace().nth(2)?.parse().ok()
}

fn said(name: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name)).ok()
}

fn socket(kind: SocketType, protocol: Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(protocol))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_socket_is_told_of_as_the_system_bounds_it() {
        let allowed = Allowed::look();
        for (setting, told) in [("rmem_max", allowed.udp_receive_bytes), ("wmem_max", allowed.udp_send_bytes)] {
            let told = told.unwrap();
            // A namespace of its own shows no such file, and is bound by it all the same.
            if let Ok(most) = std::fs::read_to_string(Path::new("/proc/sys/net/core").join(setting)) {
                assert_eq!(told, most.trim().parse::<u64>().unwrap().min(Allowed::UDP_BYTES), "{setting}");
            }
            assert!((1..=Allowed::UDP_BYTES).contains(&told), "{setting} {told}");
        }
        assert!(allowed.bbr.is_some());
        for (setting, told) in [("tcp_rmem", allowed.tcp_receive_bytes), ("tcp_wmem", allowed.tcp_send_bytes)] {
            if let Some(three) = said(setting) {
                assert_eq!(
                    three.trim().rsplit(char::is_whitespace).next().unwrap().parse::<u64>().ok(),
                    told,
                    "{setting}"
                );
            }
        }
    }

    #[test]
    fn the_settings_that_are_shipped_grant_what_is_asked_for() {
        let text = include_str!("../../../packaging/sysctl.d/posthouse.conf");
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let settings: BTreeMap<&str, Vec<u64>> = lines
            .map(|line| {
                let (name, lengths) = line.split_once(" = ").unwrap();
                (name, lengths.split(' ').map(|length| length.parse().unwrap()).collect())
            })
            .collect();
        for name in ["net.core.rmem_max", "net.core.wmem_max"] {
            assert_eq!(settings[name], [Allowed::UDP_BYTES], "{name}");
        }
        for name in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
            let lengths = &settings[name];
            assert!(lengths.len() == 3 && lengths.is_sorted() && lengths[2] >= 4 << 20, "{name} {lengths:?}");
        }
        assert_eq!(settings.len(), 4);
    }
}

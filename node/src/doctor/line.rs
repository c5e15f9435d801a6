//! What of this machine's settings holds lines back. Each is a note: lines work without, and within a site as well.
//! Deliberately absent: how fast a line is, which a transfer shows.

use posthouse_connectors::examine::{Finding, Grade, Topic};
use posthouse_platform::endpoint::TransportChoice;
use posthouse_platform::network::Allowed;
use posthouse_platform::settings::Size;

/// Findings on what the transports in use would need of the system. What it does not say is no finding.
pub fn line(choice: TransportChoice, allowed: &Allowed) -> Vec<Finding> {
    let mut found = Vec::new();
    if choice != TransportChoice::Tcp {
        found.extend(allowed.udp_receive_bytes.map(|bytes| udp("net.core.rmem_max", bytes)));
        found.extend(allowed.udp_send_bytes.map(|bytes| udp("net.core.wmem_max", bytes)));
    }
    if choice != TransportChoice::Quic {
        found.extend(allowed.bbr.map(bbr));
        found.extend(allowed.tcp_receive_bytes.map(|bytes| tcp("net.ipv4.tcp_rmem", bytes, "4096 131072")));
        found.extend(allowed.tcp_send_bytes.map(|bytes| tcp("net.ipv4.tcp_wmem", bytes, "4096 16384")));
    }
    found
}

/// Says what holds lines back, at a node's start.
pub(crate) fn tell(choice: TransportChoice, allowed: &Allowed) {
    for Finding { object, en, .. } in line(choice, allowed).iter().filter(|finding| finding.grade == Grade::Note) {
        tracing::info!(setting = %object, "Long lines are held back: {en}. posthouse doctor says what to do");
    }
}

fn udp(setting: &str, bytes: u64) -> Finding {
    let (has, wanted) = (Size(bytes), Size(Allowed::UDP_BYTES));
    if bytes >= Allowed::UDP_BYTES {
        let (en, zh) = (format!("{has} for UDP"), format!("UDP 缓冲区 {has}"));
        return Finding::new(Topic::Settings, Grade::Well, setting, en, zh);
    }
    let (en, zh) = (
        format!("UDP has {has} of the {wanted} that are asked for; what comes in a busy moment beyond that is lost"),
        format!("UDP 申请 {wanted} 缓冲区，只得到 {has}；繁忙片刻超出部分会丢失"),
    );
    Finding::new(Topic::Settings, Grade::Note, setting, en, zh)
        .fix(format!("sysctl -w {setting}={}", Allowed::UDP_BYTES))
}

fn bbr(is_allowed: bool) -> Finding {
    let setting = "net.ipv4.tcp_allowed_congestion_control";
    if is_allowed {
        let (en, zh) = ("TCP may use BBR", "TCP 可使用 BBR");
        return Finding::new(Topic::Settings, Grade::Well, setting, en, zh);
    }
    let en = "TCP may not use BBR (Linux 4.9 and later have it); a long line that loses packets is slow over TCP";
    let zh = "TCP 不能使用 BBR（Linux 4.9 起提供）；会丢包的长距离线路走 TCP 时较慢";
    // Loaded, it is allowed to all, unless an administrator has written a list without it.
    let fix = format!("modprobe tcp_bbr; sysctl -w {setting}=\"$(sysctl -n {setting}) bbr\"");
    Finding::new(Topic::Settings, Grade::Note, setting, en, zh).fix(fix)
}

/// `first` are the least and the usual length, as systems have them.
fn tcp(setting: &str, bytes: u64, first: &str) -> Finding {
    let has = Size(bytes);
    if bytes >= TCP_BYTES {
        let (en, zh) = (format!("up to {has} for a TCP stream"), format!("每条 TCP 流至多 {has}"));
        return Finding::new(Topic::Settings, Grade::Well, setting, en, zh);
    }
    let (en, zh) = (
        format!("a TCP stream has at most {has}; a long line takes more than that in a round trip"),
        format!("每条 TCP 流至多 {has}；长距离线路一个往返的数据量更大"),
    );
    let fix = format!("sysctl -w {setting}='{first} {TCP_RAISED_BYTES}'");
    Finding::new(Topic::Settings, Grade::Note, setting, en, zh).fix(fix)
}

/// What Linux gives where there is memory enough, and what the channels of a long line are counted by.
const TCP_BYTES: u64 = 4 << 20;
/// As packaging/sysctl.d has it.
const TCP_RAISED_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Allowed = Allowed {
        udp_receive_bytes: Some(Allowed::UDP_BYTES),
        udp_send_bytes: Some(Allowed::UDP_BYTES + 1),
        bbr: Some(true),
        tcp_receive_bytes: Some(6 << 20),
        tcp_send_bytes: Some(4 << 20),
    };

    /// Settings that are noted, and what mends them.
    fn noted(choice: TransportChoice, allowed: &Allowed) -> Vec<(String, String)> {
        let found = line(choice, allowed);
        assert!(found.iter().all(|finding| finding.grade != Grade::Wrong), "{found:?}");
        found.into_iter().filter_map(|finding| Some((finding.object, finding.fix?))).collect()
    }

    #[test]
    fn what_the_system_grants_is_well_and_what_it_does_not_say_is_nothing() {
        let found = line(TransportChoice::Auto, &ROOMY);
        assert_eq!(found.iter().map(|finding| finding.grade).collect::<Vec<_>>(), [Grade::Well; 5]);
        let silent = Allowed {
            udp_receive_bytes: None,
            udp_send_bytes: None,
            bbr: None,
            tcp_receive_bytes: None,
            tcp_send_bytes: None,
        };
        assert!(line(TransportChoice::Auto, &silent).is_empty());
    }

    #[test]
    fn each_that_is_short_is_noted_with_what_mends_it_where_its_transport_is_used() {
        let short = Allowed {
            udp_receive_bytes: Some(212_992),
            udp_send_bytes: Some(Allowed::UDP_BYTES - 1),
            bbr: Some(false),
            tcp_receive_bytes: Some((4 << 20) - 1),
            tcp_send_bytes: Some(1 << 20),
        };
        let own = |setting: &str, fix: &str| (setting.to_owned(), fix.to_owned());
        let udp = [
            own("net.core.rmem_max", "sysctl -w net.core.rmem_max=4194304"),
            own("net.core.wmem_max", "sysctl -w net.core.wmem_max=4194304"),
        ];
        let list = "net.ipv4.tcp_allowed_congestion_control";
        let tcp = [
            own(list, &format!("modprobe tcp_bbr; sysctl -w {list}=\"$(sysctl -n {list}) bbr\"")),
            own("net.ipv4.tcp_rmem", "sysctl -w net.ipv4.tcp_rmem='4096 131072 16777216'"),
            own("net.ipv4.tcp_wmem", "sysctl -w net.ipv4.tcp_wmem='4096 16384 16777216'"),
        ];
        assert_eq!(noted(TransportChoice::Auto, &short), [&udp[..], &tcp[..]].concat());
        assert_eq!(noted(TransportChoice::Quic, &short), udp);
        assert_eq!(noted(TransportChoice::Tcp, &short), tcp);
        let one = Allowed { udp_receive_bytes: Some(212_992), ..ROOMY };
        assert_eq!(noted(TransportChoice::Auto, &one), udp[..1]);
        assert!(line(TransportChoice::Quic, &one)[0].en.starts_with("UDP has 208 KiB of the 4 MiB "), "{one:?}");
    }

    #[test]
    fn what_mends_tcp_is_what_is_shipped() {
        let shipped = include_str!("../../../packaging/sysctl.d/posthouse.conf");
        for (setting, first) in [("net.ipv4.tcp_rmem", "4096 131072"), ("net.ipv4.tcp_wmem", "4096 16384")] {
            let line = format!("{setting} = {first} {TCP_RAISED_BYTES}");
            assert!(shipped.lines().any(|shipped| shipped == line), "{line}");
        }
    }
}

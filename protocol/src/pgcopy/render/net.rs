//! Addresses of networks and of network cards.

use crate::pgcopy::Fault;
use std::fmt::Write as _;

/// Whether the bits of the network are written behind an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    Always,
    WhereNeeded,
    /// Always, and it has to be a network.
    Cidr,
}

pub(super) fn inet(value: &[u8], mask: Mask, out: &mut String) -> Result<(), Fault> {
    let [family, bits, cidr, length, address @ ..] = value else { return Err("is shorter than its type".into()) };
    let most = match (family, address.len()) {
        (2, 4) => 32,
        (3, 16) => 128,
        _ => return Err("is an address of an unknown family".into()),
    };
    if usize::from(*length) != address.len() || *bits > most || *cidr > 1 || (*cidr == 1) != (mask == Mask::Cidr) {
        return Err("is no address of its type".into());
    }
    match address {
        [a, b, c, d] => {
            let _ = write!(out, "{a}.{b}.{c}.{d}");
        }
        _ => v6(address, out),
    }
    if mask != Mask::WhereNeeded || *bits != most {
        let _ = write!(out, "/{bits}");
    }
    Ok(())
}

/// The longest run of zero words is left out, the first of two of the same length.
fn v6(address: &[u8], out: &mut String) {
    let words: Vec<u16> = address.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let (mut best, mut run) = ((0, 1), (0, 0));
    for (index, word) in words.iter().enumerate() {
        run = match (*word, run) {
            (0, (_, 0)) => (index, 1),
            (0, (start, length)) => (start, length + 1),
            _ => (0, 0),
        };
        if run.1 > best.1 {
            best = run;
        }
    }
    let (start, length) = if best.1 > 1 { best } else { (words.len(), 0) };
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    // An address of the older family stands in the last four bytes.
    let embedded = start == 0 && (length == 6 || (length == 7 && word(7) != 1) || (length == 5 && word(5) == 0xffff));
    for index in 0..words.len() {
        if (start..start + length).contains(&index) {
            if index == start {
                out.push(':');
            }
            continue;
        }
        if index > 0 {
            out.push(':');
        }
        if index == 6 && embedded {
            if let Some([a, b, c, d]) = address.last_chunk::<4>() {
                let _ = write!(out, "{a}.{b}.{c}.{d}");
            }
            return;
        }
        let _ = write!(out, "{:x}", word(index));
    }
    if length > 0 && start + length == words.len() {
        out.push(':');
    }
}

pub(super) fn mac(address: &[u8], out: &mut String) {
    for (index, byte) in address.iter().enumerate() {
        let _ = write!(out, "{}{byte:02x}", if index == 0 { "" } else { ":" });
    }
}

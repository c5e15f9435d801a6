//! What goes wrong, when: drawn from the seed before the run, and undone before its end.

use crate::machines::{CENTRE, CONSUMER, PROVIDER};
use posthouse_platform::simulated::turmoil::Sim;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between these moments of virtual time things go wrong.
pub(crate) const BEGIN: Duration = Duration::from_secs(20);
pub(crate) const END: Duration = Duration::from_secs(110);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Crash(&'static str),
    Start(&'static str),
    Cut(&'static str, &'static str),
    Mend(&'static str, &'static str),
    /// Datagrams lost, in thousandths.
    Loss(u32),
}

/// Faults in the order of their moments.
pub(crate) struct Plan {
    at: BTreeMap<(Duration, usize), Fault>,
    down: BTreeMap<&'static str, u32>,
    cut: BTreeMap<(&'static str, &'static str), u32>,
}

impl Plan {
    /// `loss`: whether datagrams may be lost; streams of the simulated TCP are not repeated by anybody.
    pub(crate) fn new(seed: u64, loss: bool) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut at = BTreeMap::new();
        let moments = END.as_millis() as u64 - BEGIN.as_millis() as u64;
        for number in 0..3 + random.below(5) as usize {
            let begin = BEGIN + Duration::from_millis(random.below(moments * 9 / 10));
            let end = (begin + Duration::from_millis(500 + random.below(20_000))).min(END);
            let machine = [PROVIDER, CONSUMER, CENTRE][random.below(3) as usize];
            let pair = [(PROVIDER, CONSUMER), (PROVIDER, CENTRE), (CONSUMER, CENTRE)][random.below(3) as usize];
            let (first, last) = match random.below(5) {
                0 | 1 => (Fault::Crash(machine), Fault::Start(machine)),
                2 | 3 => (Fault::Cut(pair.0, pair.1), Fault::Mend(pair.0, pair.1)),
                _ if loss => (Fault::Loss(5 + random.below(40) as u32), Fault::Loss(0)),
                _ => (Fault::Crash(machine), Fault::Start(machine)),
            };
            at.insert((begin, 2 * number), first);
            at.insert((end, 2 * number + 1), last);
        }
        Self { at, down: BTreeMap::new(), cut: BTreeMap::new() }
    }

    /// Does what is due; gives what it did.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) -> Vec<Fault> {
        let mut done = Vec::new();
        while let Some(entry) = self.at.first_entry() {
            if entry.key().0 > sim.elapsed() {
                break;
            }
            let fault = entry.remove();
            match fault {
                Fault::Crash(machine) => {
                    let count = self.down.entry(machine).or_default();
                    *count += 1;
                    if *count == 1 {
                        sim.crash(machine);
                    }
                }
                Fault::Start(machine) => {
                    let count = self.down.entry(machine).or_default();
                    *count -= 1;
                    if *count == 0 {
                        sim.bounce(machine);
                    }
                }
                Fault::Cut(a, b) => {
                    *self.cut.entry((a, b)).or_default() += 1;
                    sim.partition(a, b);
                }
                Fault::Mend(a, b) => {
                    let count = self.cut.entry((a, b)).or_default();
                    *count -= 1;
                    if *count == 0 {
                        sim.repair(a, b);
                    }
                }
                Fault::Loss(thousandths) => sim.set_fail_rate(f64::from(thousandths) / 1000.0),
            }
            done.push(fault);
        }
        done
    }
    pub(crate) fn is_over(&self) -> bool {
        self.at.is_empty()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }
}

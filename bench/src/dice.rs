//! Numbers that look drawn and follow from a number: data that is the same on all machines.

/// SplitMix64 (Steele, Lea and Flood, 2014) from a row's or a file's number: quick, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(number: u64) -> Self {
        // Neighbours' sequences start far from each other.
        Self(number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// True in so many of a hundred cases.
    pub fn share(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// So many bytes that no one can make shorter.
    pub fn fill(&mut self, into: &mut Vec<u8>, length: usize) {
        into.clear();
        while into.len() < length {
            into.extend_from_slice(&self.roll().to_le_bytes());
        }
        into.truncate(length);
    }
}

//! Randomness for ids, salts and secrets. Key pairs are made in `identity`.

pub trait Random: Send + Sync {
    fn fill(&self, out: &mut [u8]);
    /// The seed of a new key pair, where key pairs are to repeat; `None` leaves them to the cryptography.
    fn key_seed(&self) -> Option<[u8; 32]> {
        None
    }
}

impl dyn Random {
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) {
        // The operating system's generator fails only where it does not exist; nothing safe can follow.
        aws_lc_rs::rand::fill(out).expect("the operating system gives randomness");
    }
}

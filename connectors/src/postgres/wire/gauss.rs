//! How openGauss and GaussDB let someone in: their own challenge (requests 10 and 13), whose numbers PostgreSQL uses
//! for SASL. In protocol 3.51 the server tells salt, token and iterations; the answer is SCRAM's client proof in hex
//! over the token alone. Its server never proves itself: who must know that, asks for `tls = "verify-full"`.

use aws_lc_rs::{digest, hmac, pbkdf2};
use sm3::Digest;
use std::num::NonZeroU32;

/// `3.51`: in 3.0 the server leaves out how often it hashed.
pub(super) const VERSION: [u8; 4] = [0, 3, 0, 51];

/// Which hash the server keeps of the client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Sha256,
    Sm3,
}

/// What the request carries behind its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    salt: [u8; 32],
    token: [u8; 4],
    iterations: NonZeroU32,
}

impl Challenge {
    /// `stored(4) salt(64 hex) token(8 hex) iterations(4)`.
    pub(super) fn parse(content: &[u8], kept: Kept) -> Option<Self> {
        let (stored, rest) = content.split_first_chunk::<4>()?;
        let (salt_hex, rest) = rest.split_first_chunk::<64>()?;
        let (token_hex, rest) = rest.split_first_chunk::<8>()?;
        let iterations = NonZeroU32::new(u32::from_be_bytes(rest.try_into().ok()?))?;
        let expected = match kept {
            Kept::Sha256 => STORED_SHA256,
            Kept::Sm3 => STORED_SM3,
        };
        let (mut salt, mut token) = ([0; 32], [0; 4]);
        hex::decode_to_slice(salt_hex, &mut salt).ok()?;
        hex::decode_to_slice(token_hex, &mut token).ok()?;
        (u32::from_be_bytes(*stored) == expected && iterations.get() <= ITERATIONS_MAX).then_some(Self {
            salt,
            token,
            iterations,
        })
    }

    /// What is sent back as the password.
    pub(super) fn answer(&self, password: &[u8], kept: Kept) -> String {
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, self.iterations, &self.salt, password, &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let proof = match kept {
            Kept::Sha256 => sign(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref(), &self.token),
            Kept::Sm3 => sign(&sm3::Sm3::digest(client_key.as_ref()), &self.token),
        };
        hex::encode(proof.as_ref().iter().zip(client_key.as_ref()).map(|(a, b)| a ^ b).collect::<Vec<_>>())
    }
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

const STORED_SHA256: u32 = 2;
const STORED_SM3: u32 = 3;
/// A server names 10,000; its own limit would keep this processor busy for minutes.
const ITERATIONS_MAX: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stored: u32, salt: &str, token: &str, iterations: u32) -> Vec<u8> {
        [&stored.to_be_bytes(), salt.as_bytes(), token.as_bytes(), &iterations.to_be_bytes()].concat()
    }

    /// Challenges of real servers with the answers that let a client in.
    #[test]
    fn recorded_challenges_are_answered_as_the_servers_expect() {
        let salt = "3458fe51abe962f7b6011a1d73fc14edf50539fae89fb9dda75fbb642d9859bf";
        let challenge = Challenge::parse(&request(2, salt, "2cf71f10", 10_000), Kept::Sha256).unwrap();
        let answer = "f5213af93974ae3f0a3eedba7b0ef27796bcd4d84bb737d9c35fce54fcfe28fd";
        assert_eq!(challenge.answer(b"sha256@abc123", Kept::Sha256), answer);

        let salt = "5ae737626add65f8da1b063104a6c4e2dc25b7343d8512a74826dc5b5e3e5188";
        let challenge = Challenge::parse(&request(3, salt, "ffffffff", 10_000), Kept::Sm3).unwrap();
        let answer = "009f844c1980f501c66c68412b0abcb5ae176de32ffbbbae970b829221cd0c08";
        assert_eq!(challenge.answer(b"sm3@abc123", Kept::Sm3), answer);
    }

    #[test]
    fn a_challenge_of_another_shape_is_none() {
        let salt = "00".repeat(32);
        let good = request(2, &salt, "00000000", 10_000);
        assert!(Challenge::parse(&good, Kept::Sha256).is_some());
        assert!(Challenge::parse(&good, Kept::Sm3).is_none());
        for bad in [
            request(1, &salt, "00000000", 10_000),
            request(2, &salt, "0000000x", 10_000),
            request(2, &salt, "00000000", 0),
            request(2, &salt, "00000000", 2_000_000_000),
            good[..good.len() - 1].to_vec(),
            [&good[..], b"0"].concat(),
            b"SCRAM-SHA-256\0\0".to_vec(),
            Vec::new(),
        ] {
            assert!(Challenge::parse(&bad, Kept::Sha256).is_none(), "{bad:?}");
        }
    }
}

//! The join token: base64url (no padding) of the deterministic CBOR map
//! {0: coordinator name, 1: SHA-256 of the CA certificate, 2: node name, 3: secret}.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::bytes::ByteArray;
use posthouse_protocol::codec;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};

/// What a node needs to join: whom to trust, who it is, and the secret that lets it in once.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct JoinToken {
    #[n(0)]
    pub coordinator: NodeId,
    #[n(1)]
    pub ca_sha256: ByteArray<32>,
    #[n(2)]
    pub node: NodeId,
    #[n(3)]
    pub secret: ByteArray<32>,
}

impl JoinToken {
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(codec::encode(self))
    }
    /// Accepts surrounding white space, as pasting leaves it; nothing else.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let text = text.trim();
        let bad = |cause: String| Problem::new(Code::TokenInvalid).cause(cause);
        if text.len() > TOKEN_CHARS_MAX {
            return Err(bad("it is too long".to_owned()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("it is not base64url".to_owned()))?;
        codec::decode_strict(&bytes, TOKEN_CHARS_MAX).map_err(|e| bad(e.to_string()))
    }
    /// What the coordinator keeps of the secret.
    pub fn secret_sha256(&self) -> [u8; 32] {
        codec::sha256(self.secret.as_slice())
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("coordinator", &self.coordinator)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

const TOKEN_CHARS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            coordinator: NodeId::parse("centre.example").unwrap(),
            ca_sha256: [1; 32].into(),
            node: NodeId::parse("housing.example").unwrap(),
            secret: [2; 32].into(),
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_printed() {
        let text = token().encode();
        assert_eq!(JoinToken::parse(&format!(" {text}\n")).unwrap(), token());
    }

    #[test]
    fn a_changed_or_cut_token_is_refused() {
        let text = token().encode();
        for bad in ["", "%%%", &text[..text.len() - 2], &format!("{text}AAAA"), &"A".repeat(5000)] {
            assert_eq!(JoinToken::parse(bad).unwrap_err().code, Code::TokenInvalid, "{bad}");
        }
    }

    #[test]
    fn printing_a_token_for_debugging_does_not_show_its_secret() {
        assert!(!format!("{:?}", token()).contains('2'));
    }
}

//! PRELOGIN: version, and what is encrypted.

use super::reading::{Read, Reader, broken};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    Off = 0,
    On = 1,
    NotSupported = 2,
    Required = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub encryption: Encryption,
}

const VERSION: u8 = 0;
const ENCRYPTION: u8 = 1;
const INSTANCE: u8 = 2;
const THREAD: u8 = 3;
const MARS: u8 = 4;
const TRACE: u8 = 5;
const FEDERATED: u8 = 6;
const NONCE: u8 = 7;
const END: u8 = 0xff;

pub fn read(message: &[u8]) -> Read<Greeting> {
    let mut options = Reader::new(message);
    let mut encryption = None;
    loop {
        let option = options.u8()?;
        if option == END {
            break;
        }
        let (offset, length) = (usize::from(options.u16_be()?), usize::from(options.u16_be()?));
        let Some(value) = message.get(offset..offset + length) else {
            return broken("an option of the greeting lies outside of it");
        };
        match (option, value) {
            (ENCRYPTION, [0]) => encryption = Some(Encryption::Off),
            (ENCRYPTION, [1]) => encryption = Some(Encryption::On),
            (ENCRYPTION, [2]) => encryption = Some(Encryption::NotSupported),
            (ENCRYPTION, [3]) => encryption = Some(Encryption::Required),
            (ENCRYPTION, _) => return broken("an unknown encryption in the greeting"),
            (MARS, [0]) | (MARS, []) => {}
            (MARS, _) => return broken("MARS was asked for"),
            (FEDERATED, [0]) | (FEDERATED, []) => {}
            (FEDERATED, _) => return broken("federated authentication was asked for"),
            (VERSION | INSTANCE | THREAD | TRACE | NONCE, _) => {}
            (other, _) => return broken(format!("option {other} of the greeting is unknown")),
        }
    }
    match encryption {
        Some(encryption) => Ok(Greeting { encryption }),
        None => broken("the greeting says nothing of encryption"),
    }
}

/// What both sides do; none when they cannot agree.
pub fn agree(client: Encryption, server: Encryption) -> Option<Encryption> {
    use Encryption::{NotSupported, Off, On, Required};
    match (client, server) {
        (NotSupported, NotSupported | Off) => Some(NotSupported),
        (NotSupported, On | Required) => None,
        (On | Required, NotSupported) => None,
        (Off, NotSupported) => Some(NotSupported),
        (Off, Off) => Some(Off),
        (Off, On | Required) => Some(Required),
        (On | Required, Off | On | Required) => Some(On),
    }
}

pub fn write(encryption: Encryption) -> Vec<u8> {
    let options: [(u8, &[u8]); 5] = [
        (VERSION, &[11, 0, 0x08, 0x34, 0, 0]),
        (ENCRYPTION, &[encryption as u8]),
        (INSTANCE, &[0]),
        (THREAD, &[]),
        (MARS, &[0]),
    ];
    let mut head = Vec::new();
    let mut body = Vec::new();
    let start = options.len() * 5 + 1;
    for (option, value) in options {
        head.push(option);
        head.extend_from_slice(&((start + body.len()) as u16).to_be_bytes());
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value);
    }
    head.push(END);
    head.extend(body);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_as_it_is_written() {
        let message = write(Encryption::Required);
        assert_eq!(read(&message), Ok(Greeting { encryption: Encryption::Required }));
        assert!(read(&message[..8]).is_err());
        assert!(read(&[9, 0, 6, 0, 0, 0xff]).is_err(), "an unknown option");
        assert_eq!(agree(Encryption::On, Encryption::NotSupported), None);
        assert_eq!(agree(Encryption::Off, Encryption::Off), Some(Encryption::Off));
    }
}

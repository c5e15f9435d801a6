//! LOGIN7: who comes, and what for.

use super::reading::{Broken, Read, Reader, broken};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub version: u32,
    pub packet_size: u32,
    pub user: String,
    pub password: String,
    pub application: String,
    pub database: String,
    pub integrated: bool,
    pub extension: bool,
}

pub fn read(message: &[u8]) -> Read<Login> {
    let mut head = Reader::new(message);
    let length = head.u32()?;
    if usize::try_from(length).ok() != Some(message.len()) {
        return broken(format!("the login says it has {length} bytes and has {}", message.len()));
    }
    let mut login = Login { version: head.u32()?, packet_size: head.u32()?, ..Login::default() };
    head.take(12)?; // version of the client's program, its process, its connection
    let [_, second, _, third] = head.take(4)? else { return broken("flags of the login") };
    login.integrated = second & 0x80 != 0;
    login.extension = third & 0x10 != 0;
    head.take(8)?; // time zone and language
    let part = |head: &mut Reader| -> Read<Vec<u8>> {
        let (offset, units) = (usize::from(head.u16()?), usize::from(head.u16()?));
        if units == 0 {
            return Ok(Vec::new());
        }
        let bytes = message.get(offset..offset + units * 2);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| Broken("a part of the login lies outside of it".to_owned()))
    };
    let text = |bytes: &[u8]| super::reading::utf16(bytes);
    part(&mut head)?; // the client's host
    login.user = text(&part(&mut head)?)?;
    let password: Vec<u8> = part(&mut head)?.iter().map(|byte| (byte ^ 0xa5).rotate_left(4)).collect();
    login.password = text(&password)?;
    login.application = text(&part(&mut head)?)?;
    part(&mut head)?; // the server's name
    let (features, length) = (usize::from(head.u16()?), usize::from(head.u16()?));
    if login.extension && length > 0 {
        login.extension = !is_known(message, features)?;
    }
    part(&mut head)?; // the client's library
    part(&mut head)?; // its language
    login.database = text(&part(&mut head)?)?;
    Ok(login)
}

/// Whether the features that are asked for are ones that may be left unanswered: texts in UTF-8 only.
fn is_known(message: &[u8], place: usize) -> Read<bool> {
    let outside = || Broken("the features of the login lie outside of it".to_owned());
    let start = Reader::new(message.get(place..).ok_or_else(outside)?).u32()?;
    let start = usize::try_from(start).map_err(|_| outside())?;
    let mut features = Reader::new(message.get(start..).ok_or_else(outside)?);
    loop {
        match features.u8()? {
            0xff => return Ok(true),
            UTF8_SUPPORT => {
                let length = features.u32()?;
                features.take(usize::try_from(length).map_err(|_| outside())?)?;
            }
            _ => return Ok(false),
        }
    }
}

const UTF8_SUPPORT: u8 = 0x0a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_back() {
        // Fixed part of 94 bytes, then the user's name and the password.
        let mut message = vec![0; 94];
        message[4..8].copy_from_slice(&0x7400_0004_u32.to_le_bytes());
        message[8..12].copy_from_slice(&4096_u32.to_le_bytes());
        let user = super::super::reading::to_utf16("sa");
        let password: Vec<u8> =
            super::super::reading::to_utf16("pass驿").iter().map(|byte| byte.rotate_left(4) ^ 0xa5).collect();
        message[40..44].copy_from_slice(&[94, 0, 2, 0]);
        message[44..48].copy_from_slice(&[98, 0, 5, 0]);
        message.extend(&user);
        message.extend(&password);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_le_bytes());
        let login = read(&message).expect("a login");
        assert_eq!((login.user.as_str(), login.password.as_str(), login.packet_size), ("sa", "pass驿", 4096));
        message.push(0);
        assert!(read(&message).is_err(), "one byte more than it says");
    }
}

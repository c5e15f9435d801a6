//! Statements for a server that does not convert: their text goes out in the database's own charset, a value or name
//! that it lacks is told before anything is sent. Of JSON that such a server makes, the marks are set right by which it
//! takes the second byte of some characters for a backslash.

use super::error::{WireError, unsayable};
use crate::charset::{Charset, Unencodable};
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;
use std::io;

/// A simple query.
pub(super) fn query(sql: &[u8], out: &mut BytesMut) -> io::Result<()> {
    message(b'Q', out, |out| text(sql, out))
}

/// The unnamed statement, whose parameters have the types that the server finds.
pub(super) fn parse(sql: &[u8], out: &mut BytesMut) -> io::Result<()> {
    message(b'P', out, |out| {
        text(b"", out)?;
        text(sql, out)?;
        out.put_i16(0);
        Ok(())
    })
}

/// What cannot be said to this database.
pub(super) fn lacking(error: Unencodable) -> WireError {
    unsayable(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Which charset this side speaks with a database of this encoding, as the server names it, and what the server is told
/// of it: to convert from and to UTF-8, or to leave bytes as they are.
pub(super) fn agree(configured: Option<Charset>, server: &str) -> Result<(Charset, &'static str), WireError> {
    let charset = configured.unwrap_or_default();
    match server.to_ascii_uppercase().as_str() {
        // Otherwise it would refuse a whole statement for one text that is no UTF-8.
        "SQL_ASCII" => Ok((charset, AS_IT_IS)),
        "EUC_CN" | "GBK" | "GB18030" | "GB18030_2022" if !charset.is_utf8() => Ok((charset, AS_IT_IS)),
        _ if charset.is_utf8() => Ok((charset, "UTF8")),
        other => Err(WireError::Protocol(format!(
            "`charset` is {}, and the database's encoding is {other}, from which the server converts by itself: take \
             `charset` away",
            charset.name()
        ))),
    }
}

/// JSON as the server means it. In a database of single bytes it doubles each that looks like a backslash, also where
/// that is the second of a character.
pub(crate) fn json_text(charset: Charset, json: &str) -> Cow<'_, str> {
    if charset.is_utf8() || json.is_ascii() {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    let mut characters = json.chars().peekable();
    let mut code = Vec::new();
    while let Some(character) = characters.next() {
        text.push(character);
        if character.is_ascii() {
            continue;
        }
        code.clear();
        let is_coded = charset.encode_into(character.encode_utf8(&mut [0; 4]), &mut code).is_ok();
        if is_coded && code.last() == Some(&b'\\') {
            let _ = characters.next_if_eq(&'\\');
        }
    }
    Cow::Owned(text)
}

/// A message with its length before its body.
fn message(tag: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
    out.put_u8(tag);
    let start = out.len();
    out.put_i32(0);
    body(out)?;
    let length =
        i32::try_from(out.len() - start).map_err(|_| io::Error::other("it is longer than a message may be"))?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn text(bytes: &[u8], out: &mut BytesMut) -> io::Result<()> {
    if bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it holds a zero byte"));
    }
    out.put_slice(bytes);
    out.put_u8(0);
    Ok(())
}

const AS_IT_IS: &str = "SQL_ASCII";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charset::Edition;
    use postgres_protocol::message::frontend;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let sql = "SELECT '王' FROM t WHERE a = $1";
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        query(sql.as_bytes(), &mut ours).unwrap();
        parse(sql.as_bytes(), &mut ours).unwrap();
        frontend::query(sql, &mut theirs).unwrap();
        frontend::parse("", sql, [], &mut theirs).unwrap();
        assert_eq!(ours, theirs);
        assert!(query(b"SELECT \0", &mut ours).is_err());
    }

    #[test]
    fn a_charset_is_taken_where_the_server_does_not_convert_by_itself() {
        let gb18030 = Charset::Gb18030(Edition::Of2022);
        assert_eq!(agree(None, "UTF8").unwrap(), (Charset::Utf8, "UTF8"));
        assert_eq!(agree(None, "EUC_CN").unwrap(), (Charset::Utf8, "UTF8"));
        assert_eq!(agree(None, "SQL_ASCII").unwrap(), (Charset::Utf8, "SQL_ASCII"));
        assert_eq!(agree(Some(Charset::Utf8), "LATIN1").unwrap(), (Charset::Utf8, "UTF8"));
        for charset in [Charset::Gbk, gb18030] {
            for server in ["SQL_ASCII", "EUC_CN", "gbk", "GB18030"] {
                assert_eq!(agree(Some(charset), server).unwrap(), (charset, "SQL_ASCII"));
            }
            for server in ["UTF8", "LATIN1", ""] {
                assert!(agree(Some(charset), server).is_err(), "{server}");
            }
        }
    }

    #[test]
    fn json_of_a_database_of_single_bytes_is_read_as_it_was_meant() {
        // The second byte of 誠 looks like a backslash.
        assert_eq!(*Charset::Gbk.encode("誠").unwrap(), *b"\xd5\\");
        let doubled = Charset::Gbk.decode(b"{\"\xd5\\\\\":\"\\\\ \xd5\\\\\\\\ \xcd\xf5\\n\"}").unwrap();
        assert_eq!(json_text(Charset::Gbk, &doubled), r#"{"誠":"\\ 誠\\ 王\n"}"#);
        assert_eq!(json_text(Charset::Gbk, r#"{"a":"\\"}"#), r#"{"a":"\\"}"#);
        assert_eq!(json_text(Charset::Utf8, r#"{"誠":"\\"}"#), r#"{"誠":"\\"}"#);
    }
}

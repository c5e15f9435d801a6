//! Servers that ask for what nobody has, that are not PostgreSQL, or that lie about lengths: played over a pair of
//! sockets.

use super::super::auth::{Login, login};
use super::super::stream::{Privacy, Stream};
use super::*;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// A server that says its lines, each after the client has said something.
fn server(lines: Vec<Vec<u8>>) -> (Link, JoinHandle<Vec<Vec<u8>>>) {
    let (here, mut there) = UnixStream::pair().unwrap();
    let played = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for line in lines {
            let mut said = vec![0; 4096];
            let length = there.read(&mut said).unwrap();
            said.truncate(length);
            heard.push(said);
            there.write_all(&line).unwrap();
        }
        heard
    });
    (Link::new(Stream::Unix(here)), played)
}

fn message(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag], &u32::try_from(content.len() + 4).unwrap().to_be_bytes()[..], content].concat()
}

fn request(number: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&number.to_be_bytes(), rest].concat())
}

fn settings(password: &str) -> (Settings, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    posthouse_platform::identity::write_secret(&file, password.as_bytes()).unwrap();
    let keys = [("url", "postgres://u@h/d"), ("password_file", file.to_str().unwrap())];
    let keys = keys.map(|(key, value)| (key.to_owned(), value.into()));
    (Settings::parse(&keys.into_iter().collect()).unwrap(), folder)
}

fn refusal(lines: Vec<Vec<u8>>, privacy: Privacy) -> WireError {
    let (mut link, _) = server(lines);
    login(&mut link, &settings("secret").0, privacy, false).unwrap_err()
}

#[test]
fn a_way_in_that_posthouse_does_not_have_is_named() {
    for (number, name) in [(7, "GSSAPI"), (2, "Kerberos V5"), (11, "openGauss's MD5 over SHA256"), (99, "unknown")] {
        match refusal(vec![request(number, &[0; 68])], Privacy::Private) {
            WireError::Auth(text) => assert!(text.contains(name) && text.contains(&number.to_string()), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let only = request(10, b"OAUTHBEARER\0\0");
    assert!(matches!(refusal(vec![only], Privacy::Private), WireError::Auth(text) if text.contains("OAUTHBEARER")));
}

#[test]
fn a_password_in_the_clear_leaves_only_where_nobody_else_can_read_it() {
    for privacy in [Privacy::Open, Privacy::Encrypted] {
        match refusal(vec![request(3, b"")], privacy) {
            WireError::Auth(text) => assert!(text.contains("in the clear") && text.contains("scram"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let refused = message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mno\0\0");
    let (mut link, played) = server(vec![request(3, b""), refused]);
    let error = login(&mut link, &settings("se cret").0, Privacy::Private, false).unwrap_err();
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert_eq!(played.join().unwrap()[1], message(b'p', b"se cret\0"));
}

#[test]
fn a_server_that_does_not_prove_itself_is_not_believed() {
    let (mut link, _) = server(vec![request(10, b"SCRAM-SHA-256\0\0"), request(0, b"")]);
    let error = login(&mut link, &settings("secret").0, Privacy::Private, false).unwrap_err();
    assert!(matches!(&error, WireError::Auth(text) if text.contains("did not prove")), "{error}");
}

#[test]
fn an_opengauss_is_asked_again_in_its_own_version_and_answered() {
    // As one of its servers sends it to a client of 3.0: with its own signature and without the iterations.
    let old = [&[0, 0, 0, 2][..], &[b'0'; 64], &[b'1'; 8], &[b'2'; 64]].concat();
    let (mut link, _) = server(vec![request(10, &old)]);
    let (settings, _folder) = settings("sha256@abc123");
    assert_eq!(login(&mut link, &settings, Privacy::Private, false).unwrap(), Login::SpeakGauss);

    let salt = b"3458fe51abe962f7b6011a1d73fc14edf50539fae89fb9dda75fbb642d9859bf";
    let challenge = [&[0, 0, 0, 2], &salt[..], b"2cf71f10", &10_000_u32.to_be_bytes()].concat();
    let welcome = [request(0, b""), message(b'K', &[0, 0, 0, 7, 0, 0, 0, 8]), message(b'Z', b"I")].concat();
    let (mut link, played) = server(vec![request(10, &challenge), welcome]);
    let login = login(&mut link, &settings, Privacy::Private, true).unwrap();
    assert_eq!(login, Login::In { process: 7, key: 8 });
    let heard = played.join().unwrap();
    assert_eq!(heard[0][4..8], [0, 3, 0, 51]);
    let answer = b"f5213af93974ae3f0a3eedba7b0ef27796bcd4d84bb737d9c35fce54fcfe28fd\0";
    assert_eq!(heard[1], message(b'p', answer));
}

#[test]
fn a_length_is_bounded_before_anything_is_kept_for_it() {
    for lie in
        [&[b'T', 0x7f, 0xff, 0xff, 0xff][..], &[b'R', 0x10, 0, 0, 0], &[b'Z', 0, 0, 0, 3], &[b'Z', 0xff, 0, 0, 0]]
    {
        let error = refusal(vec![lie.to_vec()], Privacy::Private);
        assert!(matches!(error, WireError::Protocol(_)), "{lie:?}: {error}");
    }
    let http = refusal(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], Privacy::Private);
    assert!(matches!(http, WireError::Protocol(_)), "{http}");
    assert!(refusal(vec![b"Z\0".to_vec()], Privacy::Private).is_lost());
    let endless = message(b'S', b"name\0value\0");
    let many: Vec<u8> = (0..1000_u32).flat_map(|n| message(b'S', format!("{n}\0v\0").as_bytes())).collect();
    assert!(refusal(vec![endless.repeat(1000)], Privacy::Private).is_lost());
    assert!(matches!(refusal(vec![many], Privacy::Private), WireError::Protocol(_)));
}

#[test]
fn a_server_without_encryption_is_refused_by_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let played = std::thread::spawn(move || {
        let (mut there, _) = listener.accept().unwrap();
        let mut asked = [0; 8];
        there.read_exact(&mut asked).unwrap();
        there.write_all(b"N").unwrap();
        asked
    });
    let url = format!("postgres://u@{address}/d");
    let keys = [("url", url.as_str()), ("tls", "require")].map(|(key, value)| (key.to_owned(), value.into()));
    let error = Client::connect(&Settings::parse(&keys.into_iter().collect()).unwrap()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, WireError::Tls(text) if text.contains("offers no encryption")), "{error}");
    assert_eq!(played.join().unwrap(), [0, 0, 0, 8, 4, 210, 22, 47]);
}

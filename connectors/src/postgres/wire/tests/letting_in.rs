//! Each way in which a server lets someone in, and each in which it or this side refuses.

use super::*;

fn let_in(settings: &Settings) -> Result<String, WireError> {
    let mut client = Client::connect(settings)?;
    let rows = client.query("SELECT current_user, ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])?;
    Ok(format!("{} {}", rows[0].text(0)?, rows[0].text(1)?))
}

#[test]
fn a_password_is_proven_in_every_way_that_a_server_asks_for() {
    let server = TestServer::shared();
    let password = server.password_file(crate::postgres::test_server::PASSWORD);
    let with_password = [("password_file", password.as_str())];
    for account in ["md5", "scram", "clear"] {
        let by_socket = let_in(&server.by_socket(account, &with_password));
        assert_eq!(by_socket.unwrap(), format!("{account} false"));
        let by_tcp = let_in(&server.by_tcp("127.0.0.1", account, &with_password));
        assert_eq!(by_tcp.unwrap(), format!("{account} false"));
    }
    assert_eq!(let_in(&server.by_tcp("127.0.0.1", "trust", &[])).unwrap(), "trust false");
    let ca = server.ca_file();
    for account in ["md5", "scram", "clear", "tls"] {
        let more = [with_password[0], ("ca_file", ca.as_str())];
        assert_eq!(let_in(&server.by_tcp("localhost", account, &more)).unwrap(), format!("{account} true"));
    }
}

#[test]
fn a_wrong_password_is_the_servers_word_and_no_lost_line() {
    let server = TestServer::shared();
    let wrong = server.password_file("guess");
    for account in ["md5", "scram", "clear"] {
        let error = let_in(&server.by_socket(account, &[("password_file", &wrong)])).unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{account}: {error}");
        assert!(!error.is_lost());
    }
    let error = let_in(&server.by_socket("scram", &[])).unwrap_err();
    assert!(matches!(&error, WireError::Auth(text) if text.contains("password_file")), "{error}");
    let error = let_in(&server.by_socket("scram", &[("password_file", "/no/such/file")])).unwrap_err();
    assert!(matches!(&error, WireError::Secret(problem) if problem.facts[0].1 == "/no/such/file"), "{error}");
    let error = let_in(&server.by_socket("nobody", &[])).unwrap_err();
    assert_eq!(error.sqlstate(), Some("28000"), "{error}");
}

#[test]
fn only_the_server_that_was_meant_is_spoken_to() {
    let server = TestServer::shared();
    let other = TestServer::start();
    let (ca, strange, leaf) = (server.ca_file(), other.ca_file(), server.certificate_file());
    let tls = |host: &str, key: (&str, &str)| let_in(&server.by_tcp(host, "trust", &[key]));
    let refused = |result: Result<String, WireError>, part: &str| match result {
        Err(WireError::Tls(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{part}: {other:?}"),
    };
    assert_eq!(tls("localhost", ("ca_file", &ca)).unwrap(), "trust true");
    assert_eq!(tls("127.0.0.1", ("ca_file", &leaf)).unwrap(), "trust true");
    assert_eq!(tls("127.0.0.1", ("tls", "require")).unwrap(), "trust true");
    refused(tls("localhost", ("ca_file", &strange)), "UnknownIssuer");
    refused(tls("127.0.0.1", ("ca_file", &ca)), "not valid for name");
    refused(tls("localhost", ("ca_file", "/no/such/file")), "/no/such/file");
    let empty = server.password_file("no certificate");
    refused(tls("localhost", ("ca_file", &empty)), "no certificate");
}

#[test]
fn a_login_under_tls_is_bound_to_the_servers_certificate() {
    let server = TestServer::shared();
    let pem = std::fs::read(server.certificate_file()).unwrap();
    let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(&pem).unwrap();
    // It is signed by ECDSA with SHA-256.
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    assert_eq!(tls::end_point(&der).as_deref(), Some(hash.as_ref()));
    assert_eq!(tls::end_point(b"no certificate"), None);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let unbound = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    assert_eq!(tls::end_point(unbound.der()), None);
}

#[test]
fn the_next_server_is_asked_where_one_does_not_answer() {
    let server = TestServer::shared();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = server.by_tcp("127.0.0.1", "trust", &[]);
    settings.servers.insert(0, Address::Tcp { host: "127.0.0.1".to_owned(), port: nobody.port() });
    settings.servers.insert(0, Address::Unix("/no/such/socket".into()));
    assert_eq!(let_in(&settings).unwrap(), "trust false");
    settings.servers.pop();
    let error = let_in(&settings).unwrap_err();
    assert!(error.is_lost() && error.to_string().contains(&nobody.to_string()), "{error}");
}

#[test]
fn a_database_that_is_not_there_is_told() {
    let mut settings = TestServer::shared().by_socket("owner", &[]);
    settings.database = "没有".to_owned();
    let error = let_in(&settings).unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"));
    assert!(!error.is_lost());
}

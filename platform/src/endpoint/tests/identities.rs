//! Who may connect: authorities, names, dates, clocks, what was denied and what joins.

use super::*;

#[tokio::test]
async fn a_peer_of_another_ca_is_told_so_on_both_sides() {
    let scene = Scene::new();
    let other = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let stranger = other.endpoint(Some("a.example"), None, choice).await;
        // The dialler pins another CA: it refuses what it is shown.
        let problem = fails(&stranger, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateOfOther, "{problem}");
        // The dialler trusts the CA but is certified by another: the accepting side refuses it.
        let forged = other.issue_pinned("a.example", &scene.authority);
        assert!(forged.is_err(), "an identity whose chain does not lead to its CA must not exist");
        let problem = fails_raw(&scene, &other, &server, choice).await;
        assert_eq!(problem.code, Code::CertificateOfOther, "{problem}");
        still_answers(&scene, &server, choice).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_named_whichever_side_has_it() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let short = scene.issue("a.example", 1_000);
        scene.clock.advance(3_600_000);
        let client = scene.endpoint_with(Some(short), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateExpired, "{problem}");
        assert!(problem.facts.contains(&("peer".to_owned(), "a.example".to_owned())), "{problem:?}");

        let short = scene.issue("b.example", 1_000);
        let server = scene.endpoint_with(Some(short), Some("127.0.0.1:0"), choice).await;
        scene.clock.advance(3_600_000);
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateExpired, "{problem}");
        assert!(problem.facts.contains(&("peer".to_owned(), "b.example".to_owned())), "{problem:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_is_named_as_a_clock_error() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let mut behind = Scene::sharing(&scene);
        behind.clock = Arc::new(TestClock::at(scene.clock.now().plus_ms(-86_400_000)));
        // This side's clock is behind: the other's certificate is not valid yet.
        let client = behind.endpoint_with(Some(scene.issue("a.example", DAY)), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::ClockWrong, "{problem}");
        // The other side's clock is behind: it refuses, and this side's certificate holds by its own clock.
        let slow = behind
            .endpoint_with(
                Some(scene.issue_at("b.example", scene.clock.now().plus_ms(-2 * 86_400_000), 4 * DAY)),
                Some("127.0.0.1:0"),
                choice,
            )
            .await;
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &slow, "b.example", choice).await;
        assert_eq!(problem.code, Code::ClockWrong, "{problem}");
    }
}

#[tokio::test]
async fn a_peer_of_another_name_is_refused() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &server, "c.example", choice).await;
        assert_eq!(problem.code, Code::CertificateInvalid, "{problem}");
        assert!(problem.cause.contains("b.example"), "{problem}");
    }
}

#[tokio::test]
async fn a_denied_name_is_refused_and_what_it_had_open_is_closed() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        server.set_denied(vec![node("a.example")]);
        within(dialled.closed()).await;
        within(accepted.closed()).await;
        assert_eq!(within(dialled.open()).await.err().unwrap().code, Code::NodeRevoked);
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::NodeRevoked, "{problem}");
        assert!(server.refused() > 0);
        server.set_denied(Vec::new());
        connect(&server, &client, choice).await;
        // A dialler does not even call a name that it denies.
        client.set_denied(vec![node("b.example")]);
        assert_eq!(fails(&client, &server, "b.example", choice).await.code, Code::NodeRevoked);
    }
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections_while_an_old_one_goes_on() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        let renewed = (scene.issue("b.example", DAY), scene.issue("a.example", DAY));
        let fingerprint = renewed.0.certificate_sha256();
        server.set_identity(renewed.0);
        client.set_identity(renewed.1);
        // A channel that is open, one that is opened now, and a new connection.
        a.writer.write_all(b"across").await.unwrap();
        a.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut b.reader).await.unwrap(), b"across");
        joined(&accepted, &dialled).await;
        let (again, _) = connect(&server, &client, choice).await;
        match again.remote() {
            Remote::Certified { certificate_sha256, .. } => assert_eq!(*certificate_sha256, fingerprint),
            Remote::Unknown => panic!("the peer is certified"),
        }
        assert!(!dialled.is_closed());
    }
}

#[tokio::test]
async fn joining_needs_no_certificate_and_checks_the_ca_of_the_token() {
    let scene = Scene::new();
    for choice in BOTH {
        let coordinator = scene.coordinator(choice).await;
        let newcomer = scene.endpoint_with(None, None, choice).await;
        let join = |ca_sha256| DialTrust::Join { ca_sha256 };
        let good = join(scene.authority.certificate_sha256());
        let (dialled, accepted) = tokio::join!(
            dial(&newcomer, &coordinator, "centre.example", choice, good.clone()),
            within(coordinator.accept())
        );
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((accepted.remote(), accepted.join(), dialled.join()), (&Remote::Unknown, true, true));
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        a.writer.write_all(b"csr").await.unwrap();
        a.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut b.reader).await.unwrap(), b"csr");

        let problem = dial(&newcomer, &coordinator, "centre.example", choice, join([7; 32])).await.err().unwrap();
        assert_eq!(problem.code, Code::WrongAuthority, "{problem}");
        let problem = dial(&newcomer, &coordinator, "other.example", choice, good.clone()).await.err().unwrap();
        assert_eq!(problem.code, Code::WrongAuthority, "{problem}");
        // A node answers no joins, and without a certificate there is nothing else to ask for.
        let ordinary = scene.serve("b.example", choice).await;
        assert!(dial(&newcomer, &ordinary, "b.example", choice, good).await.is_err());
        let problem =
            dial(&newcomer, &coordinator, "centre.example", choice, DialTrust::Certified).await.err().unwrap();
        assert_eq!(problem.code, Code::CertificateInvalid, "{problem}");
    }
}

#[tokio::test]
async fn a_coordinator_asks_a_certificate_of_everything_but_joining() {
    let scene = Scene::new();
    for choice in BOTH {
        let coordinator = scene.coordinator(choice).await;
        let address = coordinator.local_address().unwrap();
        // A client that speaks posthouse/1 without a certificate: only raw TLS can be that impolite.
        let mut tls = rustls::ClientConfig::builder_with_provider(crate::identity::verify::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(scene.roots())
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        if choice == TransportChoice::Tcp {
            let line = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = rustls_pki_types::ServerName::try_from("centre.example").unwrap();
            let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, line).await.unwrap();
            let _ = stream.write_all(&[1]).await;
            assert!(within(all(&mut stream)).await.map_or(true, |bytes| bytes.is_empty()));
        } else {
            let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(crypto));
            let connection = endpoint.connect_with(config, address, "centre.example").unwrap().await;
            if let Ok(connection) = connection {
                assert!(within(connection.accept_uni()).await.is_err());
            }
        }
        still_answers(&scene, &coordinator, choice).await;
    }
}

async fn fails(client: &Both, server: &Both, name: &str, choice: TransportChoice) -> Problem {
    dial(client, server, name, choice, DialTrust::Certified).await.err().expect("the dial fails")
}

/// A dialler certified by `other`'s CA that believes `scene`'s server.
async fn fails_raw(scene: &Scene, other: &Scene, server: &Both, choice: TransportChoice) -> Problem {
    let shared = shared::Shared::new(scene.world(), Some(other.issue("a.example", DAY)), false);
    let trust = DialTrust::Join { ca_sha256: scene.authority.certificate_sha256() };
    let (tls, judge) = shared.dial_tls(&node("b.example"), &trust).unwrap();
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let certified = other.issue("a.example", DAY).certified().unwrap();
    tls.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let address = server.local_address().unwrap();
    let before = server.refused();
    let alert = if choice == TransportChoice::Tcp {
        let line = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("b.example").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, line).await.unwrap();
        let error = within(all(&mut stream)).await.unwrap_err();
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => u8::from(*alert),
            other => panic!("{other:?}"),
        }
    } else {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), address, "b.example");
        let error = match connecting.unwrap().await {
            Ok(connection) => within(connection.closed()).await,
            Err(error) => error,
        };
        match error {
            quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) as u8,
            other => panic!("{other:?}"),
        }
    };
    assert!(judge.refusal().is_none());
    within(async {
        while server.refused() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    shared.rejected(&node("b.example"), "", alert)
}

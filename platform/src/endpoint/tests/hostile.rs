//! Who sends garbage, somebody else's token, nothing at all or too much: it ends its own connection only.

use super::*;

#[tokio::test]
async fn garbage_on_either_port_ends_itself_only() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let address = server.local_address().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let garbage = |n: usize| (0..n).map(|i| (i * 151 + n * 31) as u8).collect::<Vec<_>>();
    for n in 1..200 {
        udp.send_to(&garbage(n * 7), address).unwrap();
    }
    for n in [1, 5, 100, 20_000] {
        let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = line.write_all(&garbage(n)).await;
        let _ = line.shutdown().await;
        let _ = within(all(&mut line)).await;
    }
    // A TLS client hello cut in half, and an HTTP request.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = line.write_all(bytes).await;
        let _ = line.shutdown().await;
        let _ = within(all(&mut line)).await;
    }
    assert!(server.refused() >= 6, "{}", server.refused());
    for choice in BOTH {
        still_answers(&scene, &server, choice).await;
    }
}

#[tokio::test]
async fn a_channel_with_a_wrong_token_or_of_another_node_is_refused() {
    let scene = Scene::new();
    let (server, client) = scene.pair(TransportChoice::Tcp).await;
    let (dialled, accepted) = connect(&server, &client, TransportChoice::Tcp).await;
    let before = server.refused();
    for identity in [scene.issue("a.example", DAY), scene.issue("c.example", DAY)] {
        let mut stream = scene.raw_tls(&identity, server.local_address().unwrap()).await;
        let mut first = vec![2];
        first.extend_from_slice(&[9; 16]);
        first.extend_from_slice(&0u32.to_be_bytes());
        stream.write_all(&first).await.unwrap();
        assert!(within(all(&mut stream)).await.map_or(true, |bytes| bytes.is_empty()));
    }
    assert!(server.refused() >= before + 2);
    joined(&dialled, &accepted).await;
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_is_dropped() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let mut silent = tokio::net::TcpStream::connect(server.local_address().unwrap()).await.unwrap();
    silent.write_all(&[0x16]).await.unwrap();
    let limit = Duration::from_millis(posthouse_protocol::limits::HANDSHAKE_MS) + Duration::from_secs(3);
    tokio::time::timeout(limit, all(&mut silent)).await.expect("it is closed in time").ok();
    still_answers(&scene, &server, TransportChoice::Tcp).await;
}

#[tokio::test]
async fn a_flood_of_silent_connections_leaves_room_for_others_addresses_and_is_bounded() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let address = server.local_address().unwrap();
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    // All above the bound of one address are closed at once.
    while server.refused() < 200 {
        assert!(tokio::time::Instant::now() < deadline, "{} refused", server.refused());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The same port over UDP, and after the flood TCP as well.
    still_answers(&scene, &server, TransportChoice::Quic).await;
    drop(flood);
    tokio::time::sleep(Duration::from_millis(100)).await;
    still_answers(&scene, &server, TransportChoice::Tcp).await;
}

#[tokio::test]
async fn one_name_holds_four_connections_and_the_oldest_gives_way() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(connect(&server, &client, choice).await);
        }
        within(held[0].0.closed()).await;
        for (dialled, _) in &held[1..] {
            assert!(!dialled.is_closed());
        }
    }
}

#[tokio::test]
async fn channels_beyond_the_bound_wait_for_room() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let mut open = Vec::new();
        for _ in 0..shared::CHANNELS_MAX {
            open.push(joined(&dialled, &accepted).await);
        }
        let more = tokio::time::timeout(Duration::from_millis(300), dialled.open()).await;
        assert!(more.is_err(), "{choice:?}");
        open.truncate(shared::CHANNELS_MAX / 2);
        joined(&dialled, &accepted).await;
    }
}

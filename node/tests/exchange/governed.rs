//! Governed rows and a node that does not know of them. No node of this version is one: here one speaks in its name.

use super::*;
use posthouse_platform::frames;
use posthouse_protocol::frame::{Frame, Hello, Purpose, Request};
use posthouse_protocol::job::{Mode, Write};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_governed_are_offered_to_who_understands_them() {
    let scene = Scene::new("tcp", &["residents"]);
    let source = scene.path("source/residents.db");
    let database = rusqlite::Connection::open(&source).unwrap();
    database
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'a')")
        .unwrap();
    let offered = format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n[[resource]]\nid = \"residents\"\nconnection = \"db\"\n\
         table = \"t\"\nkey = [\"id\"]\ncolumns = [\"id\", \"name\"]\n[resource.mask]\nname = {{ keep_first = 1 }}\n",
        source.display()
    );
    let provider = scene.provider(&offered).await;
    let consumer = scene.consumer("").await;
    assert_eq!(asked(&consumer, 1, &["zstd", "kept"]).await, Some(Code::GoverningUnknown as u16));
    assert_eq!(asked(&consumer, 2, &["zstd", "kept", "governed"]).await, None);
    provider.stop().await;
    consumer.stop().await;
}

/// Asks for the table as a consumer of these features; the code by which it is refused, or none where it is offered.
async fn asked(consumer: &Node, number: u8, features: &[&str]) -> Option<u16> {
    let ctx = consumer.context();
    let connection = ctx.pool.connection(&name(PROVIDER)).await.unwrap();
    let (mut reader, mut writer) = frames::split(connection.open().await.unwrap(), "the provider");
    let transfer = TransferId::from_random([number; 16]);
    let features = features.iter().map(|feature| (*feature).to_owned()).collect();
    let hello = Hello { features, ..Hello::new(Purpose::Control(transfer.clone()), ctx.epoch) };
    writer.send(&Frame::Hello(hello)).await.unwrap();
    let request = Request {
        transfer,
        job: "residents".parse().unwrap(),
        resource: "residents".parse().unwrap(),
        mode: Mode::Full,
        write: Write::Replace,
        watermark: None,
        route: Vec::new(),
        consumer_epoch: ctx.epoch,
        succeeds: None,
        committed: false,
        formats: None,
        rules: None,
    };
    writer.send(&Frame::Request(request)).await.unwrap();
    loop {
        match reader.expect().await.unwrap() {
            Frame::Offer(offer) => {
                assert!(offer.governed.is_some_and(|governed| governed.iter().any(|said| said.what == "keep 1+0")));
                return None;
            }
            Frame::Refused(refused) | Frame::Failed(refused) => return Some(refused.code),
            Frame::Ping(token) => writer.send(&Frame::Pong(token)).await.unwrap(),
            _ => {}
        }
    }
}

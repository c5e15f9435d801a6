//! A provider that lists what it should not. No node does: here one speaks in its name.

use super::*;
use posthouse_node::store::Store;
use posthouse_node::store::exchange::{self, Whole};
use posthouse_platform::endpoint::Connection;
use posthouse_platform::frames;
use posthouse_protocol::frame::{Frame, Hello, Offer};
use posthouse_protocol::id::GrantId;
use posthouse_protocol::manifest::{Entry, EntryKind, SplitCounts};

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lists_a_name_twice_is_refused_by_that_name_and_nothing_lands() {
    for names in [["a", "a"], ["b", "a"]] {
        let scene = Scene::new("tcp", &["scans"]);
        let listing =
            as_provider(&scene, move |connection| async move { list(connection.as_ref(), names).await }).await;
        let consumer = scene.consumer(&take_folder(&scene, "")).await;
        let row = run(&consumer, "scans").await;
        assert_eq!(row.state, State::Failed, "{row:?}");
        let problem = row.problem.unwrap();
        assert_eq!(problem.code, Code::ListedTwice);
        assert!(problem.facts.contains(&("name".to_owned(), "a".to_owned())), "{problem:?}");
        assert_eq!(tree(&scene.path("target")), Vec::new());
        // The provider is told which name it was.
        let Frame::Failed(told) = listing.await.unwrap() else { panic!("it was not told") };
        assert_eq!(told.facts, Some(vec![("name".to_owned(), "a".to_owned())]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_provider_that_knows_deltas_is_told_pieces() {
    for (features, expected) in [(vec![], vec!["want"]), (vec!["delta".to_owned()], vec!["pieces", "want"])] {
        let scene = Scene::new("tcp", &["scans"]);
        std::fs::write(scene.path("target/a"), noise(1, 200_000)).unwrap();
        let talk =
            move |connection: Arc<dyn Connection>| async move { said_of_a_file(connection.as_ref(), features).await };
        let said = as_provider(&scene, talk).await;
        let consumer = scene.consumer(&take_folder(&scene, "")).await;
        let id = plan(&consumer, "scans").await;
        let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id));
        assert_eq!(said.await.unwrap(), expected);
        consumer.stop().await;
        let _ = running.await;
    }
}

/// Lists a file whose older version is at the consumer; gives the names of what is said of it.
async fn said_of_a_file(connection: &dyn Connection, features: Vec<String>) -> Vec<&'static str> {
    let (mut reader, mut writer) = frames::split(connection.accept().await.unwrap(), "the consumer");
    let Frame::Hello(Hello { purpose, .. }) = reader.expect().await.unwrap() else { panic!("no greeting") };
    writer.send(&Frame::Hello(Hello { features, ..Hello::new(purpose, 1) })).await.unwrap();
    let mut said = Vec::new();
    loop {
        match reader.expect().await.unwrap() {
            Frame::Request(request) => writer.send(&Frame::Offer(offer(request.transfer))).await.unwrap(),
            Frame::Accept(_) => {
                let listed = Entry { size: 200_001, root: None, ..file(0, "a") };
                writer.send(&Frame::Entries(vec![listed])).await.unwrap();
            }
            Frame::Ping(token) => writer.send(&Frame::Pong(token)).await.unwrap(),
            frame => {
                said.push(frame.name());
                if matches!(frame, Frame::Want(_)) {
                    return said;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_split_has_one_place_in_a_listing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&World::real(), folder.path()).await.unwrap();
    let id = TransferId::from_random([1; 16]);
    let split = |index| Entry { kind: EntryKind::Split(SplitCounts::default()), ..file(index, "rowid.1-9") };
    let put = |index, whole, session| {
        let (id, split) = (id.clone(), split(index));
        store.write_now(move |tx| exchange::put_landing_entry(tx, &id, &split, whole, session).map(drop))
    };
    put(0, Whole::No, 1).unwrap();
    put(0, Whole::Part, 1).unwrap();
    let twice = put(1, Whole::Part, 1).unwrap_err();
    assert_eq!((twice.code, twice.facts[0].1.as_str()), (Code::ListedTwice, "rowid.1-9"));
    // Another listing may count in another way.
    put(1, Whole::Part, 2).unwrap();
}

/// Speaks in the provider's name over the first connection to it.
async fn as_provider<F, T>(
    scene: &Scene,
    talk: impl FnOnce(Arc<dyn Connection>) -> F + Send + 'static,
) -> tokio::task::JoinHandle<T>
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let endpoint = scene.provider_endpoint().await;
    tokio::spawn(async move { talk(endpoint.accept().await.unwrap()).await })
}

/// Offers a folder and lists two files; gives the frame by which the consumer ends it.
async fn list(connection: &dyn Connection, names: [&str; 2]) -> Frame {
    let (mut reader, mut writer) = frames::split(connection.accept().await.unwrap(), "the consumer");
    let hello = reader.expect().await.unwrap();
    let Frame::Hello(Hello { purpose, .. }) = hello else { panic!("{hello:?}") };
    writer.send(&Frame::Hello(Hello::new(purpose, 1))).await.unwrap();
    loop {
        match reader.expect().await.unwrap() {
            Frame::Request(request) => writer.send(&Frame::Offer(offer(request.transfer))).await.unwrap(),
            Frame::Accept(_) => {
                let entries = (0..).zip(names).map(|(index, name)| file(index, name)).collect();
                writer.send(&Frame::Entries(entries)).await.unwrap();
            }
            Frame::Ping(token) => writer.send(&Frame::Pong(token)).await.unwrap(),
            end @ (Frame::Failed(_) | Frame::Refused(_)) => {
                writer.send(&Frame::Noted(Vec::new().into())).await.unwrap();
                return end;
            }
            _ => {}
        }
    }
}

fn offer(transfer: TransferId) -> Offer {
    Offer {
        transfer,
        grant: GrantId::from_random([0; 16]),
        policy_epoch: 1,
        policy_sequence: 1,
        provider_epoch: 1,
        contract: None,
        catalog: None,
        watermark_to: None,
        salt: [1; 32].into(),
        data_channels: 1,
        digest_key: [2; 32].into(),
        watermark_column: None,
        native: None,
        governed: None,
        operation: None,
        database_line: None,
    }
}

fn file(index: u64, name: &str) -> Entry {
    let root = *blake3::hash(b"").as_bytes();
    Entry {
        index,
        name: name.into(),
        kind: EntryKind::File,
        size: 0,
        mode: 0o644,
        mtime_ns: 0,
        root: Some(root.into()),
        revision: 0,
        same_as: None,
        attributes: None,
    }
}

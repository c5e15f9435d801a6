//! A line over which UDP passes no more in the midst of a transfer, or next to nothing of it: TCP takes its place.

use super::*;
use posthouse_node::store::Transfer;
use posthouse_platform::endpoint::Transport;
use posthouse_platform::network::FilteredNetwork;
use posthouse_protocol::problem::Problem;

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_dropped_in_the_midst_tcp_goes_on() {
    let moving = Moving::start().await;
    moving.network.shut(true);
    // Long before the line would be known to be dead by its idle limit.
    let Moved { scene, provider, consumer, row, took } = moving.over_tcp().await;
    println!("on TCP {took:?} after UDP was dropped");
    let stated = evidence_of_both(&provider, &row.id).await;
    assert_eq!(stated.iter().find_map(|statement| statement.landing()).unwrap().transport, "tcp");
    // What comes next goes that way at once.
    std::fs::write(scene.path("source/more"), noise(2, 10_000)).unwrap();
    assert_eq!(run(&consumer, "scans").await.transport, Some(Transport::Tcp));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_throttled_in_the_midst_tcp_goes_on() {
    let moving = Moving::start().await;
    moving.network.throttle(RATE / 100);
    println!("on TCP {:?} after UDP was throttled", moving.over_tcp().await.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_for_a_moment_is_kept() {
    let moving = Moving::start().await;
    moving.network.shut(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    moving.network.shut(false);
    let transfer::Outcome::Final(row) = moving.running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, row.transport), (State::Settled, Some(Transport::Quic)), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_cut_for_seconds_is_dialled_again_as_soon_as_it_is_back_over_whatever_passes() {
    let moving = Moving::start().await;
    moving.network.cut(true);
    // Longer than TCP is tried alone.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let live = moving.consumer.context().transfers.list();
    let before = live.iter().find(|live| live.row.id == moving.id).unwrap().row.bytes_sent;
    assert!(before < BYTES / 4 * 3, "{live:?}");
    // Two seconds until it is known to be silent, then twice a second, the first three over TCP alone.
    assert!(moving.network.unanswered() >= 6, "{}", moving.network.unanswered());
    moving.network.cut(false);
    let began = Instant::now();
    until_live(&moving.consumer, &moving.id, "more of it", |live| live.row.bytes_sent > before).await;
    println!("more came {:?} after the line was back", began.elapsed());
    let Moving { scene, network: _, provider: _, consumer: _, id: _, running } = moving;
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    assert!(row.bytes_sent < BYTES + limits::CREDIT_BYTES + (4 << 20), "{row:?}");
}

/// A transfer of which a third has come over QUIC.
struct Moving {
    scene: Scene,
    network: Arc<FilteredNetwork>,
    provider: Node,
    consumer: Node,
    id: TransferId,
    running: tokio::task::JoinHandle<Result<transfer::Outcome, Problem>>,
}

/// One that has ended over TCP.
struct Moved {
    scene: Scene,
    provider: Node,
    consumer: Node,
    row: Box<Transfer>,
    /// Until it was on TCP.
    took: Duration,
}

impl Moving {
    async fn start() -> Self {
        let (scene, network) = (scene(), Arc::new(FilteredNetwork::default()));
        let provider = scene.provider_in(behind(&network), &offer_folder(&scene)).await;
        let consumer = scene.consumer_in(behind(&network), &take_folder(&scene, "")).await;
        over_quic(&consumer).await;
        let id = plan(&consumer, "scans").await;
        let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
        until_live(&consumer, &id, "a third of it", |live| live.row.bytes_sent > BYTES / 3).await;
        Self { scene, network, provider, consumer, id, running }
    }

    /// Waits for TCP and the end.
    async fn over_tcp(self) -> Moved {
        let Self { scene, network: _, provider, consumer, id, running } = self;
        let began = Instant::now();
        until_live(&consumer, &id, "on TCP", |live| live.row.transport == Some(Transport::Tcp)).await;
        let took = began.elapsed();
        let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
        assert_eq!((row.state, row.transport), (State::Settled, Some(Transport::Tcp)), "{row:?}");
        assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
        // What was on its way when the line was given up comes once more; nothing else does.
        assert!(row.bytes_sent < BYTES + limits::CREDIT_BYTES + (4 << 20), "{row:?}");
        Moved { scene, provider, consumer, row, took }
    }
}

fn scene() -> Scene {
    let mut scene = Scene::new("auto", &["scans"]);
    scene.provider_more = "bandwidth = \"20 MiB\"";
    std::fs::write(scene.path("source/large"), noise(1, BYTES as usize)).unwrap();
    scene
}

/// The nodes' line is over QUIC, whatever they would choose within one machine.
async fn over_quic(consumer: &Node) {
    let (pool, peer) = (&consumer.context().pool, name(PROVIDER));
    pool.favour(&peer, Transport::Quic);
    assert_eq!(pool.connection(&peer).await.unwrap().transport(), Transport::Quic);
}

fn behind(network: &Arc<FilteredNetwork>) -> World {
    World { network: network.clone(), ..World::real() }
}

const BYTES: u64 = 120 << 20;
/// What the provider sends in a second, as `scene` has it.
const RATE: u64 = 20 << 20;

//! As a service: the unit's command line as an ordinary user, a graceful stop, a resume at restart.

use crate::exchange::{assert_settled, folder};
use crate::support::{CONSUMER, Site, compare_folders, posthouse, wait_for};
use std::time::Duration;

#[test]
fn a_stopped_node_drains_within_ten_seconds_and_goes_on_after_its_restart() {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..12u8 {
        let mut content = vec![0; 32 << 20];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    let mut site = Site::start(&folder("keep", source.path(), false));
    posthouse(&["job", "run", "--config", &site.config(CONSUMER), "tree"]).ok();
    std::thread::sleep(Duration::from_millis(400));
    let (code, took) = site.consumer.stop();
    assert_eq!(code, 0, "{}", site.consumer.log_tail());
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (code, took) = site.provider.stop();
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    site.provider.restart();
    site.consumer.restart();
    wait_for("the transfer goes on by itself", Duration::from_secs(90), || {
        let ran = posthouse(&["transfer", "list", "--config", &site.config(CONSUMER), "--json"]);
        ran.stdout.contains("\"settled\"")
    });
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    assert_settled(&site.take("tree"));
}

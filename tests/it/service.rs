//! As a service: the unit's command line as an ordinary user, a graceful stop, a resume at restart.

use crate::exchange::{assert_settled, folder};
use crate::support::{CONSUMER, Site, compare_folders, posthouse, program, wait_for};
use std::path::Path;
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

/// Above a size that does not grow, a block of memory goes back to the system when it is freed (decision 0035).
#[test]
fn a_daemon_gives_large_blocks_of_memory_back() {
    let source = tempfile::tempdir().expect("a folder");
    let site = Site::start(&folder("keep", source.path(), false));
    for daemon in [&site.coordinator, &site.provider, &site.consumer] {
        let told = |what: &str| std::fs::read(format!("/proc/{}/{what}", daemon.pid())).expect("it runs");
        let setting = |word: &[u8]| word == b"MALLOC_MMAP_THRESHOLD_=1048576".as_slice();
        assert!(told("environ").split(|byte| *byte == 0).any(setting));
        // It is called as before, for those who look for it by name.
        let name = Path::new(program()).file_name().expect("a program has a name");
        assert_eq!(told("comm").trim_ascii_end(), name.as_encoded_bytes());
        let first = told("cmdline").split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
        assert_eq!(first.as_deref(), Some(program().as_bytes()));
    }
}

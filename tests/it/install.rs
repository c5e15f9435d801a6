//! The tarball: installed without root, three accounts' folders, each role started by its unit's own command line
//! as an ordinary user with a socket for sd_notify; the units of root looked at by systemd itself.

use crate::exchange::{assert_settled, make_tree};
use crate::support::{
    CENTRE, CONSUMER, Daemon, PROVIDER, Ran, compare_folders, free_ports, program, run, text, wait_for,
};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn the_units_hold_for_systemd_without_a_word() {
    let checked = run(Command::new(root().join("packaging/check-units")).arg(program())).ok();
    assert_eq!(checked.stderr, "");
}

#[test]
fn a_users_installation_exchanges_a_folder_by_the_units_command_lines() {
    let folder = tempfile::Builder::new().prefix("posthouse-install-").tempdir().expect("a temporary folder");
    let dir = folder.path();
    let unpacked = tarball(dir);
    let [centre_port, police_port, housing_port, http] = free_ports();
    let source = dir.join("source");
    make_tree(&source);
    owned_by_the_user(&source);
    open_to_all(dir);
    let centre = Home::install(dir, "centre", &unpacked);
    for settings in ["sysctl.d/posthouse.conf", "modules-load.d/posthouse.conf"] {
        let there = std::fs::read(centre.path.join(".local/share/posthouse").join(settings))
            .expect("what the machine may be given");
        assert_eq!(there, std::fs::read(root().join("packaging").join(settings)).expect("it is shipped"));
    }
    let police = Home::install(dir, "police", &unpacked);
    let housing = Home::install(dir, "housing", &unpacked);

    let data = centre.path.join(".local/share/posthouse-coordinator");
    let listen = format!("127.0.0.1:{centre_port}");
    let http = format!("127.0.0.1:{http}");
    let init =
        ["coordinator", "init", "--data-dir", text(&data), "--name", CENTRE, "--listen", &listen, "--http", &http];
    centre.posthouse(&init).ok();
    let _coordinator = centre.start("coordinator");
    let centre_config = data.join("coordinator.toml");
    let inbox = dir.join("housing/inbox");
    let offered = format!("[[resource]]\nid = \"tree\"\nfolder = \"{}\"\nlinks = \"keep\"\n", text(&source));
    let taken = format!(
        "[[job]]\nname = \"tree\"\nresource = \"{PROVIDER}/tree\"\ninto = {{ folder = \"{}\" }}\nwrite = \"upsert\"\n\
         schedule = \"manual\"\n",
        text(&inbox)
    );
    let join = |home: &Home, name: &str, port: u16, rest: &str| {
        let config = format!(
            "[node]\nname = \"{name}\"\ndata_dir = \"{}\"\nlisten = \"127.0.0.1:{port}\"\n\
             advertise = \"127.0.0.1:{port}\"\n\n[coordinator]\naddress = \"{listen}\"\n\n{rest}",
            text(&home.path.join(".local/share/posthouse"))
        );
        std::fs::write(home.node_config(), config).expect("node.toml is written");
        let token = centre.posthouse(&["coordinator", "token", "--config", text(&centre_config), "--node", name]).ok();
        let config = home.node_config();
        home.posthouse(&["node", "join", "--config", text(&config), "--token", token.stdout.trim()]).ok();
        home.start("node")
    };
    let _provider = join(&police, PROVIDER, police_port, &offered);
    let mut consumer = join(&housing, CONSUMER, housing_port, &taken);
    let resource = format!("{PROVIDER}/tree");
    let grant = ["grant", "add", "--config", text(&centre_config), "--consumer", CONSUMER, "--resource", &resource];
    centre.posthouse(&[&grant[..], &["--until", "2099-12-31"]].concat()).ok();

    let config = housing.node_config();
    let take = ["job", "run", "--config", text(&config), "tree", "--wait", "--json"];
    assert_settled(&housing.posthouse(&take).ok().json());
    assert_eq!(compare_folders(&source, &inbox), "");

    // Stopped in the middle, it drains; started again, it goes on by itself.
    std::fs::remove_dir_all(&inbox).expect("the inbox is emptied");
    housing.posthouse(&["job", "run", "--config", text(&config), "tree"]).ok();
    std::thread::sleep(Duration::from_millis(100));
    let (code, _) = consumer.stop();
    assert_eq!(code, 0, "{}", consumer.log_tail());
    consumer.restart();
    wait_for("the transfer goes on", Duration::from_secs(60), || compare_folders(&source, &inbox).is_empty());

    // Installing again upgrades and keeps the configuration; taking it away leaves the data.
    let before = std::fs::read(housing.node_config()).expect("the configuration");
    housing.install_again(&unpacked);
    assert_eq!(std::fs::read(housing.node_config()).expect("the configuration"), before);
    consumer.stop();
    let data = housing.path.join(".local/share/posthouse");
    let own = data.join("doc/own.txt");
    std::fs::write(&own, "").expect("a file of the user's");
    housing.run(&[text(&data.join("install.sh")), "uninstall", "--user"]).ok();
    assert!(!housing.path.join(".local/bin/posthouse").exists());
    assert!(housing.node_config().exists() && inbox.exists());
    assert!(data.join("node.sqlite").exists() && data.join("identity").exists());
    let left = ["config", "doc/README.md", "sysctl.d", "modules-load.d", "install.sh"];
    assert_eq!(left.map(|name| data.join(name).exists()), [false; 5]);
    assert!(own.exists());
    // Each that was installed has a name that is known to go.
    let doc = std::fs::read_dir(data.join("doc")).expect("it stays").count();
    assert_eq!(doc, 1);
}

/// The program under test, packed as a release is, and unpacked.
fn tarball(dir: &Path) -> PathBuf {
    let made = run(Command::new(root().join("packaging/install.sh")).args([
        "build",
        "--program",
        program(),
        "--out",
        text(&dir.join("dist")),
    ]))
    .ok();
    let tarball = made.stdout.lines().last().expect("the tarball's path");
    run(Command::new("tar").args([
        "-xzf",
        tarball,
        "-C",
        text(dir),
        "--one-top-level=unpacked",
        "--strip-components=1",
    ]))
    .ok();
    dir.join("unpacked")
}

/// The home folder of one account with Posthouse in it.
struct Home {
    path: PathBuf,
    notify: PathBuf,
}

impl Home {
    fn install(dir: &Path, name: &str, unpacked: &Path) -> Self {
        let path = dir.join(name);
        std::fs::create_dir(&path).expect("a home");
        owned_by_the_user(&path);
        let home = Self { notify: path.join("notify"), path };
        home.install_again(unpacked);
        home
    }

    fn install_again(&self, unpacked: &Path) {
        self.run(&[text(&unpacked.join("install.sh")), "install", "--user"]).ok();
    }

    /// Runs words as the ordinary user whose home this is.
    fn run(&self, words: &[&str]) -> Ran {
        let all = self.words(words.iter().map(|word| (*word).to_owned()).collect());
        run(Command::new(&all[0]).args(&all[1..]).current_dir(&self.path))
    }
    fn posthouse(&self, words: &[&str]) -> Ran {
        let program = self.path.join(".local/bin/posthouse");
        self.run(&[&[text(&program)], words].concat())
    }

    fn words(&self, command: Vec<String>) -> Vec<String> {
        let mut words = Vec::new();
        if rustix::process::geteuid().is_root() {
            let user = format!("--reuid={USER}");
            let group = format!("--regid={USER}");
            words.extend(["setpriv", &user, &group, "--clear-groups"].map(str::to_owned));
        }
        let home = format!("HOME={}", text(&self.path));
        let notify = format!("NOTIFY_SOCKET={}", text(&self.notify));
        words.extend(["env", "-u", "XDG_CONFIG_HOME", "-u", "XDG_RUNTIME_DIR", &home, &notify].map(str::to_owned));
        words.extend(command);
        words
    }

    /// Starts a role by its unit's `ExecStart` and waits until it says that it is ready.
    fn start(&self, role: &str) -> Daemon {
        let unit = self.path.join(format!(".config/systemd/user/posthouse-{role}.service"));
        let unit = std::fs::read_to_string(unit).expect("the unit is installed");
        assert!(unit.lines().any(|line| line == "Type=notify"), "{unit}");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command line");
        let line = line.replace("%h", text(&self.path));
        let _ = std::fs::remove_file(&self.notify);
        let socket = UnixDatagram::bind(&self.notify).expect("a socket");
        open_to_all(&self.notify);
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
        let command = line.split_whitespace().map(str::to_owned).collect();
        let daemon = Daemon::start_command(self.words(command), self.path.join(format!("{role}.log")), Vec::new());
        let mut said = [0; 4096];
        loop {
            let bytes = socket.recv(&mut said).unwrap_or_else(|e| panic!("{role}: {e}\n{}", daemon.log_tail()));
            if said[..bytes].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return daemon;
            }
        }
    }

    fn node_config(&self) -> PathBuf {
        self.path.join(".config/posthouse/node.toml")
    }
}

fn owned_by_the_user(path: &Path) {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").args(["-Rh", &format!("{USER}:{USER}"), text(path)])).ok();
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("a mode");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// nobody's number on Debian and its kin: any account that is not root would do.
const USER: u32 = 65534;

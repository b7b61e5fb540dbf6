//! The tunnel between machines: three network namespaces in a row, as a visitor, a public server and a home behind it have
//! them, with links that can be cut.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::harness::{Builder, Certificate, Daemon, Program, WATCHDOG, temp_dir};
use crate::route_doors::Doors;

const NAME: &str = "www.example.org";
const SECRET: &str = "TB2pbZ5FR8GQZp9W";

/// A network, which lasts as long as its process.
struct Network {
    holder: Child,
}

impl Network {
    /// A network of its own, whose user may change it. `None` for the first, whose user the others have.
    #[track_caller]
    fn new(first: Option<&Network>) -> Self {
        let mut command = match first {
            None => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--net"]);
                command
            }
            Some(first) => {
                let mut command = Command::new("nsenter");
                command.args(first.enter().iter().skip(1)).args(["unshare", "--net"]);
                command
            }
        };
        // It says that it is there, and lasts until its input ends.
        command.args(["sh", "-c", "ip link set lo up && echo up && exec cat"]);
        let holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut network = Network {
            holder: holder.expect("unshare and nsenter, of util-linux"),
        };
        let mut word = [0; 3];
        let output = network.holder.stdout.as_mut().expect("its output");
        std::io::Read::read_exact(output, &mut word).expect("a network of its own");
        network
    }

    fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// The words by which a program is started in it.
    fn enter(&self) -> Vec<String> {
        let words = ["nsenter", "--preserve-credentials", "--user", "--net", "--target"];
        words.into_iter().map(str::to_owned).chain([self.pid()]).collect()
    }

    /// Runs a command in it, and returns its output.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.args(self.enter().iter().skip(1)).args(words);
        let (status, output, errors) = Program::start(&mut command).finish();
        assert!(status.success(), "{words:?}: {output}{errors}");
        output
    }

    /// Links it with another one: this one gets the first address of a network, the other the second.
    #[track_caller]
    fn link(&self, other: &Network, name: &str, net: &str) {
        let pid = other.pid();
        let ends = [
            "ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", &pid,
        ];
        self.run(&ends);
        for (network, host) in [(self, 1), (other, 2)] {
            network.run(&["ip", "address", "add", &format!("{net}.{host}/24"), "dev", name]);
            network.run(&["ip", "link", "set", name, "up"]);
        }
    }

    fn daemon(&self, arguments: &[&str]) -> Builder {
        let enter = self.enter();
        let launcher: Vec<&str> = enter.iter().map(String::as_str).collect();
        Daemon::with(arguments.iter().copied()).through(&launcher)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// curl comes over TLS from one network by way of the second to a server in the third, which it cannot reach itself; and
/// again after the link behind the tunnel was cut for as long as it takes to be noticed.
#[test]
fn curl_reaches_a_server_behind_a_tunnel_from_another_network_and_again_after_the_link_was_cut() {
    let public = Network::new(None);
    let (visitors, home) = (Network::new(Some(&public)), Network::new(Some(&public)));
    public.link(&visitors, "front", "10.77.1");
    public.link(&home, "back", "10.77.2");
    let (of_door, of_site) = (Certificate::of_host("gateway.example.org"), Certificate::of_host(NAME));
    let place = temp_dir();
    let secret = place.path().join("secret");
    fs::write(&secret, SECRET).expect("a file");
    let (certificate, key) = (of_door.path("cert.pem"), of_door.path("key.pem"));
    let doors = Doors::new(&format!(
        "[route.web]\ntls-listen = '10.77.1.1:4430'\ntunnel-listen = 'tls:10.77.2.1:18000'\ncert = '{certificate}'\nkey = '{key}'\n\
         tunnel-ping = '1s'\ntunnel-ping-timeout = '1s'\n[route.web.services.'{NAME}']\nclient-secret = '{SECRET}'\n"
    ));
    let door = public.daemon(&["run", "--config", doors.path()]).spawn();
    door.stderr_wait("web: ready");
    let (site, site_key) = (of_site.path("cert.pem"), of_site.path("key.pem"));
    let mut server = Command::new("nsenter");
    server.args(home.enter().iter().skip(1));
    server.args([
        "openssl",
        "s_server",
        "-www",
        "-accept",
        "127.0.0.1:4433",
        "-cert",
        &site,
        "-key",
        &site_key,
    ]);
    let server = Program::start(&mut server);
    let listens = server.stdout.wait_from(0, |line| line.contains("ACCEPT"));
    listens.expect("a server");
    let client = home
        .daemon(&[
            "tunnel",
            "--remote",
            "10.77.2.1:18000",
            "--tls",
            "--ca",
            &certificate,
            "--server-name",
            "gateway.example.org",
            "--secret-file",
            secret.to_str().expect("UTF-8"),
            "--local",
            "127.0.0.1:4433",
        ])
        .spawn();
    door.stderr_wait("is connected, and serves");
    let patience = WATCHDOG.as_secs().to_string();
    let visit = || {
        visitors.run(&[
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            &patience,
            "--cacert",
            &site,
            "--resolve",
            "www.example.org:4430:10.77.1.1",
            "https://www.example.org:4430/",
        ])
    };
    let page = visit();
    assert!(page.contains("s_server -www"), "{page}");
    public.run(&["ip", "link", "set", "back", "down"]);
    door.stderr_wait("through the tunnel within --tunnel-ping-timeout");
    public.run(&["ip", "link", "set", "back", "up"]);
    door.stderr_wait_nth("is connected, and serves", 2);
    let page = visit();
    assert!(page.contains("s_server -www"), "{page}");
    client.stderr_wait("it is connected to again in");
}

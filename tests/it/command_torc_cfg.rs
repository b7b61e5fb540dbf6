//! A torc.cfg written for torcd: settings of other programs, any byte, other files, programs that are not there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::command::ask;
use crate::harness::{Client, Daemon, TempDir, temp_dir, untimed};

struct Home(TempDir);

impl Home {
    /// With this torc.cfg.
    fn with(text: impl AsRef<[u8]>) -> Self {
        let home = Self(temp_dir());
        home.write("torc.cfg", text);
        home
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> String {
        self.path("torc.cfg").to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn serve(&self) -> Daemon {
        Daemon::with(["command", "--config", &self.file(), "--listen", "127.0.0.1:0"]).start()
    }

    /// The result of `check`: exit status, standard output, standard error without the file's name.
    #[track_caller]
    fn check(&self) -> (Option<i32>, String, String) {
        let (status, stdout, stderr) = Daemon::with(["check", "--config", &self.file()]).spawn().finish();
        (
            status.code(),
            stdout,
            stderr.replace(self.0.path().to_str().unwrap(), "@"),
        )
    }
}

#[test]
fn unknown_settings_are_passed_over_with_a_warning() {
    let home = Home::with(
        "logfile = \"/var/log/torcd\"; max_bufer = 5;\nprocesses = (\n  { name = \"echo\"; cmd = \"/bin/echo\"; argc = 1;\n    \
         descripton = \"says it again\"; owner = { name = \"x\"; }; }\n);\n",
    );
    let (status, stdout, stderr) = home.check();
    assert_eq!((status, stdout.as_str()), (Some(0), "ok"), "{stderr}");
    let told = untimed(&stderr);
    let unknown =
        "the setting `logfile` has no meaning here and is passed over; see iotcpd.toml(5) for those there are";
    assert_eq!(told.len(), 4, "{stderr}");
    assert_eq!(told[0], format!("WARN @/torc.cfg:1:1: {unknown}"));
    assert!(
        told[1].contains(":1:29: the setting `max_bufer`") && told[1].ends_with("did you mean `max-buffer`?"),
        "{stderr}"
    );
    assert!(told[2].contains(":4:5: the setting `descripton`"), "{stderr}");
    let daemon = home.serve();
    daemon.stderr_wait("WARN ");
    assert_eq!(ask(&daemon, "echo\nword\n"), "torcd>word\n");
}

#[test]
fn a_setting_in_the_wrong_place_is_passed_over_with_the_right_one() {
    let home = Home::with(
        "user = \"nobody\";\nprocesses = ( { name = \"echo\"; cmd = \"/bin/echo\"; argc = 1;\n  allow = \"127.0.0.1\"; } );\n",
    );
    let (status, stdout, stderr) = home.check();
    assert_eq!((status, stdout.as_str()), (Some(0), "ok"), "{stderr}");
    let told = untimed(&stderr);
    let [user, allow] = [
        "WARN @/torc.cfg:1:1: the setting `user` belongs to the group of a command in `processes`; here it is passed over",
        "WARN @/torc.cfg:3:3: the setting `allow` belongs to the top of the file; here it is passed over",
    ];
    assert_eq!(told, [user, allow]);
}

#[test]
fn a_program_that_is_not_there_costs_its_own_command_alone() {
    let home = Home::with(
        "processes = (\n  { name = \"late\"; cmd = \"@/late\"; },\n  { name = \"echo\"; cmd = \"/bin/echo\"; argc = 1; }\n);\n",
    );
    let here = home.0.path().to_str().unwrap().to_owned();
    let text = fs::read_to_string(home.file()).unwrap().replace('@', &here);
    home.write("torc.cfg", text);
    let (status, stdout, stderr) = home.check();
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(
        stderr.starts_with("@/torc.cfg:2:26: cmd: cannot start \"@/late\": ") && stderr.lines().count() == 1,
        "{stderr}"
    );
    let daemon = home.serve();
    daemon.stderr_wait("ERROR command: command \"late\" is not available: cannot start");
    let refused = "torcd: late: the program cannot be started; the server's log says why\n";
    assert_eq!(ask(&daemon, "late\n"), refused);
    assert_eq!(ask(&daemon, "echo\nword\n"), "torcd>word\n");
    // The same holds at HUP, where the rest of the file counts.
    let text = fs::read_to_string(home.file())
        .unwrap()
        .replace("name = \"echo\"", "name = \"say\"");
    home.write("torc.cfg", text);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(ask(&daemon, "say\nword\n"), "torcd>word\n");
    // The operator can mend it.
    let script = std::process::Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\necho here\\n' >\"$0\"; chmod 755 \"$0\""])
        .arg(home.path("late"))
        .status();
    assert!(script.unwrap().success());
    assert_eq!(ask(&daemon, "late\n"), "here\n");
}

#[test]
fn any_byte_may_stand_in_comments_and_texts() {
    let home = Home::with(
        b"// gr\xfc\xdfe \xff\n/* \xe9 */ # \xfe\nnote = \"caf\xe9\";\nprocesses = (\n  { name = \"caf\xe9\"; cmd = \"@/tool\"; },\n  \
          { name = \"th\\xe9\"; cmd = \"/bin/echo\"; argc = 1; }\n);\n",
    );
    let tool = home
        .0
        .path()
        .join(std::ffi::OsString::from(std::str::from_utf8(b"tool").unwrap()));
    fs::write(&tool, "#!/bin/sh\nprintf '%s\\n' \"$0\"\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read(home.file()).unwrap();
    let here = home.0.path().to_str().unwrap().as_bytes();
    let text: Vec<u8> = text
        .into_iter()
        .flat_map(|byte| if byte == b'@' { here.to_vec() } else { vec![byte] })
        .collect();
    home.write("torc.cfg", text);
    assert_eq!(home.check().0, Some(0));
    let daemon = home.serve();
    assert!(ask(&daemon, b"caf\xe9\n").ends_with("/tool\n"));
    assert_eq!(ask(&daemon, b"th\xe9\nword\n"), "torcd>word\n");
    let mut client = Client::connect(&daemon.addr());
    client.send("list\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"caf\xe9\nth\xe9\n");
}

#[test]
fn other_files_are_included_where_they_are_named() {
    let home = Home::with(
        "@include \"door.cfg\"\nprocesses = (\n@include \"sub/more.cfg\"\n  { name = \"here\"; cmd = \"/bin/echo\"; } );\n",
    );
    fs::create_dir(home.path("sub")).unwrap();
    home.write("door.cfg", "read_timeout = \"20s\"; # no end of line behind this");
    home.write(
        "sub/more.cfg",
        "{ name = \"more\"; cmd = \"/bin/echo\"; },\n  @include \"deeper.cfg\"\n",
    );
    home.write("sub/deeper.cfg", "{ name = \"deeper\"; cmd = \"/bin/echo\"; },");
    assert_eq!(home.check(), (Some(0), "ok".to_owned(), String::new()));
    let daemon = home.serve();
    assert_eq!(ask(&daemon, "list\n"), "more\ndeeper\nhere\n");
    // They are read again as well.
    home.write("sub/deeper.cfg", "{ name = \"changed\"; cmd = \"/bin/echo\"; },");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(ask(&daemon, "list\n"), "more\nchanged\nhere\n");
    // A mistake is reported in its file.
    home.write(
        "sub/deeper.cfg",
        "\n  { name = \"a\"; cmd = \"/bin/echo\"; threads = 0; },",
    );
    let (status, _, stderr) = home.check();
    assert_eq!(status, Some(2));
    assert_eq!(
        stderr,
        "@/sub/deeper.cfg:2:46: threads: 0 is out of range; write a value from 1 to 100000"
    );
}

#[test]
fn a_failed_include_is_reported_at_its_place() {
    let commands = "processes = ( { name = \"a\"; cmd = \"/bin/echo\"; } );\n";
    let told = |text: &str, files: &[(&str, &str)]| {
        let home = Home::with(format!("{text}\n{commands}"));
        for (name, text) in files {
            home.write(name, text);
        }
        symlink("/dev/zero", home.path("endless")).unwrap();
        let (status, _, stderr) = home.check();
        assert_eq!(status, Some(2), "{stderr}");
        stderr
    };
    let missing = told("  @include \"none.cfg\"", &[]);
    assert!(
        missing.starts_with("@/torc.cfg:1:3: cannot read none.cfg: No such file"),
        "{missing}"
    );
    let endless = told("@include \"endless\"", &[]);
    assert!(endless.contains("it is a device; name a regular file"), "{endless}");
    let itself = told("@include \"torc.cfg\"", &[]);
    assert_eq!(
        itself,
        "@/torc.cfg:1:1: @/torc.cfg includes itself in this way; leave this out"
    );
    let circle = told(
        "@include \"b\"",
        &[("b", "@include \"c\""), ("c", " @include \"b\"\n@include \"torc.cfg\"")],
    );
    assert_eq!(circle.lines().count(), 2, "{circle}");
    assert!(
        circle.starts_with("@/c:1:2: @/b includes itself in this way"),
        "{circle}"
    );
    // Each a file of its own.
    let deep: Vec<_> = (1..=20)
        .map(|n| (format!("f{n}"), format!("@include \"f{}\"", n + 1)))
        .collect();
    let deep: Vec<_> = deep.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let deep = told("@include \"f1\"", &deep);
    assert!(
        deep.starts_with("@/f10:1:1: files include each other more than 10 deep here"),
        "{deep}"
    );
    // Ten times ten times ten, and so on.
    let many: Vec<_> = (1..=9)
        .map(|n| (format!("f{n}"), format!("@include \"f{}\"\n", n + 1).repeat(10)))
        .chain([("f10".to_owned(), "a = 1;".to_owned())])
        .collect();
    let many: Vec<_> = many.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let many = told("@include \"f1\"", &many);
    assert!(many.contains("more than 1000 files are included; leave some"), "{many}");
    assert_eq!(many.matches("files are included").count(), 1, "{many}");
    // A circle is read before it is found to be one.
    let circles = told(&"@include \"torc.cfg\"\n".repeat(20_000), &[]);
    assert_eq!(circles.lines().count(), 1001, "{circles}");
    let nameless = told("@include more.cfg", &[]);
    assert!(
        nameless.starts_with("@/torc.cfg:1:1: the name of a file is missing"),
        "{nameless}"
    );
}

#[test]
fn numbers_may_be_written_as_texts_everywhere() {
    let home = Home::with(
        "port = \"0\";\nprocesses = ( { name = \"echo\"; cmd = \"/bin/echo\"; threads = \"5\"; argc = \"1\"; } );\n",
    );
    assert_eq!(home.check(), (Some(0), "ok".to_owned(), String::new()));
    let daemon = Daemon::with(["command", "--config", &home.file()]).start();
    let port = daemon.addr().port();
    let mut client = Client::connect(&crate::harness::Address::parse(&format!("127.0.0.1:{port}")).unwrap());
    client.send("echo\nword\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"torcd>word\n");
}

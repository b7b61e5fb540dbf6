//! The recognition of a file that was named as a configuration by mistake.
//!
//! It is used only when reading has failed and nothing in the file is known, so a wrong guess loses nothing that could
//! have been read. Its one message replaces a syntax error for each line of a foreign file.

/// The format in which a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadAs {
    Toml,
    Torc,
}

/// The apparent kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForeignFile {
    /// The kind, as the end of the sentence "it looks like".
    pub(super) kind: &'static str,
    /// The remedy.
    pub(super) remedy: &'static str,
}

impl ReadAs {
    /// Returns the end of the sentence "this is read as", for the file `name`.
    fn words(self, name: &str) -> &'static str {
        match self {
            ReadAs::Toml => "TOML, for its name does not end in .cfg",
            ReadAs::Torc if name.ends_with(".cfg") => "a torc.cfg, for its name ends in .cfg",
            ReadAs::Torc => "a torc.cfg, the one kind of file that iotcpd command reads",
        }
    }
}

impl ForeignFile {
    /// Returns the one message about the file `name`.
    pub(super) fn message(self, name: &str, read_as: ReadAs) -> String {
        let (read_as, ForeignFile { kind, remedy }) = (read_as.words(name), self);
        format!("{name}:1:1: this is read as {read_as}, and looks like {kind}; {remedy}")
    }
}

/// Returns the line before the mistakes of a file that describes no service and is of no recognized kind. `None` if the
/// operator has stated the format.
pub(super) fn unknown(name: &str, bytes: &[u8], read_as: ReadAs) -> Option<String> {
    // A file that includes others is a torc.cfg.
    let begins_well = memchr::memmem::find(bytes, b"@include").is_some();
    if read_as == ReadAs::Torc && (!name.ends_with(".cfg") || begins_well) {
        return None;
    }
    let read_as = read_as.words(name);
    Some(format!(
        "{name}:1:1: this is read as {read_as}, and no service can be found in it; iotcpd.toml(5) shows what it should look \
         like"
    ))
}

const fn foreign(kind: &'static str, remedy: &'static str) -> ForeignFile {
    ForeignFile { kind, remedy }
}

const OTHER_FILE: &str = "name the file that describes the services";
const SAVE_AS_UTF_8: &str = "save it as UTF-8";

/// The first bytes of files that are not text.
const MAGIC: &[(&[u8], ForeignFile)] = &[
    (
        b"\x7fELF",
        foreign(
            "a program (ELF)",
            "name the file that describes the services; there the program is the value of `daemon`",
        ),
    ),
    (b"\x1f\x8b", foreign("a compressed file (gzip)", OTHER_FILE)),
    (b"BZh", foreign("a compressed file (bzip2)", OTHER_FILE)),
    (b"\xfd7zXZ\0", foreign("a compressed file (xz)", OTHER_FILE)),
    (b"\x28\xb5\x2f\xfd", foreign("a compressed file (zstd)", OTHER_FILE)),
    (b"PK\x03\x04", foreign("an archive (zip)", OTHER_FILE)),
    (b"%PDF", foreign("a document (PDF)", OTHER_FILE)),
    (b"\x89PNG", foreign("an image (PNG)", OTHER_FILE)),
    (b"SQLite format 3\0", foreign("a database (SQLite)", OTHER_FILE)),
    (b"\xff\xfe", foreign("text in UTF-16", SAVE_AS_UTF_8)),
    (b"\xfe\xff", foreign("text in UTF-16", SAVE_AS_UTF_8)),
    (b"-----BEGIN ", foreign("a key or a certificate (PEM)", OTHER_FILE)),
    (
        b"#!",
        foreign(
            "a script",
            "name the file that describes the services; there the script is the value of `daemon`",
        ),
    ),
];

/// The number of bytes that are examined.
const BEGINNING: usize = 64 * 1024;

/// Words that begin a line of a squid.conf.
const SQUID_WORDS: &[&str] = &[
    "http_port",
    "https_port",
    "http_access",
    "acl",
    "cache_dir",
    "cache_mem",
    "cache_peer",
    "coredump_dir",
    "refresh_pattern",
    "visible_hostname",
    "url_rewrite_program",
    "url_rewrite_children",
    "auth_param",
    "external_acl_type",
    "access_log",
    "cache_log",
    "dns_nameservers",
    "redirect_program",
];

/// Words that begin a line of a squidGuard.conf.
const SQUIDGUARD_WORDS: &[&str] = &[
    "dbhome",
    "logdir",
    "dest",
    "destination",
    "source",
    "src",
    "rew",
    "rewrite",
    "acl",
    "time",
];

/// Returns the apparent kind of a file, if it differs from the format in which it was read. `None` if the file may be a
/// configuration of that format.
pub(super) fn recognize(bytes: &[u8], read_as: ReadAs) -> Option<ForeignFile> {
    let bytes = bytes.get(..BEGINNING).unwrap_or(bytes);
    if let Some((_, foreign)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(*foreign);
    }
    if bytes.contains(&0) {
        return Some(foreign("a binary file", OTHER_FILE));
    }
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| has_content(line)).collect();
    recognize_lines(&lines, read_as)
}

fn has_content(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(['#', ';']) && !line.starts_with("//")
}

fn recognize_lines(lines: &[&str], read_as: ReadAs) -> Option<ForeignFile> {
    let first = *lines.first()?;
    let begin = |words: &[&str]| lines.iter().filter(|line| words.contains(&first_word(line))).count();
    let any = |found: fn(&str) -> bool| lines.iter().any(|line| found(line));
    if read_as != ReadAs::Toml && any(is_service_header) {
        let remedy = "give it a name that ends in .toml, and run it with iotcpd run";
        return Some(foreign("a file for iotcpd run", remedy));
    }
    if read_as != ReadAs::Torc && any(|line| is_libconfig_setting(line, "processes")) {
        let remedy = "give it a name that ends in .cfg, or run it with iotcpd command";
        return Some(foreign("a torc.cfg", remedy));
    }
    if any(|line| matches!(line, "[Unit]" | "[Service]" | "[Socket]")) {
        return Some(foreign("a unit of systemd", OTHER_FILE));
    }
    if begin(&["dbhome"]) > 0 || (any(|line| line.ends_with('{')) && begin(SQUIDGUARD_WORDS) > 1) {
        let remedy = "name the file that describes the services; there it stands in daemon = \"squidGuard -c FILE\"";
        return Some(foreign("a squidGuard.conf", remedy));
    }
    if begin(SQUID_WORDS) > 0 {
        let remedy = "name the file that describes the services; a squid.conf names iotcpd ask as a helper";
        return Some(foreign("a squid.conf", remedy));
    }
    if is_command_line(first) {
        let remedy = "write each flag as a key below a table, such as [pool.main] and num-daemons = 8";
        return Some(foreign("a command line", remedy));
    }
    let like_toml = "write it in TOML, such as [pool.main] and daemon = \"squidGuard -c sg.conf\" below it";
    if first.starts_with('{') || first.starts_with("[{") {
        return Some(foreign("JSON", like_toml));
    }
    if first.starts_with('<') {
        return Some(foreign("XML or HTML", OTHER_FILE));
    }
    if first == "---" || first.starts_with("%YAML") || is_yaml_key(first) {
        return Some(foreign("YAML", like_toml));
    }
    if first_word(first) == "service" && any(|line| line.starts_with('{')) {
        return Some(foreign("a file of xinetd", like_toml));
    }
    if lines.iter().all(|line| is_variable(line)) {
        return Some(foreign("a list of variables, as in /etc/default", OTHER_FILE));
    }
    None
}

fn first_word(line: &str) -> &str {
    line.split([' ', '\t']).next().unwrap_or(line)
}

/// Returns true for the header of a table that describes a service.
fn is_service_header(line: &str) -> bool {
    ["[pool.", "[exec.", "[command.", "[route.", "[server]", "[server."]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// Returns true for a setting of libconfig with this name.
fn is_libconfig_setting(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix(name).map(str::trim_start);
    rest.is_some_and(|rest| {
        rest.strip_prefix(['=', ':'])
            .is_some_and(|rest| matches!(rest.trim_start().chars().next(), None | Some('(')))
    })
}

fn is_command_line(line: &str) -> bool {
    let program = first_word(line);
    let name = program.rsplit('/').next().unwrap_or(program);
    (matches!(name, "iotcpd" | "sockexec" | "squidGuard") && !line.contains('='))
        || (line.starts_with('-') && line != "---" && !line.starts_with("- "))
}

/// Returns true for `key: value`, or `key:` alone.
fn is_yaml_key(line: &str) -> bool {
    let plain = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    line.split_once(':')
        .is_some_and(|(key, rest)| plain(key) && (rest.is_empty() || rest.starts_with(' ')))
}

/// Returns true for `NAME=value`, without quotes.
fn is_variable(line: &str) -> bool {
    let name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    line.strip_prefix("export ")
        .unwrap_or(line)
        .split_once('=')
        .is_some_and(|(key, _)| name(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_recognized_by_its_beginning() {
        for (text, kind) in [
            (&b"\x7fELF\x02\x01\x01\0"[..], "a program (ELF)"),
            (b"\x1f\x8b\x08\0", "a compressed file (gzip)"),
            (b"\xff\xfe[\0p\0", "text in UTF-16"),
            (b"#!/bin/sh\nexec cat\n", "a script"),
            (b"abc\0def", "a binary file"),
            (b"-----BEGIN PRIVATE KEY-----\n", "a key or a certificate (PEM)"),
            (b"{ \"pool\": { \"main\": {} } }", "JSON"),
            (b"# x\n---\npool:\n  main:\n", "YAML"),
            (b"pool:\n  main:\n    port: 1\n", "YAML"),
            (b"<?xml version=\"1.0\"?>\n", "XML or HTML"),
            (
                b"# squid\nacl localnet src 10.0.0.0/8\nhttp_port 3128\n",
                "a squid.conf",
            ),
            (b"dbhome /var/lib/squidguard/db\nlogdir /var/log\n", "a squidGuard.conf"),
            (
                b"dest ads {\n domainlist ads\n}\nacl {\n default { pass !ads all }\n}\n",
                "a squidGuard.conf",
            ),
            (b"[Unit]\nDescription=x\n", "a unit of systemd"),
            (b"/usr/bin/iotcpd -n 8 -d 'cat' -p 9991\n", "a command line"),
            (b"-n 8 -p 9991\n", "a command line"),
            (b"port = 3699;\nprocesses = (\n { name = \"x\"; } );", "a torc.cfg"),
            (b"# x\n[pool.main]\ndaemon = 'cat'\n", "a file for iotcpd run"),
            (b"service x\n{\n port = 1\n}\n", "a file of xinetd"),
            (
                b"DAEMON_OPTS=-n 8\nUSER=nobody\n",
                "a list of variables, as in /etc/default",
            ),
        ] {
            let own = if kind == "a torc.cfg" {
                ReadAs::Toml
            } else {
                ReadAs::Torc
            };
            let found = recognize(text, own).map(|foreign| foreign.kind);
            assert_eq!(found, Some(kind), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_possible_configuration_is_not_recognized_as_something_else() {
        for text in [
            "",
            "# nothing\n",
            "[main]\nport = \n",
            "daemon = cat\n",
            "port = 3699;",
            "hello world\n",
            "x",
        ] {
            for own in [ReadAs::Toml, ReadAs::Torc] {
                assert_eq!(recognize(text.as_bytes(), own), None, "{text:?}");
            }
        }
    }
}

//! The table `[log]`: the levels and the form of the log, for all services.

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::Collected;
use super::keys::{Keys, Section};
use crate::config::spec::log::{LogSpec, LogTable};

/// The name of the table.
pub(super) const KIND: &str = "log";

/// Reads the table into `found`.
pub(super) fn read(kind: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>, found: &mut Collected<'_>) {
    let Some(table) = value.get_ref().as_table() else {
        let text = "`log` is a table of its own; write [log], and below it level = \"info\"";
        found.report.add(kind.span().start, text);
        return;
    };
    let (table, _) = Keys::read::<LogTable>(&Section::new(kind, table), &mut found.report);
    found.log = LogSpec::from(table);
}

#[cfg(test)]
mod tests {
    use crate::config::file::{read, read_all};
    use crate::config::spec::log::Format;

    const SERVICE: &str = "[exec.jobs]\nlisten = 'unix:/x'\n";

    fn told(log: &str) -> String {
        read("f", format!("{log}\n{SERVICE}").as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_file_sets_the_levels_and_the_form() {
        let text = format!("{SERVICE}[log]\nlevel = 'warn,pool=debug'\nformat = 'json'\n");
        let read = read_all("f", text.as_bytes()).unwrap();
        assert_eq!(read.services.len(), 1);
        assert_eq!(read.log.level, Some("warn,pool=debug".parse().unwrap()));
        assert_eq!(read.log.format, Some(Format::Json));
        let nothing = read_all("f", SERVICE.as_bytes()).unwrap().log;
        assert_eq!((nothing.level, nothing.format), (None, None));
    }

    #[test]
    fn a_mistake_is_reported_at_its_position() {
        for (log, line) in [
            (
                "[log]\nlevel = 'inf'",
                "f:2:9: level: there is no level `inf`; did you mean `info`?",
            ),
            (
                "[log]\nlevel = ''",
                "f:2:9: level: it is empty; write for example info, or warn,pool=debug",
            ),
            (
                "[log]\nlevle = 'info'",
                "f:2:1: there is no key `levle`; did you mean `level`?",
            ),
            (
                "[log]\nformat = 'xml'",
                "f:2:10: format: `xml` is not known here; write \"auto\" or \"plain\" or \"time\" or \"journal\" or \"json\"",
            ),
            (
                "log = 'info'",
                "f:1:1: `log` is a table of its own; write [log], and below it level = \"info\"",
            ),
        ] {
            assert_eq!(told(log), line);
        }
        assert!(told("[log]\nlevel = 3").starts_with("f:2:9: level: "));
        let alone = read("f", b"[log]\nlevel = 'info'").unwrap_err().to_string();
        assert!(alone.starts_with("f:1:1: no service is described"), "{alone}");
    }
}

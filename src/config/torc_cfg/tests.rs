//! The syntax in full: the accepted texts, the mistakes and their positions, and that any text is read to its end.

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::{DEEPEST, Document, Opened};

fn no_files(file: &str, _open: &[String]) -> Result<Opened, String> {
    Err(format!("there is no {file}; write it"))
}

/// Returns a value in a short notation.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| format!("big {number}"), |number| number.to_string()),
        DeValue::Float(number) => format!("float {}", number.as_str().parse::<f64>().unwrap()),
        DeValue::Boolean(whether) => whether.to_string(),
        DeValue::Datetime(_) => unreachable!("libconfig knows no dates"),
        DeValue::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| shown(value.get_ref())).collect();
            format!("[{}]", values.join(" "))
        }
        DeValue::Table(table) => format!("{{{}}}", shown_table(table)),
    }
}

fn shown_table(table: &DeTable<'_>) -> String {
    let mut settings: Vec<_> = table.iter().collect();
    settings.sort_by_key(|(key, _)| key.span().start);
    let settings = settings
        .iter()
        .map(|(key, value)| format!("{}={}", key.get_ref(), shown(value.get_ref())));
    settings.collect::<Vec<_>>().join(" ")
}

/// Returns the settings of a text without a mistake.
#[track_caller]
fn read(text: &str) -> String {
    let document = Document::new("file", text, &mut no_files);
    let (table, errors) = document.settings();
    assert_eq!(errors, [], "{text}");
    shown_table(&table)
}

/// Returns the readable settings of a text with mistakes, and the mistakes, each with the text at its position.
fn mistakes(text: &str) -> (String, Vec<(String, String)>) {
    let document = Document::new("file", text, &mut no_files);
    let (table, errors) = document.settings();
    let told = errors.into_iter().map(|error| {
        let at: String = text[error.offset..].chars().take(6).collect();
        (at, error.text)
    });
    (shown_table(&table), told.collect())
}

#[test]
fn a_byte_order_mark_at_the_start_is_ignored() {
    assert_eq!(read("\u{feff}port = 1;"), "port=1");
    assert_eq!(mistakes("port = 1; \u{feff}").1.len(), 1, "elsewhere it is no blank");
}

#[test]
fn a_file_of_torcd_is_read() {
    let text = "// torcd\nport = 3699; # the port\n/* commands\n = ; */ processes = (\n  { name = \"echo\"; threads = 50; \
                cmd = \"/usr/bin/echo\"; argc = 2; },\n  { name: \"date\", threads: 1, cmd: \"/bin/date\" }\n);\n";
    let echo = r#"{name="echo" threads=50 cmd="/usr/bin/echo" argc=2}"#;
    let date = r#"{name="date" threads=1 cmd="/bin/date"}"#;
    assert_eq!(read(text), format!("port=3699 processes=[{echo} {date}]"));
}

#[test]
fn settings_may_end_in_several_ways() {
    for text in [
        "a = 1; b = 2;",
        "a: 1, b: 2",
        "a=1\nb=2\n",
        "a=1 b=2",
        "a=1;;b=2,;",
        "a/**/=//\n1#\nb=2",
    ] {
        assert_eq!(read(text), "a=1 b=2", "{text}");
    }
    assert_eq!(read(""), "");
    assert_eq!(read("\u{c}\r\n\t# nothing"), "");
    assert_eq!(read("*a-b_c* = {}; g = (); h = [];"), "*a-b_c*={} g=[] h=[]");
}

#[test]
fn numbers_are_read_in_all_their_forms() {
    for (written, means) in [
        ("0", "0"),
        ("-17", "-17"),
        ("+17", "17"),
        ("17L", "17"),
        ("17LL", "17"),
        ("0x1F", "31"),
        ("0XfFL", "255"),
        ("0b101", "5"),
        ("0o17", "15"),
        ("0q17", "15"),
        ("9223372036854775807L", "9223372036854775807"),
        ("99999999999999999999", "big 99999999999999999999"),
        ("1.5", "float 1.5"),
        ("-.5", "float -0.5"),
        ("5.", "float 5"),
        ("1e3", "float 1000"),
        ("1.e-3", "float 0.001"),
        ("TRUE", "true"),
        ("False", "false"),
    ] {
        assert_eq!(read(&format!("a = {written};")), format!("a={means}"));
    }
    for written in [
        "017", "-007", "1.2.3", "12abc", "0x", "0xg", "0b2", "1e", "1e+", ".", "-", "--1", "1_000", "-0x1", "00.5",
        "17l", "0b",
    ] {
        let (read, told) = mistakes(&format!("a = {written}; b = 1"));
        assert_eq!((read.as_str(), told.len()), ("b=1", 1), "{written} {told:?}");
    }
}

#[test]
fn text_has_the_escapes_of_libconfig() {
    for (written, means) in [
        (r#""a\n\r\t\f\\\"\x41\X7e""#, "a\n\r\t\u{c}\\\"A~"),
        (r#""^\d+\.$""#, r"^\d+\.$"),
        (r#""\xc3\xbc""#, "ü"),
        (r#""\x4 \xg1 \q""#, r"\x4 \xg1 \q"),
        ("\"ä\nb\"", "ä\nb"),
        (r#""a" "b"/*c*/"d" "#, "abd"),
        ("\"// # /*\"", "// # /*"),
        ("\"a\0b\\x00\"", "a\0b\0"),
        ("\"\"", ""),
    ] {
        assert_eq!(read(&format!("a = {written};")), format!("a={means:?}"));
    }
}

#[test]
fn a_mistake_does_not_hide_the_next() {
    let text = "port = ;\nprocesses = ( { name = echo; threads 5; cmd = \"/x\" } { name = \"b\" );\nwrite $ = 1;\n\
                c == 1; d = 2\n] 5 = 7; e = [ 1, (2), 3 ];\n d = 3; @include \"f\"\nf = (1; 2)\ng = \"a";
    let (read, told) = mistakes(text);
    assert_eq!(read, r#"processes=[{cmd="/x"} {name="b"}] d=2 e=[1 3] f=[1 2]"#);
    let expected = [
        (
            "= ;\npr",
            "a value is missing behind this; write one, such as 3699 or \"text\"",
        ),
        ("echo; ", "`echo` is text; write it between quotes"),
        ("thread", "`threads` has no value; write `=` and a value behind it"),
        ("{ name", "a comma is missing before this; write one between values"),
        (
            "{ name",
            "this `{` is not closed; write `}` behind the last that belongs to it",
        ),
        (
            "$ = 1;",
            "`$` does not belong here; write \" around text, or leave it out",
        ),
        (
            "== 1; ",
            "a value is missing behind this; write one, such as 3699 or \"text\"",
        ),
        ("] 5 = ", "`]` closes nothing that is open; leave it out"),
        (
            "5 = 7;",
            "no setting begins like this; write a name, `=` and a value, such as port = 3699",
        ),
        (
            "(2), 3",
            "an array holds single values only; write ( and ) around a list",
        ),
        ("d = 3;", "`d` is set a second time; keep one of the two"),
        ("@inclu", "there is no f; write it"),
        ("; 2)\ng", "`;` does not belong between values; write a comma"),
        ("\"a", "this text does not end; write \" behind it"),
    ];
    let told: Vec<_> = told.iter().map(|(at, text)| (at.as_str(), text.as_str())).collect();
    assert_eq!(told, expected);
}

#[test]
fn characters_that_are_no_token_are_reported_once() {
    for (text, reads) in [
        ("a = 1 $ b = 2", "a=1 b=2"),
        ("a = $\nb = 2", "b=2"),
        ("a = ä; b = 2", "b=2"),
        ("a$c = 1; b = 2", "c=1 b=2"),
        ("$a = 1; b = 2", "a=1 b=2"),
        ("a = ( 1, '$, 2 ); b = 2", "a=[1 2] b=2"),
    ] {
        let (read, told) = mistakes(text);
        assert_eq!((read.as_str(), told.len()), (reads, 1), "{text} {told:?}");
    }
}

#[test]
fn an_unclosed_bracket_is_reported_where_it_opens() {
    for (text, at) in [
        ("a = {", "{"),
        ("a = ( 1, 2", "( 1, 2"),
        ("a = ( {\nb = 1; )", "{\nb = "),
        ("a = ( 1, 2\nb = 3", "( 1, 2"),
        ("a = 1 /* b", "/* b"),
    ] {
        let (_, told) = mistakes(text);
        assert_eq!(told.len(), 1, "{text} {told:?}");
        assert_eq!(told[0].0, at, "{text}");
        assert!(told[0].1.contains("; write "), "{told:?}");
    }
    assert_eq!(mistakes("a = ( 1, 2\nb = 3").0, "a=[1 2] b=3");
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| format!("a = {}{}; b = 1", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(mistakes(&nested(DEEPEST)).1.len(), 0);
    let (read, told) = mistakes(&nested(DEEPEST + 1));
    assert!(read.ends_with(" b=1") && told.len() == 1, "{read} {told:?}");
    let (_, told) = mistakes(&"{".repeat(1_000_000));
    assert!(!told.is_empty());
    let (_, told) = mistakes(&format!("a = {}", "(".repeat(1_000_000)));
    assert!(!told.is_empty());
}

/// Checks every offset in a table.
fn check_places(table: &DeTable<'_>, text: &str) {
    for (key, value) in table {
        assert_eq!(text.get(key.span()), Some(key.get_ref().as_ref()));
        check_value(value, text);
    }
}

fn check_value(value: &toml::Spanned<DeValue<'_>>, text: &str) {
    let written = text.get(value.span()).unwrap();
    assert!(!written.is_empty());
    match value.get_ref() {
        DeValue::Table(table) => {
            assert!(written.starts_with('{'));
            check_places(table, text);
        }
        DeValue::Array(values) => {
            assert!(written.starts_with(['(', '[']));
            values.iter().for_each(|value| check_value(value, text));
        }
        DeValue::String(_) => assert!(written.starts_with('"') && written.ends_with('"')),
        _ => {}
    }
}

fn check_any(text: &str) {
    let document = Document::new("file", text, &mut no_files);
    let (table, errors) = document.settings();
    check_places(&table, text);
    for error in errors {
        assert!(text.is_char_boundary(error.offset), "{error:?}");
        assert!(
            error.text.contains("; ") && !error.text.contains(char::is_control),
            "{error:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_to_its_end(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn any_heap_of_tokens_is_read_to_its_end(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b-c", "=", ":", ";", ",", "{", "}", "(", ")", "[", "]", "1", "0x1f", "1.5", "-", "\"t\"", "\"\\x41\"", "\"",
                "\\", "true", "@include \"x\"", "//", "#", "/*", "*/", "\n", " ", "ü", "\0",
            ]),
            0..40,
        ),
    ) {
        check_any(&pieces.concat());
    }

    #[test]
    fn any_text_value_is_read_back(meant in "(?s).{0,20}") {
        let written = meant.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assert_eq!(read(&format!("a = \"{written}\"")), format!("a={meant:?}"));
    }

    #[test]
    fn any_number_is_read_back(meant in any::<i64>()) {
        prop_assert_eq!(read(&format!("a = {meant}L")), format!("a={meant}"));
        prop_assert_eq!(read(&format!("a = {:#x}", meant.unsigned_abs() >> 1)), format!("a={}", meant.unsigned_abs() >> 1));
    }
}

//! The block that `kill -USR1` prints. Scripts written for iotcpd 1.1 read it, so its markers and the width of its
//! columns must not change. The STATISTICS of iotcpd(1) describe it.

use std::fmt::Write;

use super::{Snapshot, Value};

const BEGIN: &str = " --- statistics ---- >8 -------\n";
const END: &str = " --- statistics ---- 8< -------\n";
/// Labels are padded to this number of columns,
const LABEL_WIDTH: usize = 19;
/// but these two to this number, as iotcpd 1.1 printed them.
const SHORT_LABELS: [&str; 2] = ["uptime", "version"];
const SHORT_WIDTH: usize = 9;

/// Returns the block of one service. Its last line ends with a line feed.
pub fn block(snapshot: &Snapshot) -> String {
    let mut text = String::from(BEGIN);
    for (label, value) in &snapshot.rows {
        let width = if SHORT_LABELS.contains(label) {
            SHORT_WIDTH
        } else {
            LABEL_WIDTH
        };
        let value = render(value);
        // A label as wide as its column still gets its blank.
        let _ = writeln!(text, "{label:<pad$} {value}", pad = width - 1);
    }
    text.push_str(END);
    text
}

const DUMP_MARKER: &str = " --- internal regs - 8< -------\n";

/// Returns a service's description of itself between the markers that `kill -USR2` prints around it.
pub fn dump(description: &str) -> String {
    format!("{DUMP_MARKER}{description}{DUMP_MARKER}")
}

fn render(value: &Value) -> String {
    match value {
        Value::Count(count) => count.to_string(),
        Value::Milliseconds(time) => format!("{:.3}", time.as_secs_f64() * 1000.0),
        Value::Seconds(time) => format!("{:.3}", time.as_secs_f64()),
        Value::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_where_scripts_for_iotcpd_1_1_expect_them() {
        let mut snapshot = Snapshot::default();
        snapshot.count("queries total", 855_997);
        snapshot.count("daemon S_AVAILABLE", 27);
        snapshot.count("uptime", 7916);
        snapshot.push("version", Value::Text("1.1b103".into()));
        let expected = " --- statistics ---- >8 -------\n\
                        queries total      855997\n\
                        daemon S_AVAILABLE 27\n\
                        uptime   7916\n\
                        version  1.1b103\n \
                        --- statistics ---- 8< -------\n";
        assert_eq!(block(&snapshot), expected);
    }
}

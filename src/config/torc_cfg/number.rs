//! Numbers in the syntax of libconfig: decimal, hexadecimal, octal and binary integers, with `L` after long ones;
//! floats.

use crate::config::quote::Quoted;

/// Converts a number to the syntax of TOML.
///
/// # Errors
/// The mistake and its remedy.
pub(super) fn number(written: &str) -> Result<String, String> {
    let plain = integer(written).or_else(|| float(written)).ok_or_else(|| {
        let text = Quoted(written);
        format!("{text} is no number; write a number such as 16 or 0.5, or quotes around the text")
    })?;
    let (_, digits) = split_sign(&plain);
    let after_zero = digits.strip_prefix('0').and_then(|rest| rest.chars().next());
    if after_zero.is_some_and(|second| second.is_ascii_digit()) {
        let text = Quoted(written);
        return Err(format!(
            "{text} is octal to some who read it; leave out the leading zeros"
        ));
    }
    Ok(plain)
}

/// Splits a number into its sign, if any, and the rest.
fn split_sign(written: &str) -> (&str, &str) {
    let length = usize::from(written.starts_with(['+', '-']));
    written.split_at_checked(length).unwrap_or(("", written))
}

/// Converts an integer to the syntax of TOML.
fn integer(written: &str) -> Option<String> {
    // No setting depends on the length of an integer in libconfig, so the suffix is dropped.
    let short = written.strip_suffix("LL").or_else(|| written.strip_suffix('L'));
    let written = short.unwrap_or(written);
    let (sign, digits) = split_sign(written);
    let radix = [
        ("0x", 16),
        ("0X", 16),
        ("0b", 2),
        ("0B", 2),
        ("0o", 8),
        ("0O", 8),
        ("0q", 8),
        ("0Q", 8),
    ];
    let prefixed = radix
        .iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = prefixed.unwrap_or((digits, 10));
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    match radix {
        10 => Some(format!("{sign}{digits}")),
        // A bit pattern has no sign.
        _ if !sign.is_empty() => None,
        16 => Some(format!("0x{digits}")),
        8 => Some(format!("0o{digits}")),
        _ => Some(format!("0b{digits}")),
    }
}

/// Converts a float to the syntax of TOML, with digits on both sides of the point.
fn float(written: &str) -> Option<String> {
    let (sign, rest) = split_sign(written);
    let (mantissa, exponent) = match rest.find(['e', 'E']).and_then(|at| rest.split_at_checked(at)) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.get(1..)?)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (_, power) = split_sign(exponent.unwrap_or("0"));
    let well_formed = digits(whole) && digits(fraction) && digits(power);
    if !well_formed || (whole.is_empty() && fraction.is_empty()) || power.is_empty() {
        return None;
    }
    let or_zero = |digits: &str| if digits.is_empty() { "0" } else { digits }.to_owned();
    let exponent = exponent.map(|exponent| format!("e{exponent}")).unwrap_or_default();
    Some(format!("{sign}{}.{}{exponent}", or_zero(whole), or_zero(fraction)))
}

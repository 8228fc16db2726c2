//! Amounts of bytes: reading Kubernetes quantities, writing them for people. Pure, no I/O.

use crate::api::Amount;

const UNITS: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// Bytes of a quantity, rounded up; none when it is not one or is larger than any volume.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 15 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    u64::try_from(digits.checked_mul(unit)?.div_ceil(scale)).ok()
}

/// Bytes of an amount of the API.
#[must_use]
pub fn amount_bytes(amount: &Amount) -> Option<u64> {
    bytes(&amount.to_string())
}

/// Bytes as a quantity that Kubernetes shows as it is: in the largest binary unit that divides them.
#[must_use]
pub fn exact(bytes: u64) -> String {
    let divides = |unit: u128| u64::try_from(unit).ok().filter(|unit| bytes > 0 && bytes.is_multiple_of(*unit));
    let found = UNITS[..6].iter().rev().find_map(|(suffix, unit)| divides(*unit).map(|unit| (suffix, unit)));
    found.map_or_else(|| bytes.to_string(), |(suffix, unit)| format!("{}{suffix}", bytes / unit))
}

/// Bytes for people, such as `14.9 GiB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut name = "B";
    for next in NAMES {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        name = next;
    }
    if name == "B" { format!("{bytes} B") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("1", Some(1)),
            ("20Gi", Some(20 << 30)),
            ("1.5Ki", Some(1536)),
            ("0.1", Some(1)),
            ("2k", Some(2000)),
            ("", None),
            ("Gi", None),
            ("x", None),
            ("99999999999Ei", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn exact_quantities_read_back() {
        for (number, text) in [(69_206_016, "66Mi"), (20 << 30, "20Gi"), (1 << 60, "1Ei"), (1025, "1025"), (0, "0")] {
            assert_eq!(exact(number), text);
            assert_eq!(bytes(text), Some(number));
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(16_060_522_496), "15.0 GiB");
        assert_eq!(human(u64::MAX), "16.0 EiB");
    }
}

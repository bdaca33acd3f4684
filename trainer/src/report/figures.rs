//! Numbers that only reports of training have.

use fastclip_pages::count;

/// Words how many times better than guessing something is.
pub(super) fn times_chance(value: f64, chance: f64) -> String {
    let times = value / chance;
    if times >= 10.0 { format!("{times:.0} × chance") } else { format!("{times:.1} × chance") }
}

/// Words a round count in little room: millions and billions by their letter.
pub(super) fn short_count(number: u64) -> String {
    for (unit, letter) in [(1_000_000_000, "G"), (1_000_000, "M")] {
        if number >= unit {
            let value = number as f64 / unit as f64;
            // A mark of an axis has few digits.
            return format!("{}{letter}", (value * 1000.0).round() / 1000.0);
        }
    }
    count(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!([times_chance(0.5, 0.0125), times_chance(0.02, 0.01)], ["40 × chance", "2.0 × chance"]);
        assert_eq!(
            [900, 20_000, 1_500_000, 2_000_000_000].map(short_count),
            ["900", "20\u{2009}000", "1.5M", "2G"]
        );
    }
}

//! Numbers that only reports of training have.

/// Words how many times better than guessing something is.
pub(super) fn times_chance(value: f64, chance: f64) -> String {
    let times = value / chance;
    if times >= 10.0 { format!("{times:.0} × chance") } else { format!("{times:.1} × chance") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!([times_chance(0.5, 0.0125), times_chance(0.02, 0.01)], ["40 × chance", "2.0 × chance"]);
    }
}

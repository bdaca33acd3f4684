/// Ascending numbers of shards for people: `00003, 00007–00012`.
pub(super) fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|before, after| *after == before + 1);
    let runs = runs.map(|run| match run {
        [number] => format!("{number:05}"),
        [first, second] => format!("{first:05}, {second:05}"),
        [first, .., last] => format!("{first:05}–{last:05}"),
        [] => String::new(),
    });
    let mut runs: Vec<String> = runs.collect();
    if runs.len() > MAX_RUNS {
        let num_unnamed = runs.len() - MAX_RUNS;
        runs.truncate(MAX_RUNS);
        return format!("{} and others in {num_unnamed} places", runs.join(", "));
    }
    runs.join(", ")
}

/// Runs that are spelt out.
const MAX_RUNS: usize = 12;

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn neighbours_are_joined() {
        assert_eq!(ranges(&[3]), "00003");
        assert_eq!(ranges(&[1, 2, 4, 5, 6, 7, 100_000]), "00001, 00002, 00004–00007, 100000");
        let many: Vec<u64> = (0..20).map(|number| 2 * number).collect();
        assert!(ranges(&many).ends_with("00022 and others in 8 places"), "{}", ranges(&many));
    }
}

use std::ops::Range;

/// Digits of a key for the shard, as img2dataset's `oom_shard_count`.
const SHARD_DIGITS: usize = 5;

/// Which shard a row of the list belongs to, and what it is called there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) num_rows: u64,
    /// Not 0.
    pub(super) rows_per_shard: u64,
}

impl Layout {
    pub(super) fn num_shards(self) -> u64 {
        self.num_rows.div_ceil(self.rows_per_shard)
    }

    pub(super) fn shard_of(self, row: u64) -> u64 {
        row / self.rows_per_shard
    }

    /// Rows of a shard.
    pub(super) fn rows(self, shard: u64) -> Range<u64> {
        self.rows_of(shard..shard + 1)
    }

    /// Rows of shards that follow each other.
    pub(super) fn rows_of(self, shards: Range<u64>) -> Range<u64> {
        let start_of = |shard: u64| shard.saturating_mul(self.rows_per_shard).min(self.num_rows);
        start_of(shards.start)..start_of(shards.end)
    }

    /// img2dataset's: number of the shard and position in it, side by side.
    pub(super) fn key(self, row: u64) -> String {
        let (shard, position, digits) =
            (self.shard_of(row), row % self.rows_per_shard, self.position_digits());
        format!("{shard:0SHARD_DIGITS$}{position:0digits$}")
    }

    /// The row that a key belongs to.
    pub(super) fn row_of(self, key: &str) -> Option<u64> {
        let (shard, position) = key.split_at_checked(key.len().checked_sub(self.position_digits())?)?;
        let (shard, position) = (shard.parse::<u64>().ok()?, position.parse::<u64>().ok()?);
        let row = shard.checked_mul(self.rows_per_shard)?.checked_add(position)?;
        (position < self.rows_per_shard && row < self.num_rows).then_some(row)
    }

    fn position_digits(self) -> usize {
        (self.rows_per_shard.max(2) - 1).ilog10() as usize + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_img2datasets() {
        let key = |rows_per_shard, row| Layout { num_rows: row + 1, rows_per_shard }.key(row);
        assert_eq!(key(10_000, 10_005), "000010005");
        assert_eq!(key(500, 7), "00000007");
        assert_eq!(key(1, 3), "000030");
    }

    #[test]
    fn the_last_shard_ends_with_the_list() {
        let layout = Layout { num_rows: 20, rows_per_shard: 8 };
        assert_eq!(layout.num_shards(), 3);
        assert_eq!(layout.rows(2), 16..20);
        assert_eq!(layout.row_of("000004"), Some(4));
        for key in ["", "000008", "000024", "00000x", "ä", "000099999"] {
            assert_eq!(layout.row_of(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn a_key_leads_back_to_its_row(rows_per_shard in 1..20_000_u64, row in 0..5_000_000_000_u64) {
            let layout = Layout { num_rows: row + 1, rows_per_shard };
            prop_assert_eq!(layout.row_of(&layout.key(row)), Some(row));
            prop_assert!(layout.rows(layout.shard_of(row)).contains(&row));
        }
    }
}

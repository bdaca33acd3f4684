use std::fmt;

/// Tables of training have a row for each id; above this many rows a sample, somebody should know.
const MAX_ROWS_PER_SAMPLE: u64 = 2;

/// What was indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexReport {
    /// Where the tars lie, without credentials.
    pub location: String,
    /// Shards in the manifest.
    pub num_shards: usize,
    /// Shards that an earlier run had read.
    pub num_recalled: usize,
    /// Samples in all of them.
    pub num_samples: u64,
    /// One more than the largest id.
    pub num_sample_ids: u64,
    /// Samples without an image member.
    pub num_without_image: u64,
    /// Samples with neither caption nor class.
    pub num_without_text: u64,
    /// What was left out, one line for each damaged shard.
    pub left_out: Vec<String>,
}

impl fmt::Display for IndexReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { location, num_shards, num_samples, num_sample_ids, .. } = self;
        write!(f, "indexed {num_samples} samples in {num_shards} shards of `{location}`")?;
        if self.num_recalled > 0 {
            write!(f, ", {} of which an earlier run had read", self.num_recalled)?;
        }
        if self.num_without_image > 0 {
            write!(f, "\n{} samples have no image", self.num_without_image)?;
        }
        if self.num_without_text > 0 {
            write!(f, "\n{} samples have neither caption nor class", self.num_without_text)?;
        }
        if *num_sample_ids > MAX_ROWS_PER_SAMPLE * num_samples {
            write!(
                f,
                "\nids reach {num_sample_ids}: tables of training will have as many rows; --ids dense avoids it"
            )?;
        }
        self.left_out.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

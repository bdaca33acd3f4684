use std::num::NonZeroU32;

/// Samples of a shard where nobody says anything about its size.
const DEFAULT_SAMPLES: NonZeroU32 = NonZeroU32::new(10_000).expect("ten thousand is not zero");

/// Samples of a shard at most, where only its bytes are given. Keys have room for them.
const MOST_SAMPLES: NonZeroU32 = NonZeroU32::new(1_000_000).expect("a million is not zero");

/// How large shards are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Shards")]
pub(super) struct ShardArgs {
    /// Samples in each shard but the last [default: 10000; with --max-shard-bytes, what there is room for]
    #[arg(long, value_name = "N")]
    samples_per_shard: Option<NonZeroU32>,
    /// Bytes of a shard: it is closed before a sample would exceed them
    #[arg(long, value_name = "N")]
    pub(super) max_shard_bytes: Option<u64>,
}

impl ShardArgs {
    pub(super) fn samples_per_shard(&self) -> NonZeroU32 {
        let default = if self.max_shard_bytes.is_some() { MOST_SAMPLES } else { DEFAULT_SAMPLES };
        self.samples_per_shard.unwrap_or(default)
    }
}

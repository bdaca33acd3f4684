//! What the tables beside the shards say about every row of the list: `00012.parquet`, as `ingest download` and img2dataset
//! write them.

mod read;
mod row_stats;
mod tally;

use std::collections::BTreeSet;

use fastclip_shards::{Compression, Dataset, Store};

pub use read::TableError;
pub use row_stats::{HostCount, RowStats, TableCount};

pub(crate) use read::{TableRow, read_table};
pub(crate) use row_stats::RowCounter;
pub(crate) use tally::Tally;

/// Names of the table and of the counts that go with a shard.
pub(crate) fn names_beside(shard: &str) -> (String, String) {
    let stem = stem(shard);
    (format!("{stem}.parquet"), format!("{stem}_stats.json"))
}

/// The name of a shard without what tells that it is one.
pub(crate) fn stem(shard: &str) -> &str {
    let ends = [".tar", ".tar.gz", ".tgz", ".tar.zst"];
    debug_assert!(Compression::is_shard_name(shard), "{shard} is no shard");
    ends.iter().find_map(|end| shard.strip_suffix(end)).unwrap_or(shard)
}

/// A table and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct StoredTable {
    pub(crate) store: Store,
    pub(crate) name: String,
}

/// Tables of these shards, if there are any. With all shards, also those of shards that do not exist since every row of theirs failed.
pub(crate) async fn find_tables(dataset: &Dataset, shards: &[usize]) -> Vec<StoredTable> {
    let is_all = shards.len() == dataset.manifest().shards.len();
    let mut tables: Vec<StoredTable> = Vec::new();
    let mut rest = shards;
    while let Some(first) = rest.first() {
        let (store, _) = dataset.stored_shard(*first);
        let in_store = |shard: &&usize| dataset.stored_shard(**shard).0.location() == store.location();
        let (here, others) = rest.split_at(rest.iter().take_while(in_store).count());
        rest = others;
        let wanted: BTreeSet<String> =
            here.iter().map(|shard| names_beside(&dataset.stored_shard(*shard).1.name).0).collect();
        // What cannot be listed, as most web servers cannot, is asked for by name.
        let there: Option<BTreeSet<String>> = match store.list().await {
            Ok(objects) => Some(objects.into_iter().map(|object| object.name).collect()),
            Err(_) => None,
        };
        for name in &wanted {
            let is_there = match &there {
                Some(there) => there.contains(name),
                None => store.num_bytes(name).await.is_ok(),
            };
            if is_there {
                tables.push(StoredTable { store: store.clone(), name: name.clone() });
            }
        }
        let without_shard = there.iter().flatten().filter(|name| {
            let stats = name.strip_suffix(".parquet").map(|stem| format!("{stem}_stats.json"));
            is_all
                && !wanted.contains(*name)
                && stats.is_some_and(|stats| there.as_ref().is_some_and(|there| there.contains(&stats)))
        });
        tables.extend(without_shard.map(|name| StoredTable { store: store.clone(), name: name.clone() }));
    }
    tables
}

//! What lies beside the shards: `sizes.json`, and files that belong to nothing.

use std::collections::{BTreeMap, BTreeSet};

use fastclip_schemas::MANIFEST_FILE;
use fastclip_shards::{Dataset, Store, StoreError};

use crate::tables::{names_beside, stem};
use crate::{REJECTED_FILE, SIZES_FILE};

/// Files that a dataset may have besides.
const KNOWN: [&str; 7] = [
    MANIFEST_FILE,
    SIZES_FILE,
    REJECTED_FILE,
    "classnames.txt",
    "zeroshot_classification_templates.txt",
    "__len__",
    ".gitattributes",
];

/// What was found beside the shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SideFiles {
    /// What is wrong with them.
    pub(super) problems: Vec<String>,
    /// Files that belong to nothing that is known.
    pub(super) unknown: Vec<String>,
    /// Names of all files, by location. Nothing where the store cannot list them.
    pub(super) there: BTreeMap<String, BTreeSet<String>>,
}

pub(super) async fn examine(dataset: &Dataset) -> Result<SideFiles, StoreError> {
    let mut found = SideFiles::default();
    for first in 0..dataset.manifest().shards.len() {
        let (store, _) = dataset.stored_shard(first);
        let location = store.location().to_owned();
        if found.there.contains_key(&location) {
            continue;
        }
        let here: BTreeMap<&str, u32> = (first..dataset.manifest().shards.len())
            .map(|shard| dataset.stored_shard(shard))
            .filter(|(other, _)| other.location() == location)
            .map(|(_, entry)| (entry.name.as_str(), entry.num_samples))
            .collect();
        found.problems.extend(sizes_problem(store, &here).await?);
        // Plain web servers cannot list, and a dataset there is as good as another.
        let Ok(objects) = store.list().await else {
            found.there.insert(location, BTreeSet::new());
            continue;
        };
        let names: BTreeSet<String> = objects.into_iter().map(|object| object.name).collect();
        let is_one = dataset.parts().len() == 1;
        // Of joined datasets and of chosen shards, the rest of a folder is none of their business.
        if is_one {
            found.unknown.extend(unknown(&names, &here, dataset, first));
        }
        found.there.insert(location, names);
    }
    Ok(found)
}

fn unknown(
    names: &BTreeSet<String>,
    here: &BTreeMap<&str, u32>,
    dataset: &Dataset,
    first: usize,
) -> Vec<String> {
    let mut known: BTreeSet<String> = KNOWN.iter().map(|name| (*name).to_owned()).collect();
    for name in here.keys() {
        let (table, counts) = names_beside(name);
        known.extend([(*name).to_owned(), table, counts, format!("{}.json", stem(name))]);
    }
    known.extend(
        (first..dataset.manifest().shards.len()).map(|shard| dataset.stored_shard(shard).1.index.clone()),
    );
    let is_known = |name: &String| {
        // A shard of which every row failed has a table and counts, and no tar.
        let stem = name.strip_suffix(".parquet").or_else(|| name.strip_suffix("_stats.json"));
        let is_pair = stem.is_some_and(|stem| {
            names.contains(&format!("{stem}.parquet")) && names.contains(&format!("{stem}_stats.json"))
        });
        known.contains(name) || is_pair || name.starts_with("README") || name.starts_with("LICENSE")
    };
    names.iter().filter(|name| !is_known(name)).cloned().collect()
}

/// Where `sizes.json`, which OpenCLIP reads, says something else than the manifest.
async fn sizes_problem(store: &Store, shards: &BTreeMap<&str, u32>) -> Result<Option<String>, StoreError> {
    let Some(text) = store.get_if_there(SIZES_FILE).await? else { return Ok(None) };
    let Ok(sizes) = serde_json::from_slice::<BTreeMap<String, u64>>(&text) else {
        return Ok(Some(format!("`{SIZES_FILE}` is no list of shards and their samples")));
    };
    let differing = shards.iter().find_map(|(name, num_samples)| match sizes.get(*name) {
        None => Some(format!("`{SIZES_FILE}` lacks `{name}`")),
        Some(said) if *said != u64::from(*num_samples) => Some(format!(
            "`{SIZES_FILE}` says that `{name}` has {said} samples, the manifest says {num_samples}"
        )),
        Some(_) => None,
    });
    Ok(differing)
}

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use super::{RunState, RunStateError};

/// Folder below the state's for what processes say before they publish.
pub(super) const CLAIMS_FOLDER: &str = "writing";

/// What a process says before it publishes a shard, and takes back when the shard is remembered.
///
/// Two processes may be given the same shards by mistake, or a scheduler starts one again while the first is still alive. A lock would
/// have to be broken when its holder is killed, and no time-out for that is right. So nobody waits for anybody. A process first
/// leaves a claim of its own name, then looks whether the shard is remembered already, and if not publishes its files and the
/// record; the claim is removed behind the record, unless the shard has other claims by then. Whoever might have
/// replaced a file of a remembered shard has therefore left a claim: what is remembered and not claimed is as recorded, and
/// what is claimed has to be read before it is believed. All that the store has to do is to list what was written.
#[derive(Debug)]
pub(crate) struct Claim {
    shard: u64,
    name: String,
}

/// Shards of which something is remembered.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Those with a record.
    pub(crate) recorded: BTreeSet<u64>,
    /// Those that a process that was killed, or is still alive, meant to publish.
    pub(crate) claimed: BTreeSet<u64>,
}

impl RunState<'_> {
    /// Says that this process publishes a shard now. Gives nothing if the shard is remembered, by whatever process, or all have been
    /// forgotten because the dataset is finished.
    pub(crate) async fn claim(&self, shard: u64) -> Result<Option<Claim>, RunStateError> {
        // A hasher's keys are random; processes on different machines may have the same number.
        let token = RandomState::new().hash_one(std::process::id());
        let claim = Claim { shard, name: format!("{}/{shard:05}-{token:016x}", self.claims_folder()) };
        self.write(&claim.name, format!("process {}\n", std::process::id())).await?;
        // In this order: records are forgotten after the manifest is written.
        let is_recorded = self.read(&self.record_file(shard)).await?.is_some();
        if !is_recorded && self.manifest_digest().await? == self.began_with {
            return Ok(Some(claim));
        }
        self.delete(&claim.name).await?;
        Ok(None)
    }

    /// Takes a claim back, once the shard is remembered. It stays where others have claimed the same shard.
    pub(crate) async fn release(&self, claim: Claim) -> Result<(), RunStateError> {
        let folder = self.claims_folder();
        let claims = self.store.list_below(&folder).await.map_err(self.failed("list the claims"))?;
        let prefix = format!("{folder}/{:05}-", claim.shard);
        let is_contested =
            claims.iter().any(|other| other.name.starts_with(&prefix) && other.name != claim.name);
        if is_contested { Ok(()) } else { self.delete(&claim.name).await }
    }

    /// Lists records and claims.
    pub(crate) async fn remembered(&self) -> Result<Remembered, RunStateError> {
        let mut remembered = Remembered::default();
        let prefix = format!("{}/", self.folder());
        let files = self.store.list_below(&self.folder()).await.map_err(self.failed("list the records"))?;
        for file in files {
            let Some(name) = file.name.strip_prefix(&prefix) else { continue };
            if let Some(claim) = name.strip_prefix(CLAIMS_FOLDER).and_then(|name| name.strip_prefix('/')) {
                remembered
                    .claimed
                    .extend(claim.split_once('-').and_then(|(shard, _)| shard.parse::<u64>().ok()));
            } else {
                remembered
                    .recorded
                    .extend(name.strip_suffix(".json").and_then(|shard| shard.parse::<u64>().ok()));
            }
        }
        Ok(remembered)
    }

    /// Folder of the claims.
    pub(super) fn claims_folder(&self) -> String {
        format!("{}/{CLAIMS_FOLDER}", self.folder())
    }
}

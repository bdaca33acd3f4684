use std::fmt;

use fastclip_images::ImageDecoder;
use fastclip_schemas::SampleId;
use fastclip_shards::{Dataset, ReadError, ShardIndex};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::scan::IMAGE_MEMBERS;
use crate::tables::stem;
use crate::terminal::one_line;

/// Indexes that are read at the same time, where the shard of a sample cannot be told.
const INDEXES_AT_ONCE: usize = 16;

/// Which sample is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The first one of this key.
    Key(String),
    /// The one with this id.
    Id(SampleId),
}

/// A sample with all that is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMembers {
    /// Its id.
    pub id: SampleId,
    /// Its key.
    pub key: String,
    /// Name of the shard that holds it.
    pub shard: String,
    /// Its place in the shard, from 0.
    pub position: u32,
    /// Extension and data of each member.
    pub members: Vec<(String, Vec<u8>)>,
}

impl StoredMembers {
    /// The members as files of one folder, whatever the key and the extensions are.
    pub fn files(&self) -> Vec<(String, &[u8])> {
        // The first letter is one of ours, so that no name is hidden or leads out of the folder.
        let name =
            |extension: &str| format!("sample-{}.{extension}", self.key).replace(['/', '\\', '\0'], "_");
        self.members.iter().map(|(extension, data)| (name(extension), data.as_slice())).collect()
    }
}

/// Text members in full, of others the size.
impl fmt::Display for StoredMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, key, shard, position, members } = self;
        let (key, shard) = (one_line(key, usize::MAX), one_line(shard, usize::MAX));
        write!(f, "`{key}`, id {id}, sample {position} of {shard}")?;
        for (extension, data) in members {
            write!(f, "\n\n.{} ({} bytes)", one_line(extension, usize::MAX), data.len())?;
            if IMAGE_MEMBERS.contains(&extension.as_str()) {
                match size_of(data) {
                    Ok((width, height)) => write!(f, ": {width} × {height} pixels")?,
                    Err(problem) => write!(f, ": {problem}")?,
                }
            } else if let Ok(text) = std::str::from_utf8(data) {
                let text = match serde_json::from_str::<Value>(text) {
                    Ok(Value::Object(fields)) => format!("{:#}", Value::Object(fields)),
                    _ => text.trim_end().to_owned(),
                };
                for line in text.lines() {
                    write!(f, "\n  {}", one_line(line, usize::MAX))?;
                }
            }
        }
        Ok(())
    }
}

fn size_of(image: &[u8]) -> Result<(u32, u32), String> {
    let mut decoder = ImageDecoder::new().map_err(|error| error.to_string())?;
    decoder.open(image).map(|opened| opened.size()).map_err(|error| error.to_string())
}

/// Why a sample was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A shard cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is none.
    #[error("`{location}` has no sample with {wanted}")]
    Absent {
        /// Where the dataset lies, without credentials.
        location: String,
        /// What was looked for.
        wanted: String,
    },
}

/// Finds a sample. The shard is guessed by its ids, or by the beginning of the key, which usually is its name; if that was
/// wrong, the indexes of all shards are read.
///
/// # Errors
/// When there is none, or an index or the sample cannot be read.
pub async fn find_sample(dataset: &Dataset, wanted: &Wanted) -> Result<StoredMembers, FindError> {
    let mut shards: Vec<usize> = (0..dataset.manifest().shards.len()).collect();
    // The sort is stable: guesses first, and the order of the dataset otherwise.
    shards.sort_by_key(|shard| !is_likely(dataset, *shard, wanted));
    let search = |shard: usize| async move {
        let index = dataset.index(shard).await?;
        Ok::<_, ReadError>((shard, index))
    };
    let mut indexes = stream::iter(shards).map(search).buffered(INDEXES_AT_ONCE);
    while let Some((shard, index)) = indexes.try_next().await? {
        for position in candidates(&index, wanted) {
            let run = dataset.fetch(shard, &index, position..position + 1).await?;
            let sample = run.sample(position)?;
            if matches!(wanted, Wanted::Key(key) if key != sample.key()) {
                continue;
            }
            return Ok(StoredMembers {
                id: sample.id(),
                key: sample.key().to_owned(),
                shard: run.shard_name().to_owned(),
                position,
                members: sample.members().map(|(name, data)| (name.to_owned(), data.to_vec())).collect(),
            });
        }
    }
    let wanted = match wanted {
        Wanted::Key(key) => format!("key `{key}`"),
        Wanted::Id(id) => format!("id {id}"),
    };
    Err(FindError::Absent { location: dataset.location().to_owned(), wanted })
}

fn is_likely(dataset: &Dataset, shard: usize, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Key(key) => {
            let name = stem(&dataset.stored_shard(shard).1.name);
            key.starts_with(name.rsplit_once('/').map_or(name, |(_, name)| name))
        }
        Wanted::Id(id) => {
            let entry = &dataset.manifest().shards[shard];
            let first = entry.first_sample_id.0;
            (first..first.saturating_add(u64::from(entry.num_samples))).contains(&id.0)
        }
    }
}

fn candidates(index: &ShardIndex, wanted: &Wanted) -> Vec<u32> {
    let is_candidate = |position: &u32| match wanted {
        Wanted::Key(key) => index.has_key(*position, key),
        Wanted::Id(id) => index.sample_id(*position) == *id,
    };
    (0..index.len()).filter(is_candidate).collect()
}

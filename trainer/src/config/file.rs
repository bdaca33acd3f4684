//! Config files.

use std::path::Path;

use super::{ConfigError, RunOptions};

impl RunOptions {
    /// Reads options from a TOML file whose keys are the names of the flags, with underscores.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has a key that is no setting or a value of the wrong type.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let malformed = |source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) };
        // Keys first: serde's own message for an unknown one lists all fifty that are known.
        let table: toml::Table = text.parse().map_err(malformed)?;
        if let Some(key) = table.keys().find(|key| !Self::KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                similar: most_similar(key),
            });
        }
        toml::from_str(text).map_err(malformed)
    }
}

/// The key that most likely was meant, if any is close.
fn most_similar(key: &str) -> Option<&'static str> {
    let meant = key.replace('-', "_");
    let distances = RunOptions::KEYS.iter().map(|known| (distance(&meant, known), *known));
    let (distance, known) = distances.min()?;
    (distance <= 1 + meant.len() / 4).then_some(known)
}

/// Number of letters to insert, delete or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

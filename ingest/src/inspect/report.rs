use std::fmt;

use fastclip_pages::{count, percent};
use fastclip_schemas::Manifest;

use super::captions::CaptionStats;
use super::page;
use super::specimen::Specimen;
use crate::stats::SampleStats;
use crate::tables::RowStats;
use crate::terminal::one_line;

/// Characters of a caption on the console.
const MAX_CAPTION_CHARS: usize = 100;

/// What a dataset looks like.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InspectReport {
    /// Where it lies, without credentials.
    pub location: String,
    /// What it consists of.
    pub manifest: Manifest,
    /// What chose the samples.
    pub seed: u64,
    /// Shards of which samples were read.
    pub num_shards_read: usize,
    /// What the samples that were read are like.
    pub samples: SampleStats,
    /// What their captions have in common.
    pub captions: CaptionStats,
    /// What became of the rows of the list, where tables beside the shards tell.
    pub rows: Option<RowStats>,
    /// Samples to show.
    pub specimens: Vec<Specimen>,
    /// Shards that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

impl InspectReport {
    /// The report as a page that needs nothing but itself.
    pub fn to_html(&self) -> String {
        page::to_html(self)
    }

    /// Bytes of all shards.
    pub(super) fn num_bytes(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.num_bytes).sum()
    }

    /// What was read, in words.
    pub(super) fn what_was_read(&self) -> String {
        let Self { samples, manifest, .. } = self;
        if samples.num_samples == manifest.num_samples {
            return "All samples were read.".to_owned();
        }
        format!(
            "{} samples were read, in runs of neighbours from {} of {} shards, chosen by seed {}.",
            count(samples.num_samples),
            count(self.num_shards_read as u64),
            count(manifest.shards.len() as u64),
            self.seed
        )
    }
}

/// Bytes as people read them.
pub(super) fn bytes(num_bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KB", "MB", "GB", "TB"];
    let mut value = num_bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// The short report, for a terminal.
impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manifest, samples, captions, .. } = self;
        writeln!(
            f,
            "{} samples in {} shards of `{}`, {}, written by {}",
            count(manifest.num_samples),
            count(manifest.shards.len() as u64),
            self.location,
            bytes(self.num_bytes()),
            one_line(&manifest.created_by, MAX_CAPTION_CHARS)
        )?;
        writeln!(f, "{}", self.what_was_read())?;
        for (shard, problem) in &self.unreadable {
            let (shard, problem) = (one_line(shard, usize::MAX), one_line(problem, usize::MAX));
            writeln!(f, "{shard} cannot be read: {problem}")?;
        }
        for (count, what) in samples.faults() {
            writeln!(f, "{count} samples {what}")?;
        }
        let mean = |mean: Option<f64>| mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.0}"));
        let (width, height) = (mean(samples.width.mean()), mean(samples.height.mean()));
        let image_bytes =
            samples.image_bytes.mean().map_or_else(|| "-".to_owned(), |mean| bytes(mean as u64));
        writeln!(f, "images: mean {width}×{height} pixels, {image_bytes}")?;
        let tokens = mean(samples.caption_tokens.mean());
        let chars = mean(samples.caption_chars.mean());
        let cut = samples.num_cut_captions() as f64 / samples.caption_tokens.num_values().max(1) as f64;
        write!(
            f,
            "captions: mean {chars} characters, {tokens} CLIP tokens; {} have more than 77",
            percent(cut)
        )?;
        if let Some(share) = captions.repeated_share() {
            write!(f, "; {} repeat another one", percent(share))?;
        }
        if let Some(rows) = &self.rows {
            let share = rows.num_successes as f64 / rows.num_rows.max(1) as f64;
            let (tables, failure) = (count(rows.tables.len() as u64), rows.failures.first());
            write!(f, "\nrows: {} became samples, by {tables} tables", percent(share))?;
            if let Some((failure, _)) = failure {
                write!(f, "; most failed with {}", one_line(failure, MAX_CAPTION_CHARS))?;
            }
        }
        if let Some(specimen) = self.specimens.first() {
            write!(
                f,
                "\n\nfor example `{}`, id {}, in {}:",
                one_line(&specimen.key, 200),
                specimen.id,
                one_line(&specimen.shard, usize::MAX)
            )?;
            for (name, num_bytes) in &specimen.members {
                write!(f, "\n  .{:<8} {num_bytes:>10} bytes", one_line(name, 40))?;
            }
            if let Some(caption) = &specimen.caption {
                write!(f, "\n  {}", one_line(caption, MAX_CAPTION_CHARS))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastclip_schemas::SampleId;

    use super::*;

    #[test]
    fn what_a_dataset_says_cannot_command_a_terminal() {
        let hostile = |name: &str| format!("{name}\u{1b}[2J");
        let specimen = Specimen {
            id: SampleId(0),
            key: hostile("key"),
            shard: hostile("shard"),
            caption: Some(hostile("caption")),
            members: vec![(hostile("member"), 1)],
            picture: Err(String::new()),
        };
        let report = InspectReport {
            location: "out".to_owned(),
            manifest: Manifest::of_shards(hostile("program"), Vec::new(), BTreeMap::new()),
            seed: 0,
            num_shards_read: 0,
            samples: SampleStats::new(),
            captions: CaptionStats { num_captions: 0, num_distinct: None, most_common: Vec::new() },
            rows: None,
            specimens: vec![specimen],
            unreadable: vec![(hostile("gone"), hostile("problem"))],
        };
        let printed = report.to_string();
        for name in ["key", "shard", "caption", "member", "program", "gone", "problem"] {
            assert!(printed.contains(&format!("{name}\u{fffd}[2J")), "{name}: {printed:?}");
        }
        assert!(!printed.contains('\u{1b}'), "{printed:?}");
    }

    #[test]
    fn sizes_read_as_a_person_would_write_them() {
        let sizes = [0, 999, 1000, 45_300, 99_960_000, 345_000_000_000, 7_200_000_000_000_000];
        assert_eq!(
            sizes.map(bytes),
            ["0 bytes", "999 bytes", "1.0 KB", "45.3 KB", "100 MB", "345 GB", "7200 TB"]
        );
    }
}

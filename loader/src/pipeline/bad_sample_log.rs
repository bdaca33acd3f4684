use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{BadReason, BadSample};

/// Kinds of bad samples that are told in an [`INTERVAL`]. A dataset of which every shard lacks something would fill the log
/// otherwise.
const MAX_LINES: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(60);

/// What streams of a loader say about bad samples: of each shard and reason the first one, and not too much at a time. All of
/// them are counted.
#[derive(Debug, Default)]
pub(crate) struct BadSampleLog(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    kinds: HashSet<(BadReason, String)>,
    /// When it began, and lines in it.
    interval: Option<(Instant, u32)>,
    /// Bad samples whose kind was due, but not its line.
    num_unsaid: u64,
}

impl BadSampleLog {
    pub(super) fn record(&self, bad: &BadSample) {
        for line in self.lines(bad, Instant::now()) {
            tracing::warn!("{line}");
        }
    }

    fn lines(&self, bad: &BadSample, now: Instant) -> Vec<String> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = (bad.reason, bad.shard.clone());
        if said.kinds.contains(&kind) {
            return Vec::new();
        }
        let (start, num_lines) =
            said.interval.filter(|(start, _)| now.duration_since(*start) < INTERVAL).unwrap_or((now, 0));
        if num_lines == MAX_LINES {
            said.num_unsaid += 1;
            return Vec::new();
        }
        let mut lines = Vec::new();
        if num_lines == 0 && said.num_unsaid > 0 {
            lines.push(format!(
                "{} more bad samples, in other shards or for other reasons, were counted only",
                std::mem::take(&mut said.num_unsaid)
            ));
        }
        lines.push(format!("bad {bad}; further ones of this kind in this shard are counted only"));
        if num_lines + 1 == MAX_LINES {
            lines.push(
                "more bad samples, in other shards or for other reasons, are counted only for a minute"
                    .to_owned(),
            );
        }
        said.kinds.insert(kind);
        said.interval = Some((start, num_lines + 1));
        lines
    }
}

#[cfg(test)]
mod tests {
    use fastclip_schemas::Position;

    use super::*;

    fn bad(shard: u32, reason: BadReason) -> BadSample {
        let (shard, position) = (format!("{shard:05}.tar"), Position::default());
        BadSample { shard, sample: 3, key: None, position, reason, detail: "why".to_owned() }
    }

    #[test]
    fn of_each_shard_and_reason_the_first_is_said() {
        let (log, now) = (BadSampleLog::default(), Instant::now());
        for (shard, reason, num_lines) in [
            (0, BadReason::MissingImage, 1),
            (0, BadReason::MissingImage, 0),
            (0, BadReason::TruncatedImage, 1),
            (1, BadReason::MissingImage, 1),
            (1, BadReason::MissingImage, 0),
        ] {
            assert_eq!(log.lines(&bad(shard, reason), now).len(), num_lines, "{shard} {reason}");
        }
    }

    #[test]
    fn no_more_is_said_than_people_read_and_what_was_not_is_counted() {
        let (log, start) = (BadSampleLog::default(), Instant::now());
        let said: usize =
            (0..500).map(|shard| log.lines(&bad(shard, BadReason::MissingCaption), start).len()).sum();
        assert_eq!(said as u32, MAX_LINES + 1, "the last one says that there may be more");
        let lines = log.lines(&bad(499, BadReason::MissingCaption), start + INTERVAL);
        assert!(lines[0].starts_with("480 more bad samples"), "{lines:?}");
        assert!(lines[1].starts_with("bad sample 3 of shard `00499.tar`: no caption: why;"), "{lines:?}");
        assert_eq!(log.lines(&bad(0, BadReason::MissingCaption), start + INTERVAL), [""; 0]);
    }
}

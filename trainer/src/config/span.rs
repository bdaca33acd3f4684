//! Lengths of training and of time, as people write them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stretch of training: `5000` steps, or `2epochs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// So many steps.
    Steps(NonZeroU64),
    /// So many epochs.
    Epochs(Epochs),
}

/// So many epochs: `2epochs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epochs(pub NonZeroU64);

const NO_SPAN: &str = "neither a number of steps, as in 5000, nor of epochs, as in 2epochs";

impl Span {
    /// Returns the number of steps.
    pub fn steps(self, steps_per_epoch: u64) -> NonZeroU64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Epochs(Epochs(epochs)) => {
                epochs.saturating_mul(NonZeroU64::new(steps_per_epoch).unwrap_or(NonZeroU64::MIN))
            }
        }
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim_end_matches('s').strip_suffix("epoch") {
            Some(number) => number.trim_end().parse().map(|number| Self::Epochs(Epochs(number))),
            None => text.parse().map(Self::Steps),
        }
        .map_err(|_| NO_SPAN)
    }
}

impl TryFrom<String> for Epochs {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.parse()? {
            Span::Epochs(epochs) => Ok(epochs),
            Span::Steps(_) => Err(NO_SPAN),
        }
    }
}

impl From<Epochs> for String {
    fn from(Epochs(number): Epochs) -> Self {
        format!("{number}epochs")
    }
}

/// A stretch of time: `3h50m`, `90s`, or `1-12:00:00` and `03:50:00` as Slurm writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan(pub Duration);

impl FromStr for TimeSpan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = if text.contains(':') { slurm_time(text) } else { humantime::parse_duration(text).ok() };
        found
            .filter(|time| !time.is_zero())
            .map(Self)
            .ok_or("no time above 0, as in 3h50m, 90s, 03:50:00 or 1-12:00:00")
    }
}

/// Reads `[days-]hours:minutes:seconds`.
fn slurm_time(text: &str) -> Option<Duration> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let [hours, minutes, seconds] = <[&str; 3]>::try_from(clock.split(':').collect::<Vec<_>>())
        .ok()?
        .map(|part| part.parse::<u32>().ok());
    let days: u32 = days.parse().ok()?;
    let minutes = (u64::from(days) * 24 + u64::from(hours?)) * 60 + u64::from(minutes?);
    Some(Duration::from_secs(minutes * 60 + u64::from(seconds?)))
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TimeSpan> for String {
    fn from(time: TimeSpan) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_steps_or_epochs_and_survive_a_config_file() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            span: Span,
        }
        for (text, steps) in [("5000", 5000), ("2epochs", 14), ("1epoch", 7), ("3 epochs", 21)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.steps(7).get(), steps, "{text}");
            let file = toml::to_string(&File { span }).unwrap();
            assert_eq!(toml::from_str::<File>(&file).unwrap(), File { span }, "{file}");
        }
        for text in ["", "0", "0epochs", "epochs", "-3", "2 weeks"] {
            assert_eq!(text.parse::<Span>(), Err(NO_SPAN), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_and_as_slurm_write_them() {
        let seconds = |text: &str| text.parse::<TimeSpan>().map(|time| time.0.as_secs()).ok();
        assert_eq!(seconds("3h50m"), Some(13_800));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("03:50:00"), Some(13_800));
        assert_eq!(seconds("1-12:00:00"), Some(129_600));
        for text in ["", "0s", "3", "3h50", "50:00", "a:b:c", "x-1:00:00"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!("230m".parse::<TimeSpan>().unwrap().to_string(), "3h 50m");
        assert_eq!(seconds("3h 50m"), Some(13_800));
    }
}

//! Which part of a run this process is.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::str::FromStr;

use fastclip_ingest::{Part, PartError};

/// Which shards to fetch, where several processes share the work.
#[derive(Debug, clap::Args)]
pub(super) struct PartArgs {
    /// Fetch part I of N, counted from 1, and leave the manifest to `ingest finish`; `all` for the whole list [default: what
    /// the variables of a Slurm array, a Kubernetes indexed job or an AWS Batch array say, otherwise all]
    #[arg(long, value_name = "I/N", help_heading = "Several processes")]
    part: Option<Choice>,
    /// Parts of a Kubernetes indexed job, whose variables do not say it
    #[arg(
        long,
        value_name = "N",
        env = "INGEST_NUM_PARTS",
        hide_env_values = true,
        help_heading = "Several processes"
    )]
    num_parts: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    Part(Part),
}

impl FromStr for Choice {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Part) }
    }
}

/// Variables of a scheduler that do not name a part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variables}, which names no part: {problem}")]
pub(crate) struct UnclearPart {
    variables: String,
    problem: &'static str,
}

/// A part, and the variables that named it.
#[derive(Debug, PartialEq, Eq)]
struct Detected {
    part: Part,
    variables: String,
}

impl PartArgs {
    /// The part that was asked for, or that the scheduler says; what it says is told.
    pub(super) fn resolve(&self) -> Result<Option<Part>, UnclearPart> {
        match self.part {
            Some(Choice::All) => return Ok(None),
            Some(Choice::Part(part)) => return Ok(Some(part)),
            None => {}
        }
        let detected = detect(|name| std::env::var(name).ok(), self.num_parts)?;
        Ok(detected.map(|Detected { part, variables }| {
            let text =
                format!("fetching part {part}, as {variables} says; --part all fetches the whole list");
            // With standard error closed nobody wants to know.
            let _ = writeln!(std::io::stderr(), "{text}");
            part
        }))
    }
}

/// Looks for the variables of schedulers.
fn detect(
    variable: impl Fn(&str) -> Option<String>,
    num_parts: Option<NonZeroU32>,
) -> Result<Option<Detected>, UnclearPart> {
    let number = |name: &str| variable(name).and_then(|value| value.parse::<u32>().ok());
    // What is set, for messages.
    let shown = |names: &[&str]| {
        let set = names.iter().filter_map(|name| variable(name).map(|value| format!("{name}={value}")));
        set.collect::<Vec<_>>().join(" ")
    };
    let detected = |names: &[&str], index: Option<u32>, num_parts: Option<u32>, problem| {
        let variables = shown(names);
        let part = index.zip(num_parts).and_then(|(index, num_parts)| {
            Part::new(index.checked_add(1)?, num_parts).ok().filter(|_| num_parts > 1)
        });
        match part {
            Some(part) => Ok(Some(Detected { part, variables })),
            None => Err(UnclearPart { variables, problem }),
        }
    };
    if variable("SLURM_ARRAY_TASK_ID").is_some() {
        let names = [
            "SLURM_ARRAY_TASK_ID",
            "SLURM_ARRAY_TASK_MIN",
            "SLURM_ARRAY_TASK_MAX",
            "SLURM_ARRAY_TASK_STEP",
            "SLURM_ARRAY_TASK_COUNT",
        ];
        let [task, least, most, step, count] = names.map(number);
        let step = step.unwrap_or(1).max(1);
        let index = task.zip(least).and_then(|(task, least)| task.checked_sub(least));
        let index = index.filter(|index| index.is_multiple_of(step)).map(|index| index / step);
        // With gaps, as in 1,5,9-12, a task cannot know how many come before it.
        let is_even =
            least.zip(most).and_then(|(least, most)| most.checked_sub(least)).map(|span| span / step + 1);
        let count = count.filter(|count| Some(*count) == is_even);
        let problem = "an array of one task or with gaps may be a repetition of some tasks of another";
        return detected(&names, index, count, problem);
    }
    if variable("AWS_BATCH_JOB_ARRAY_INDEX").is_some() {
        let names = ["AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"];
        let [index, size] = names.map(number);
        return detected(&names, index, size, "the size of the array is unknown");
    }
    if variable("JOB_COMPLETION_INDEX").is_some() {
        let names = ["JOB_COMPLETION_INDEX", "INGEST_NUM_PARTS"];
        let num_parts = num_parts.map(NonZeroU32::get);
        let problem = "the job has to say how many there are, with --num-parts or INGEST_NUM_PARTS";
        return detected(&names, number("JOB_COMPLETION_INDEX"), num_parts, problem);
    }
    match num_parts.map(NonZeroU32::get) {
        // Else each of so many processes would fetch the whole list.
        Some(num_parts) if num_parts > 1 => Err(UnclearPart {
            variables: format!("--num-parts or INGEST_NUM_PARTS is {num_parts}"),
            problem: "no variable of a scheduler says which of them this is",
        }),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(set: &[(&str, &str)], num_parts: Option<u32>) -> Result<Option<String>, String> {
        let variable =
            |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        match detect(variable, num_parts.and_then(NonZeroU32::new)) {
            Ok(detected) => Ok(detected.map(|detected| detected.part.to_string())),
            Err(unclear) => Err(unclear.to_string()),
        }
    }

    fn slurm(id: &str, least: &str, most: &str, step: &str, count: &str) -> Result<Option<String>, String> {
        let set = [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", least),
            ("SLURM_ARRAY_TASK_MAX", most),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
        ];
        part(&set, None)
    }

    #[test]
    fn schedulers_say_which_part_this_is() {
        assert_eq!(part(&[], None), Ok(None));
        assert_eq!(slurm("0", "0", "7", "1", "8"), Ok(Some("1/8".to_owned())));
        assert_eq!(slurm("8", "1", "8", "1", "8"), Ok(Some("8/8".to_owned())));
        assert_eq!(slurm("14", "10", "16", "2", "4"), Ok(Some("3/4".to_owned())));
        // 0-15:4 is 0, 4, 8 and 12; the largest number may be the last task's or the range's.
        assert_eq!(slurm("8", "0", "15", "4", "4"), Ok(Some("3/4".to_owned())));
        let batch = [("AWS_BATCH_JOB_ARRAY_INDEX", "2"), ("AWS_BATCH_JOB_ARRAY_SIZE", "5")];
        assert_eq!(part(&batch, None), Ok(Some("3/5".to_owned())));
        assert_eq!(part(&[("JOB_COMPLETION_INDEX", "0")], Some(3)), Ok(Some("1/3".to_owned())));
    }

    #[test]
    fn what_is_unclear_is_not_guessed() {
        for unclear in [
            slurm("3", "3", "3", "1", "1"),
            slurm("9", "1", "9", "1", "3"),
            slurm("x", "1", "9", "1", "9"),
            part(&[("SLURM_ARRAY_TASK_ID", "3")], Some(8)),
            part(&[("AWS_BATCH_JOB_ARRAY_INDEX", "2")], Some(8)),
        ] {
            assert!(unclear.is_err(), "{unclear:?}");
        }
        let message = part(&[("JOB_COMPLETION_INDEX", "4")], None).unwrap_err();
        assert!(
            message.starts_with("JOB_COMPLETION_INDEX=4, which names no part: the job has to say"),
            "{message}"
        );
        assert!(part(&[("JOB_COMPLETION_INDEX", "4")], Some(4)).is_err());
        let message = part(&[], Some(64)).unwrap_err();
        assert!(
            message.starts_with("--num-parts or INGEST_NUM_PARTS is 64, which names no part: no variable"),
            "{message}"
        );
        assert_eq!(part(&[], Some(1)), Ok(None), "one part is the whole");
    }
}

//! Starting ranks again after a failure.
//!
//! A run continues from its last checkpoint by itself, so that starting again is all there is to do. What needs thought
//! is when not to: an input that was refused is refused again, a run that was told to stop should, and one that fails
//! twice at the same checkpoint has a reason that a third time will not change, unless it is one of the ranks.

use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use super::ranks::announce;
use super::{LaunchError, LaunchOptions, LaunchOutcome, POLL, launch_with, listen};

/// Exit code of a rank whose input was refused.
const REFUSED: i32 = 1;

/// Waiting is doubled so often at most.
const MAX_DOUBLINGS: u32 = 6;

/// When ranks are started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperviseOptions {
    /// Ranks to begin with.
    pub num_ranks: NonZeroUsize,
    /// How often at most.
    pub max_restarts: u64,
    /// Ranks below which it makes no sense; ranks that fail again and again are left out as long as there are more.
    pub min_ranks: NonZeroUsize,
    /// Time between a failure and the next start; doubled with each failure without a new checkpoint.
    pub delay: Duration,
}

/// One start of all ranks.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Starts before.
    pub num_restarts: u64,
    /// Ranks of this one.
    pub num_ranks: NonZeroUsize,
    /// Numbers, within the first attempt, of the places on this machine that ranks may have.
    pub places: &'a [usize],
}

/// Starts ranks, and starts them again when one fails, as long as that makes sense.
///
/// `describe` says what to start; it returns nothing for a number of ranks that cannot share the work. `progress` says
/// how far the run's checkpoints have come.
///
/// # Errors
///
/// As [`launch`](super::launch).
pub fn supervise(
    options: &SuperviseOptions,
    describe: &dyn Fn(Attempt<'_>) -> Option<LaunchOptions>,
    progress: &dyn Fn() -> Option<u64>,
) -> Result<LaunchOutcome, LaunchError> {
    let mut signals = listen()?;
    let mut places: Vec<usize> = (0..options.num_ranks.get()).collect();
    let mut num_ranks = options.num_ranks;
    let mut num_restarts = 0;
    let mut num_fruitless = 0;
    // Where checkpoints stood, and the place of the rank that failed.
    let mut last_failure: Option<(Option<u64>, usize)> = None;
    loop {
        let attempt = Attempt { num_restarts, num_ranks, places: &places };
        let launch = describe(attempt).expect("only numbers of ranks that can share the work are tried");
        let outcome = launch_with(&launch, &mut signals)?;
        let Some((rank, status)) = outcome.first_failure else { return Ok(outcome) };
        if outcome.was_asked_to_end || status.code() == Some(REFUSED) || options.max_restarts == 0 {
            return Ok(outcome);
        }
        let reached = progress();
        let cause = format!("rank {rank} {}", ended(status));
        if num_restarts == options.max_restarts {
            announce(&format!("{cause}; giving up after {}", restarts(num_restarts)));
            return Ok(outcome);
        }
        let place = places[rank];
        let blamed = last_failure.filter(|&(before, _)| before == reached).map(|(_, place)| place);
        last_failure = Some((reached, place));
        if let Some(blamed) = blamed {
            num_fruitless += 1;
            let fewer = (options.min_ranks.get()..num_ranks.get()).rev().filter_map(NonZeroUsize::new);
            let fits = |&number: &NonZeroUsize| {
                describe(Attempt { num_restarts, num_ranks: number, places: &places }).is_some()
            };
            let Some(fewer) = { fewer }.find(fits) else {
                announce(&format!(
                    "{cause}; giving up, since no checkpoint was written between this failure and the one before"
                ));
                return Ok(outcome);
            };
            // Another one may have been unlucky; none of them is known to be bad.
            if place == blamed {
                announce(&format!(
                    "{cause} again before a checkpoint was written; going on without it, on {fewer} of {num_ranks} ranks"
                ));
                places.remove(rank);
                num_ranks = fewer;
                last_failure = None;
            }
        } else {
            num_fruitless = 0;
        }
        num_restarts += 1;
        let delay = options.delay * 2u32.pow(num_fruitless.min(MAX_DOUBLINGS));
        let from =
            reached.map_or("from the start".to_owned(), |step| format!("from the checkpoint of step {step}"));
        announce(&format!(
            "{cause}; starting {num_ranks} ranks again {from}, in {} s (restart {num_restarts} of {})",
            delay.as_secs(),
            options.max_restarts
        ));
        let until = Instant::now() + delay;
        while Instant::now() < until {
            if signals.pending().next().is_some() {
                return Ok(LaunchOutcome { was_asked_to_end: true, ..outcome });
            }
            thread::sleep(POLL);
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("was ended by signal {signal} ({name})")
        }
        (None, None) => format!("ended with {status}"),
    }
}

fn restarts(number: u64) -> String {
    if number == 1 { "1 restart".to_owned() } else { format!("{number} restarts") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Supervises two shells that run `script`, without any checkpoint.
    fn supervise_shells(script: &str) -> LaunchOutcome {
        let two = NonZeroUsize::new(2).unwrap();
        let options = SuperviseOptions {
            num_ranks: two,
            max_restarts: 5,
            min_ranks: NonZeroUsize::MIN,
            delay: Duration::ZERO,
        };
        let describe = |attempt: Attempt<'_>| {
            Some(LaunchOptions {
                num_ranks: attempt.num_ranks,
                machines: None,
                program: Some("/bin/sh".into()),
                args: vec!["-c".into(), script.into()],
                threads: None,
                port: None,
                grace: Duration::from_secs(60),
                num_restarts: attempt.num_restarts,
                visible_devices: None,
            })
        };
        supervise(&options, &describe, &|| None).unwrap()
    }

    #[test]
    fn a_rank_is_left_out_only_if_it_was_the_one_that_failed_before() {
        // In the first attempt rank 0 is killed, in the second rank 1; then all must still be there.
        let outcome = supervise_shells(
            "attempt=$TORCHELASTIC_RESTART_COUNT
             if [ $attempt -ge 2 ]; then exit $((WORLD_SIZE == 2 ? 0 : 1)); fi
             if [ $RANK -eq $attempt ]; then kill -KILL $$; fi
             exec sleep 600",
        );
        assert_eq!(outcome.exit_code(), 0);
        // Rank 1 is killed twice; then it is gone.
        let outcome = supervise_shells(
            "if [ $TORCHELASTIC_RESTART_COUNT -ge 2 ]; then exit $((WORLD_SIZE == 1 ? 0 : 1)); fi
             if [ $RANK -eq 1 ]; then kill -KILL $$; fi
             exec sleep 600",
        );
        assert_eq!(outcome.exit_code(), 0);
    }
}

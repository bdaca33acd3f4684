//! Steps that are not finite, and how many of them a run bears.

use fastclip_schemas::SampleId;

use crate::config::NonFinite;
use crate::gradients::{Parts, Stop};
use crate::step::{StepError, StepReport};

/// Steps in a row that may be left out: more of them are no bad samples, but a model that is lost.
const MAX_SKIPPED: u32 = 10;

/// A sample and the key by which people find it.
pub(super) type NamedSample = (SampleId, Box<str>);

/// Decides whether the run goes on.
#[derive(Debug)]
pub(super) struct Tolerance {
    may_skip: bool,
    /// In a row, up to now.
    num_skipped: u32,
}

/// What was found in a step after which the run goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// Nothing if it was left out.
    pub(super) report: Option<StepReport>,
    /// Whether a rank was asked to stop.
    pub(super) stop: Option<Stop>,
    /// What became of the parts of the checkpoint that is being written.
    pub(super) parts: Parts,
}

impl Tolerance {
    pub(super) fn new(policy: NonFinite) -> Self {
        Self { may_skip: policy == NonFinite::Skip, num_skipped: 0 }
    }

    /// Looks at what was found in a step with these samples, in the order of steps. Names those whose features are not finite.
    ///
    /// # Errors
    /// When the run must end.
    pub(super) fn judge(
        &mut self,
        found: Result<StepReport, StepError>,
        samples: &[NamedSample],
    ) -> Result<Judged, StepError> {
        match found {
            Ok(report) => {
                self.num_skipped = 0;
                Ok(Judged { report: Some(report), stop: report.stop, parts: report.parts })
            }
            Err(error) => {
                let StepError::NotFinite { samples: lost, stop, parts, .. } = &error else {
                    return Err(error);
                };
                for (id, key) in samples.iter().filter(|(id, _)| lost.contains(id)) {
                    tracing::warn!("the features of sample {id}, `{key}`, are not finite");
                }
                self.num_skipped += 1;
                if !self.may_skip || self.num_skipped >= MAX_SKIPPED {
                    return Err(error);
                }
                tracing::warn!("the step is left out: {error}");
                Ok(Judged { report: None, stop: *stop, parts: *parts })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Result<StepReport, StepError> {
        Err(StepError::NotFinite {
            step: 3,
            not_finite_on: vec![0],
            first: None,
            samples: vec![SampleId(1)],
            stop: Some(Stop::Warning),
            parts: Parts::default(),
        })
    }

    #[test]
    fn a_run_that_may_skip_bears_few_lost_steps_in_a_row_and_heeds_what_came_with_them() {
        let samples = [(SampleId(1), "a".into())];
        assert!(Tolerance::new(NonFinite::Stop).judge(lost(), &samples).is_err());
        let mut tolerance = Tolerance::new(NonFinite::Skip);
        for _ in 1..MAX_SKIPPED {
            let judged = tolerance.judge(lost(), &samples).unwrap();
            assert_eq!((judged.report, judged.stop), (None, Some(Stop::Warning)));
        }
        assert!(tolerance.judge(lost(), &samples).is_err());
    }
}

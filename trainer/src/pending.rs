//! Steps that are on a device's queue, and what is read of them.

use std::sync::Arc;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::Download;

use crate::distributed::CommCounters;
use crate::gradients::{Agreement, Parts};
use crate::schedule::Rates;
use crate::step::{Message, StepError, StepReport};

/// A step that has been put on the device's queue, and may not be done.
#[derive(Debug)]
pub struct Pending {
    numbers: Download,
    known: Known,
}

/// What the host knows of a step without asking the device.
#[derive(Debug)]
pub(crate) struct Known {
    /// Steps taken before.
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) gamma: Option<f64>,
    pub(crate) rates: Rates,
    pub(crate) communication: CommCounters,
    pub(crate) num_ranks: usize,
    /// What this rank told the others.
    pub(crate) message: Message,
    /// This rank's samples.
    pub(crate) ids: Vec<SampleId>,
    /// Names of the parameters, in their order.
    pub(crate) names: Arc<[String]>,
}

impl Pending {
    pub(crate) fn new(numbers: Download, known: Known) -> Self {
        Self { numbers, known }
    }

    /// Waits until the step is done, and returns what it found.
    ///
    /// # Errors
    /// When loss or gradients were not finite, see [`Trainer::step`](crate::step::Trainer::step), or the device failed.
    pub fn read(self) -> Result<StepReport, StepError> {
        let Known { step, epoch, gamma, rates, communication, num_ranks, message, ids, names } = self.known;
        let numbers = self.numbers.finish().map_err(|source| StepError::Device {
            step,
            action: "read what was found in",
            source,
        })?;
        let numbers = Vec::<f64>::try_from(numbers).expect("a vector of doubles converts");
        let (numbers, lost) = numbers.split_at(Agreement::num_numbers(num_ranks));
        let agreement = Agreement::of(numbers);
        let (stop, parts) = match num_ranks {
            // Nobody else need hear of it, and a step that is replayed tells what it was recorded with.
            1 => (message.stop, Parts::of_one(message.part)),
            _ => (agreement.stop, agreement.parts),
        };
        if !agreement.is_finite() {
            let samples = ids.into_iter().zip(lost).filter(|(_, lost)| **lost != 0.0).map(|(id, _)| id);
            return Err(StepError::NotFinite {
                step,
                not_finite_on: agreement.not_finite_on,
                first: agreement.first_not_finite.map(|place| names[place].clone()),
                samples: samples.collect(),
                stop,
                parts,
            });
        }
        Ok(StepReport {
            epoch,
            values: agreement.values,
            grad_norm: agreement.norm,
            tau: agreement.values.tau,
            gamma,
            rates,
            communication,
            stop,
            parts,
        })
    }
}

/// Steps whose reports have not been read: at most one.
///
/// Each is read when the next one is on the queue, so that the device always has work, or at once where somebody wants to
/// know. All ranks read the same reports after the same steps, whatever their devices' pace. With each step something may be
/// kept until its report is read.
#[derive(Debug)]
pub struct InFlight<T> {
    previous: Option<(Pending, T)>,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self { previous: None }
    }
}

/// What was read of a step, and what was kept for it.
pub type Arrived<T> = (Result<StepReport, StepError>, T);

impl<T> InFlight<T> {
    /// Takes over a step, and reads about the one before it; about this one, too, if that `is_wanted` now, or if it is the
    /// last because somebody asked to stop.
    pub fn push(&mut self, pending: Pending, kept: T, is_wanted: bool) -> Vec<Arrived<T>> {
        let mut arrived = Vec::with_capacity(2);
        arrived.extend(self.previous.take().map(|(pending, kept)| (pending.read(), kept)));
        if is_wanted || arrived.iter().any(|(report, _)| asks_to_stop(report)) {
            arrived.push((pending.read(), kept));
        } else {
            self.previous = Some((pending, kept));
        }
        arrived
    }
}

fn asks_to_stop(report: &Result<StepReport, StepError>) -> bool {
    match report {
        Ok(report) => report.stop.is_some(),
        Err(StepError::NotFinite { stop, .. }) => stop.is_some(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::gradients::{Part, Stop};

    const NONE: [u64; 0] = [];

    /// A step of the first of two ranks, with two samples each. Its norm is 1, its loss the number of the step.
    fn pending(step: u64, stop: Option<Stop>, lost_rank: Option<usize>) -> Pending {
        let mut numbers = vec![1.0, -1.0, step as f64, 0.0, 0.0, 0.0, 0.5];
        numbers.extend(Stop::ALL.map(|known| f64::from(u8::from(stop == Some(known)))));
        numbers.extend([0, 1].map(|rank| f64::from(u8::from(lost_rank == Some(rank)))));
        assert_eq!(numbers.len(), Agreement::num_numbers(2));
        numbers.extend([0.0, f64::from(u8::from(lost_rank == Some(0)))]);
        let known = Known {
            step,
            epoch: 0,
            gamma: None,
            rates: Rates { model: 0.0, temperature: 0.0, threshold: None },
            communication: CommCounters::default(),
            num_ranks: 2,
            message: Message::default(),
            ids: vec![SampleId(5), SampleId(7)],
            names: ["weight".to_owned()].into(),
        };
        Pending::new(Download::start(&Tensor::from_slice(&numbers)).unwrap(), known)
    }

    /// Steps that were read about, by what was kept for them.
    fn steps(arrived: Vec<Arrived<u64>>) -> Vec<u64> {
        arrived
            .into_iter()
            .map(|(report, step)| {
                assert_eq!(report.unwrap().values.loss, step as f64);
                step
            })
            .collect()
    }

    #[test]
    fn a_report_is_read_when_the_next_step_is_on_the_queue_or_when_it_is_wanted() {
        let mut in_flight = InFlight::default();
        let mut push = |step, is_wanted| steps(in_flight.push(pending(step, None, None), step, is_wanted));
        assert_eq!(push(0, true), [0]);
        assert_eq!(push(1, false), NONE);
        assert_eq!(push(2, false), [1]);
        assert_eq!(push(3, true), [2, 3]);
        assert_eq!(push(4, false), NONE);
    }

    #[test]
    fn a_step_after_one_that_asked_to_stop_is_the_last() {
        let mut in_flight = InFlight::default();
        assert_eq!(steps(in_flight.push(pending(0, Some(Stop::Warning), None), 0, false)), NONE);
        let arrived = in_flight.push(pending(1, None, None), 1, false);
        assert_eq!(arrived[0].0.as_ref().unwrap().stop, Some(Stop::Warning));
        assert_eq!(steps(arrived), [0, 1]);
    }

    #[test]
    fn a_step_that_was_lost_names_ranks_and_this_ranks_samples() {
        for (lost_rank, lost) in [(0, vec![SampleId(7)]), (1, vec![])] {
            let error = pending(3, Some(Stop::Interrupt), Some(lost_rank)).read().unwrap_err();
            let StepError::NotFinite { step: 3, not_finite_on, first: None, samples, stop, .. } = error
            else {
                panic!("{error}")
            };
            assert_eq!((not_finite_on, samples, stop), (vec![lost_rank], lost, Some(Stop::Interrupt)));
        }
    }

    #[test]
    fn one_rank_needs_nobody_to_tell_it_what_it_asked_for() {
        let mut alone = pending(0, None, None);
        alone.known.num_ranks = 1;
        alone.known.message = Message { stop: Some(Stop::Terminate), part: Part::Failed };
        // One rank less: the mark of the second is the first of the samples.
        let report = alone.read().unwrap();
        assert_eq!(report.stop, Some(Stop::Terminate));
        assert_eq!(report.parts, Parts { num_reported: 1, first_failed: Some(0) });
    }
}

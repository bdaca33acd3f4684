//! What training passes gather beside gradients, as one tensor.

use fastclip_torch_ext::foreach_copy;
use tch::{Kind, Tensor, no_grad};

use crate::distributed::{CommError, Communicator};
use crate::model::Parameters;

/// What batch norms have gathered, at one moment.
#[derive(Debug)]
pub(crate) struct Statistics {
    /// Means and variances of all norms, one behind the other; and how often each has gathered.
    values: Option<Tensor>,
    counts: Option<Tensor>,
}

impl Statistics {
    /// Copies them.
    pub(crate) fn of(parameters: &Parameters) -> Self {
        Self { values: flat(parameters, true), counts: flat(parameters, false) }
    }

    /// Puts them back where `is_lost`, `[]`, is not 0 when the device comes to it.
    pub(crate) fn restore_where(&self, is_lost: &Tensor, parameters: &Parameters) {
        for (is_floating, before) in [(true, &self.values), (false, &self.counts)] {
            if let (Some(before), Some(now)) = (before, flat(parameters, is_floating)) {
                spread(parameters, is_floating, &before.where_self(&is_lost.ne(0), &now));
            }
        }
    }

    /// Adds to them the mean over ranks of what each has gathered since. Collective. All ranks hold the same then, and where
    /// nothing was gathered no bit changes.
    pub(crate) fn average_since(
        &self,
        parameters: &Parameters,
        comm: &dyn Communicator,
    ) -> Result<(), CommError> {
        if comm.world_size() == 1 {
            return Ok(());
        }
        let (Some(before), Some(now)) = (&self.values, flat(parameters, true)) else { return Ok(()) };
        let gathered = now - before;
        comm.all_reduce_sum(&gathered)?;
        spread(parameters, true, &(before + gathered / comm.world_size() as f64));
        Ok(())
    }
}

fn buffers(parameters: &Parameters, is_floating: bool) -> impl Iterator<Item = &Tensor> {
    let buffers = parameters.buffers().iter().map(|buffer| &buffer.tensor);
    buffers.filter(move |tensor| tensor.is_floating_point() == is_floating)
}

fn flat(parameters: &Parameters, is_floating: bool) -> Option<Tensor> {
    let flat: Vec<Tensor> = buffers(parameters, is_floating).map(|tensor| tensor.flatten(0, -1)).collect();
    (!flat.is_empty()).then(|| no_grad(|| Tensor::cat(&flat, 0)))
}

fn spread(parameters: &Parameters, is_floating: bool, flat: &Tensor) {
    debug_assert!(is_floating || flat.kind() == Kind::Int64);
    let mut start = 0;
    let (to, from): (Vec<Tensor>, Vec<Tensor>) = buffers(parameters, is_floating)
        .map(|buffer| {
            let length = buffer.numel() as i64;
            let part = flat.narrow(0, start, length).view_as(buffer);
            start += length;
            (buffer.shallow_clone(), part)
        })
        .unzip();
    foreach_copy(&to, &from).expect("parts have the shapes and devices of what they are copied into");
}

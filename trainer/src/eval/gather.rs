//! Gathering what ranks hold unequal amounts of.

use tch::{Kind, Tensor};

use super::EvalError;
use crate::distributed::Communicator;

/// Returns the rows of all ranks, in the order of ranks.
///
/// Ranks may hold different numbers of rows, or none: shares are padded to the largest, gathered, and the padding is
/// cut out again. All ranks must agree on the shape of a row and on the kind.
pub(crate) fn gather_rows(comm: &dyn Communicator, rows: &Tensor) -> Result<Tensor, EvalError> {
    let shape = rows.size();
    let num_rows = Tensor::from_slice(&shape[..1]).to_device(rows.device());
    let counts = Vec::<i64>::try_from(comm.all_gather(&num_rows)?)?;
    let most = counts.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return Ok(rows.shallow_clone()); // on all ranks alike, as all see the same counts
    }
    let mut padded_shape = shape.clone();
    padded_shape[0] = most;
    let padded = Tensor::zeros(padded_shape, (rows.kind(), rows.device()));
    padded.narrow(0, 0, shape[0]).copy_(rows);
    let all = comm.all_gather(&padded)?;
    let shares = counts.iter().zip((0..).step_by(most as usize));
    let shares: Vec<_> = shares.map(|(&count, start)| all.narrow(0, start, count)).collect();
    Ok(Tensor::cat(&shares, 0))
}

/// Returns the rows `start..end` of `0..num_rows` that are this rank's share.
pub(super) fn share(comm: &dyn Communicator, num_rows: i64) -> (i64, i64) {
    let (rank, world_size) = (comm.rank() as i64, comm.world_size() as i64);
    (num_rows * rank / world_size, num_rows * (rank + 1) / world_size)
}

/// Returns whole numbers as a column on the device of `like`.
pub(super) fn column(numbers: &[i64], like: &Tensor) -> Tensor {
    Tensor::from_slice(numbers).to_kind(Kind::Int64).to_device(like.device())
}

//! The mean of gradients over ranks.

use tch::{Tensor, no_grad};

use super::{CommError, Communicator};

/// Bytes in one collective. Smaller ones waste time on waiting for each other, larger ones on copying before the first can
/// start; PyTorch settled on the same size.
const BUCKET_BYTES: usize = 25 << 20;

/// Replaces the gradient of each parameter by its mean over ranks.
///
/// Gradients are copied into flat buckets in the order of `params`, and each bucket is one collective. Which parameters
/// have a gradient must be the same on all ranks; those without one are left out. The result is the same on all ranks, bit
/// for bit, and from run to run.
pub fn average_gradients(params: &[Tensor], comm: &dyn Communicator) -> Result<(), CommError> {
    no_grad(|| {
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).filter(Tensor::defined).collect();
        for bucket in buckets(&grads) {
            let flat = Tensor::cat(&bucket.iter().map(|grad| grad.reshape([-1])).collect::<Vec<_>>(), 0);
            comm.all_reduce_sum(&flat)?;
            let mean = flat / comm.world_size() as f64;
            let lengths: Vec<i64> = bucket.iter().map(|grad| grad.numel() as i64).collect();
            for (grad, mean) in bucket.iter().zip(mean.split_with_sizes(&lengths, 0)) {
                grad.shallow_clone().copy_(&mean.view_as(grad));
            }
        }
        Ok(())
    })
}

/// Cuts the list into runs of one kind and device that fill a bucket; a tensor larger than a bucket is one by itself.
fn buckets(grads: &[Tensor]) -> Vec<&[Tensor]> {
    let mut buckets = Vec::new();
    let (mut start, mut num_bytes) = (0, 0);
    for (i, grad) in grads.iter().enumerate() {
        let grad_bytes = grad.numel() * grad.kind().elt_size_in_bytes();
        let is_alike = grad.kind() == grads[start].kind() && grad.device() == grads[start].device();
        if i > start && (num_bytes + grad_bytes > BUCKET_BYTES || !is_alike) {
            buckets.push(&grads[start..i]);
            (start, num_bytes) = (i, 0);
        }
        num_bytes += grad_bytes;
    }
    if start < grads.len() {
        buckets.push(&grads[start..]);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::Alone;
    use super::*;

    fn zeros(num_mib: i64, kind: Kind) -> Tensor {
        Tensor::zeros([num_mib << 20 >> kind.elt_size_in_bytes().ilog2()], (kind, Device::Cpu))
    }

    #[test]
    fn buckets_hold_neighbours_of_one_kind_up_to_their_size() {
        let grads = [
            zeros(10, Kind::Float),
            zeros(15, Kind::Float),
            zeros(1, Kind::Float),
            zeros(1, Kind::Double),
            zeros(30, Kind::Double),
            zeros(1, Kind::Double),
        ];
        let lengths: Vec<usize> = buckets(&grads).iter().map(|bucket| bucket.len()).collect();
        assert_eq!(lengths, [2, 1, 1, 1, 1]);
        assert!(buckets(&[]).is_empty());
    }

    #[test]
    fn a_world_of_one_keeps_its_gradients() {
        let param = Tensor::from_slice(&[1f32, 2., 3.]).set_requires_grad(true);
        let unused = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        (&param * &param).sum(Kind::Float).backward();
        let comm = Alone::new();
        average_gradients(&[param.shallow_clone(), unused], &comm).unwrap();
        assert_eq!(Vec::<f32>::try_from(&param.grad()).unwrap(), [2., 4., 6.]);
        assert_eq!(comm.counters().all_reduce.num_calls, 1);
    }
}

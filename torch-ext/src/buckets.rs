//! Gradients in buckets whose sum over ranks starts while backward still runs.
//!
//! The gradient of every parameter is a view into one of a few flat tensors, the buckets, which live as long as the run.
//! Autograd adds to them in place. A hook on each parameter counts its bucket down, and a bucket whose last gradient has
//! come is handed to an all-reduce at once, so that it travels while backward computes the next.
//!
//! c10d has a class for this, `Reducer`, which lost. It waits for all reductions inside of backward, where a failure no
//! longer tells which collective it was. After the first step it lays out its buckets anew, in the order that rank 0 saw,
//! by a broadcast that our numbering of collectives would not know of. It divides by the number of ranks, where ours are
//! sums of shares; sums, and a look at a rank's own gradients before they are mixed with those of others, would need a
//! hook of ours on its communication as well. What it does better is that order: ours is the reverse of the model's list,
//! so that the few parameters at the head of a tower that are listed first leave last.

#![expect(unsafe_code, reason = "calls the C interface of hooks on autograd")]

use std::fmt;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{Collective, CollectiveError};
use crate::ffi::{self, Failure, checked};
use crate::{ProcessGroup, TorchError, Work};

/// A parameter whose gradient gets a place in a bucket.
#[derive(Debug, Clone, Copy)]
pub struct BucketEntry<'a> {
    /// The parameter. Its gradient is of the same kind.
    pub parameter: &'a Tensor,
    /// What autograd differentiates with respect to: the parameter itself, or a copy in another kind. A leaf that asks for
    /// gradients. None if the gradient is written by the owner of the buckets, before backward.
    pub leaf: Option<&'a Tensor>,
}

/// The gradients of a model's parameters.
///
/// While they exist, autograd adds gradients to them, over any number of backward passes. Dropping them takes the
/// gradients away from the parameters.
pub struct GradientBuckets {
    handle: NonNull<ffi::Buckets>,
    flats: Vec<Tensor>,
    gradients: Vec<Tensor>,
    largest: Tensor,
}

// SAFETY: the object on the C++ side is tied to no thread, and its hooks lock it.
unsafe impl Send for GradientBuckets {}

impl GradientBuckets {
    /// Deals parameters out to buckets of at most so many bytes, or of one parameter that is larger.
    ///
    /// Buckets are filled from the last parameter to the first. Models list parameters in the order of their use, so that
    /// backward finishes the last ones first and the first bucket leaves early.
    ///
    /// # Errors
    ///
    /// Refuses parameters of different kinds or devices, parameters that autograd gives no gradient, and parameters that
    /// are in other buckets.
    pub fn new(entries: &[BucketEntry<'_>], bucket_bytes: NonZeroUsize) -> Result<Self, TorchError> {
        let Some(first) = entries.first() else {
            return Err(TorchError::new("there are no parameters to make buckets for"));
        };
        let (kind, device) = (first.parameter.kind(), first.parameter.device());
        for (index, BucketEntry { parameter, .. }) in entries.iter().enumerate() {
            if (parameter.kind(), parameter.device()) != (kind, device) {
                return Err(TorchError::new(format!(
                    "parameter {index} is {:?} on {:?}, parameter 0 is {kind:?} on {device:?}",
                    parameter.kind(),
                    parameter.device()
                )));
            }
        }
        let sizes: Vec<usize> = entries.iter().map(|entry| entry.parameter.numel()).collect();
        let largest_bucket = bucket_bytes.get() / kind.elt_size_in_bytes();
        let dealt = deal(&sizes, largest_bucket);

        let mut flats = Vec::with_capacity(dealt.len());
        let mut gradients: Vec<Option<Tensor>> = entries.iter().map(|_| None).collect();
        let mut bucket_of = vec![0; entries.len()];
        for (bucket, indices) in dealt.iter().enumerate() {
            let numel: usize = indices.iter().map(|&index| sizes[index]).sum();
            let flat = Tensor::zeros([numel as i64], (kind, device));
            let mut offset = 0;
            for &index in indices {
                let part = flat.narrow(0, offset, sizes[index] as i64);
                gradients[index] = Some(part.view(&entries[index].parameter.size()[..]));
                bucket_of[index] = bucket;
                offset += sizes[index] as i64;
            }
            flats.push(flat);
        }
        let gradients: Vec<Tensor> = gradients
            .into_iter()
            .map(|gradient| gradient.expect("dealing leaves no parameter out"))
            .collect();
        let largest = Tensor::zeros([flats.len() as i64], (kind, device));
        let handle = attach(entries, &gradients, &bucket_of, &flats, &largest)?;
        Ok(Self { handle, flats, gradients, largest })
    }

    /// Returns the gradients in the order of the parameters: views into the buckets. What is written there between
    /// [`clear`](Self::clear) and a backward pass stays only where that has no gradient of another kind to put there.
    pub fn gradients(&self) -> &[Tensor] {
        &self.gradients
    }

    /// Returns the buckets in the order in which they leave, one dimension each.
    pub fn flats(&self) -> &[Tensor] {
        &self.flats
    }

    /// Returns the largest absolute value of this rank's own gradients in each bucket, as it was when the bucket left.
    /// It is infinite or not a number if one of them is, whatever the sum over ranks came to.
    pub fn largest(&self) -> &Tensor {
        &self.largest
    }

    /// Sets all gradients to zero.
    pub fn clear(&mut self) {
        checked(|message| {
            // SAFETY: the handle is valid until `self` is dropped; no backward pass runs, as those borrow `self`.
            unsafe { ffi::fc_buckets_clear(self.handle.as_ptr(), message) }
        })
        .map_err(|failure| failure.error)
        .expect("buckets can be filled with zeros");
    }

    /// Runs a backward pass, the last before gradients are used, in a world of one.
    ///
    /// # Errors
    ///
    /// When a parameter gets more than one gradient.
    pub fn complete(&mut self, backward: impl FnOnce()) -> Result<(), TorchError> {
        let armed = Armed::new(self, None).map_err(|failure| failure.error)?;
        backward();
        armed.finish().map_err(|failure| failure.error)
    }

    /// Runs a backward pass, the last before gradients are used, and meanwhile replaces every bucket by its sum over
    /// ranks.
    ///
    /// Each bucket is one collective of the group, in the order of [`flats`](Self::flats); `backward` must start none.
    /// Gradients that `backward` does not touch are summed as they are.
    ///
    /// # Errors
    ///
    /// Names the first bucket that failed. The reductions of later ones may still run then; dropping the group waits for
    /// them.
    pub fn all_reduce_during(
        &mut self,
        group: &ProcessGroup,
        backward: impl FnOnce(),
    ) -> Result<(), CollectiveError> {
        let num_buckets = self.flats.len();
        let before = group.sequence().last();
        let bucket = |index| Collective::GradientBucket { index, num_buckets };
        let failed = |failure| {
            let sequence = group.sequence().last();
            group.failed(bucket((sequence - before).saturating_sub(1) as usize), sequence, failure)
        };
        let armed = Armed::new(self, Some(group)).map_err(failed)?;
        backward();
        armed.finish().map_err(failed)?;
        for index in 0..num_buckets {
            self.work(group, bucket(index), index, before + index as u64 + 1)?.wait()?;
        }
        Ok(())
    }

    /// Takes over the work of a bucket that was started.
    fn work(
        &self,
        group: &ProcessGroup,
        collective: Collective,
        index: usize,
        sequence: u64,
    ) -> Result<Work, CollectiveError> {
        let mut work = std::ptr::null_mut();
        checked(|message| {
            // SAFETY: the handle is valid until `self` is dropped, and the place for the work is on this stack.
            unsafe { ffi::fc_buckets_take_work(self.handle.as_ptr(), index, &mut work, message) }
        })
        .map_err(|failure| group.failed(collective, sequence, failure))?;
        let work = NonNull::new(work).expect("a reduction that was handed out is a work");
        Ok(group.adopt(work, collective, sequence))
    }
}

impl Drop for GradientBuckets {
    fn drop(&mut self) {
        // SAFETY: the handle came from the C++ side, and this is the only place that gives it back; no backward pass runs,
        // as those borrow `self`.
        unsafe { ffi::fc_buckets_free(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for GradientBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GradientBuckets")
            .field("num_parameters", &self.gradients.len())
            .field("num_buckets", &self.flats.len())
            .finish_non_exhaustive()
    }
}

/// Buckets that leave when they are full. Dropping it, also while a panic passes, ends that.
struct Armed<'a>(&'a GradientBuckets);

impl<'a> Armed<'a> {
    fn new(buckets: &'a GradientBuckets, group: Option<&'a ProcessGroup>) -> Result<Self, Failure> {
        let (handle, counter) = group
            .map_or((std::ptr::null_mut(), std::ptr::null_mut()), |group| (group.handle(), group.counter()));
        checked(|message| {
            // SAFETY: group and counter live as long as this object, whose drop makes the C++ side forget them.
            unsafe { ffi::fc_buckets_arm(buckets.handle.as_ptr(), handle, counter, message) }
        })?;
        Ok(Self(buckets))
    }

    /// Lets the rest leave.
    fn finish(self) -> Result<(), Failure> {
        checked(|message| {
            // SAFETY: the handle is valid as long as the buckets.
            unsafe { ffi::fc_buckets_finish(self.0.handle.as_ptr(), message) }
        })
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        // SAFETY: as above; disarming twice does nothing.
        unsafe { ffi::fc_buckets_disarm(self.0.handle.as_ptr()) };
    }
}

/// Makes autograd add the gradients of the parameters that it knows to their places.
fn attach(
    entries: &[BucketEntry<'_>],
    gradients: &[Tensor],
    bucket_of: &[usize],
    flats: &[Tensor],
    largest: &Tensor,
) -> Result<NonNull<ffi::Buckets>, TorchError> {
    let leaves: Vec<usize> = (0..entries.len()).filter(|&index| entries[index].leaf.is_some()).collect();
    let parameters: Vec<*const C_tensor> =
        entries.iter().filter_map(|entry| entry.leaf).map(Tensor::as_ptr).collect();
    let views: Vec<*const C_tensor> = leaves.iter().map(|&index| gradients[index].as_ptr()).collect();
    let bucket_of: Vec<usize> = leaves.iter().map(|&index| bucket_of[index]).collect();
    let flats: Vec<*const C_tensor> = flats.iter().map(Tensor::as_ptr).collect();
    let mut handle = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: three arrays of one length, each about the same leaves, and one of all buckets; every number in
        // `bucket_of` is an index into it. The C++ side shares the ownership of the tensors.
        unsafe {
            ffi::fc_buckets_new(
                parameters.as_ptr(),
                views.as_ptr(),
                bucket_of.as_ptr(),
                parameters.len(),
                flats.as_ptr(),
                flats.len(),
                largest.as_ptr(),
                &mut handle,
                message,
            )
        }
    })
    .map_err(|failure| failure.error)?;
    Ok(NonNull::new(handle).expect("buckets without a failure are there"))
}

/// Deals indices out to buckets of at most `largest` elements, from the last index to the first.
fn deal(sizes: &[usize], largest: usize) -> Vec<Vec<usize>> {
    let mut dealt: Vec<Vec<usize>> = Vec::new();
    let mut free = 0;
    for (index, &size) in sizes.iter().enumerate().rev() {
        match dealt.last_mut() {
            Some(bucket) if size <= free => {
                bucket.push(index);
                free -= size;
            }
            _ => {
                dealt.push(vec![index]);
                free = largest.saturating_sub(size);
            }
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn buckets_are_filled_from_the_last_parameter_up_to_their_size() {
        assert_eq!(deal(&[1, 2, 3, 4], 6), [vec![3], vec![2, 1, 0]]);
        assert_eq!(deal(&[1, 2, 3, 4], 100), [vec![3, 2, 1, 0]]);
        assert_eq!(deal(&[2, 9, 1], 4), [vec![2], vec![1], vec![0]], "one that is too large is alone");
        assert_eq!(deal(&[2, 0, 2], 2), [vec![2, 1], vec![0]]);
    }
}

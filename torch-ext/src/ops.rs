//! Operations on many tensors at once.
//!
//! A CLIP model has some three hundred parameters; a step or a norm that visits them one by one spends its time on
//! launching, on GPUs above all.

#![expect(unsafe_code, reason = "calls the C interface of libtorch's operations on lists")]

use std::fmt;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::TorchError;
use crate::ffi::{self, checked};

/// One step of AdamW on a group of parameters that share their settings.
///
/// Entry `i` of each list belongs to parameter `i`: all have its shape, kind and device, but for `steps`, which are `f32`
/// without dimensions.
pub struct FusedAdamW<'a> {
    /// What is trained; changed in place.
    pub params: &'a [Tensor],
    /// The gradients.
    pub grads: &'a [Tensor],
    /// Running means of the gradients; changed in place.
    pub exp_avgs: &'a [Tensor],
    /// Running means of the squared gradients; changed in place.
    pub exp_avg_sqs: &'a [Tensor],
    /// Steps taken before this one; each grows by one.
    pub steps: &'a [Tensor],
    /// Learning rate of this step.
    pub lr: f64,
    /// How much of the running mean stays.
    pub beta1: f64,
    /// How much of the running mean of squares stays.
    pub beta2: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the root in the denominator.
    pub eps: f64,
}

impl fmt::Debug for FusedAdamW<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FusedAdamW")
            .field("num_params", &self.params.len())
            .field("lr", &self.lr)
            .field("beta1", &self.beta1)
            .field("beta2", &self.beta2)
            .field("weight_decay", &self.weight_decay)
            .field("eps", &self.eps)
            .finish()
    }
}

/// Takes the step, in one kernel for all parameters, on CPU and on CUDA.
///
/// # Errors
///
/// Refuses lists of different lengths, and what libtorch refuses.
pub fn fused_adamw(step: &FusedAdamW<'_>) -> Result<(), TorchError> {
    let num_params = step.params.len();
    for (name, list) in [
        ("grads", step.grads),
        ("exp_avgs", step.exp_avgs),
        ("exp_avg_sqs", step.exp_avg_sqs),
        ("steps", step.steps),
    ] {
        if list.len() != num_params {
            return Err(TorchError::new(format!("{num_params} params but {} {name}", list.len())));
        }
    }
    if num_params == 0 {
        return Ok(());
    }
    let [params, grads, exp_avgs, exp_avg_sqs, steps] =
        [step.params, step.grads, step.exp_avgs, step.exp_avg_sqs, step.steps].map(pointers);
    checked(|message| {
        // SAFETY: each array holds `num_params` pointers to tensors that `step` borrows.
        unsafe {
            ffi::fc_fused_adamw(
                params.as_ptr(),
                grads.as_ptr(),
                exp_avgs.as_ptr(),
                exp_avg_sqs.as_ptr(),
                steps.as_ptr(),
                num_params,
                step.lr,
                step.beta1,
                step.beta2,
                step.weight_decay,
                step.eps,
                message,
            )
        }
    })
    .map_err(|failure| failure.error)
}

/// Returns the Euclidean norm of all elements of all tensors, as a tensor without dimensions on their device.
///
/// # Errors
///
/// Refuses an empty list, and what libtorch refuses.
pub fn foreach_norm(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    let list = pointers(tensors);
    let mut norm = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the array holds pointers to tensors that the caller lends; `norm` lives on this stack.
        unsafe { ffi::fc_foreach_norm(list.as_ptr(), list.len(), &mut norm, message) }
    })
    .map_err(|failure| failure.error)?;
    // SAFETY: after a success `norm` is a new tensor on the heap, made like those of tch, which takes it over.
    Ok(unsafe { Tensor::from_ptr(norm) })
}

/// Multiplies every tensor in place by `factor`, a tensor without dimensions on their device.
pub fn foreach_mul(tensors: &[Tensor], factor: &Tensor) -> Result<(), TorchError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let list = pointers(tensors);
    checked(|message| {
        // SAFETY: the array holds pointers to tensors that the caller lends, like `factor`.
        unsafe { ffi::fc_foreach_mul(list.as_ptr(), list.len(), factor.as_ptr(), message) }
    })
    .map_err(|failure| failure.error)
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

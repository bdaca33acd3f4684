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

/// What a step reads on the device when the device comes to it, so that no host need know it beforehand. Each is `f32`,
/// without dimensions, beside the parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnDevice<'a> {
    /// Takes the place of the learning rate.
    pub lr: Option<&'a Tensor>,
    /// 1 for a step that is to change nothing, else 0.
    pub skip: Option<&'a Tensor>,
}

impl OnDevice<'_> {
    fn pointers(&self) -> [*const C_tensor; 2] {
        [self.lr, self.skip].map(|tensor| tensor.map_or(std::ptr::null(), |tensor| tensor.as_ptr()))
    }
}

/// One step of AdamW or LAMB, which remember the same, on a group of parameters that share their settings.
///
/// Entry `i` of each list belongs to parameter `i`: all have its shape, kind and device, but for `steps`, which are `f32`
/// without dimensions.
pub struct AdamStep<'a> {
    /// What is trained; changed in place.
    pub params: &'a [Tensor],
    /// The gradients.
    pub grads: &'a [Tensor],
    /// Running means of the gradients; changed in place.
    pub exp_avgs: &'a [Tensor],
    /// Running means of the squared gradients; changed in place.
    pub exp_avg_sqs: &'a [Tensor],
    /// Steps taken before this one; each grows by one. Beside their parameters for AdamW, on the CPU for LAMB.
    pub steps: &'a [Tensor],
    /// Learning rate of this step.
    pub lr: f64,
    /// How much of the running mean stays.
    pub beta1: f64,
    /// How much of the running mean of squares stays.
    pub beta2: f64,
    /// Weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the root in the denominator.
    pub eps: f64,
}

impl fmt::Debug for AdamStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdamStep")
            .field("num_params", &self.params.len())
            .field("lr", &self.lr)
            .field("beta1", &self.beta1)
            .field("beta2", &self.beta2)
            .field("weight_decay", &self.weight_decay)
            .field("eps", &self.eps)
            .finish()
    }
}

/// One step of Lion on a group of parameters that share their settings.
///
/// Entry `i` of each list belongs to parameter `i` and has its shape, kind and device.
pub struct LionStep<'a> {
    /// What is trained; changed in place.
    pub params: &'a [Tensor],
    /// The gradients.
    pub grads: &'a [Tensor],
    /// Running means of the gradients; changed in place.
    pub exp_avgs: &'a [Tensor],
    /// Learning rate of this step.
    pub lr: f64,
    /// How much of the running mean counts in the sign that is stepped along.
    pub beta1: f64,
    /// How much of the running mean stays.
    pub beta2: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl fmt::Debug for LionStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LionStep")
            .field("num_params", &self.params.len())
            .field("lr", &self.lr)
            .field("beta1", &self.beta1)
            .field("beta2", &self.beta2)
            .field("weight_decay", &self.weight_decay)
            .finish()
    }
}

/// One step of SGD on a group of parameters that share their settings.
///
/// Entry `i` of each list belongs to parameter `i` and has its shape, kind and device.
pub struct SgdStep<'a> {
    /// What is trained; changed in place.
    pub params: &'a [Tensor],
    /// The gradients.
    pub grads: &'a [Tensor],
    /// Sums of earlier gradients, zero before the first step; changed in place. Not looked at without momentum.
    pub momentum_buffers: &'a [Tensor],
    /// Learning rate of this step.
    pub lr: f64,
    /// How much of the sum of earlier gradients stays.
    pub momentum: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Whether the step looks ahead, as Nesterov's does.
    pub is_nesterov: bool,
}

impl fmt::Debug for SgdStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgdStep")
            .field("num_params", &self.params.len())
            .field("lr", &self.lr)
            .field("momentum", &self.momentum)
            .field("weight_decay", &self.weight_decay)
            .field("is_nesterov", &self.is_nesterov)
            .finish()
    }
}

/// Takes a step of AdamW, in one kernel for all parameters, on CPU and on CUDA.
///
/// # Errors
///
/// Refuses lists of different lengths, and what libtorch refuses.
pub fn fused_adamw(step: &AdamStep<'_>, on_device: OnDevice<'_>) -> Result<(), TorchError> {
    let Some(AdamLists { params, grads, exp_avgs, exp_avg_sqs, steps }) = AdamLists::of(step)? else {
        return Ok(());
    };
    let [rate, skip] = on_device.pointers();
    checked(|message| {
        // SAFETY: each array holds as many pointers as there are parameters, to tensors that `step` borrows; the other two
        // are null or borrowed.
        unsafe {
            ffi::fc_fused_adamw(
                params.as_ptr(),
                grads.as_ptr(),
                exp_avgs.as_ptr(),
                exp_avg_sqs.as_ptr(),
                steps.as_ptr(),
                params.len(),
                step.lr,
                step.beta1,
                step.beta2,
                step.weight_decay,
                step.eps,
                rate,
                skip,
                message,
            )
        }
    })
    .map_err(|failure| failure.error)
}

/// Takes a step of LAMB. Where `weight_decay` is not 0, a parameter w moves by lr·|w|/|r| along r, the direction of Adam
/// plus decay; by lr along it if one of the norms is 0.
///
/// Needs memory for two more copies of the parameters while it runs. The host never waits for a device.
///
/// # Errors
///
/// Refuses lists of different lengths, step counts that are not on the CPU, and what libtorch refuses.
pub fn foreach_lamb(step: &AdamStep<'_>) -> Result<(), TorchError> {
    let Some(AdamLists { params, grads, exp_avgs, exp_avg_sqs, steps }) = AdamLists::of(step)? else {
        return Ok(());
    };
    checked(|message| {
        // SAFETY: each array holds as many pointers as there are parameters, to tensors that `step` borrows.
        unsafe {
            ffi::fc_foreach_lamb(
                params.as_ptr(),
                grads.as_ptr(),
                exp_avgs.as_ptr(),
                exp_avg_sqs.as_ptr(),
                steps.as_ptr(),
                params.len(),
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

/// Takes a step of Lion: decay, then lr along the sign of β1·m + (1−β1)·g; at last the running mean m takes in the
/// gradient g with weight 1−β2.
///
/// # Errors
///
/// Refuses lists of different lengths, and what libtorch refuses.
pub fn foreach_lion(step: &LionStep<'_>) -> Result<(), TorchError> {
    check_lengths(step.params, &[("grads", step.grads), ("exp_avgs", step.exp_avgs)])?;
    if step.params.is_empty() {
        return Ok(());
    }
    let [params, grads, exp_avgs] = [step.params, step.grads, step.exp_avgs].map(pointers);
    checked(|message| {
        // SAFETY: each array holds as many pointers as there are parameters, to tensors that `step` borrows.
        unsafe {
            ffi::fc_foreach_lion(
                params.as_ptr(),
                grads.as_ptr(),
                exp_avgs.as_ptr(),
                params.len(),
                step.lr,
                step.beta1,
                step.beta2,
                step.weight_decay,
                message,
            )
        }
    })
    .map_err(|failure| failure.error)
}

/// Takes a step of SGD, in one kernel for all parameters, on CPU and on CUDA.
///
/// # Errors
///
/// Refuses lists of different lengths, and what libtorch refuses.
pub fn fused_sgd(step: &SgdStep<'_>, on_device: OnDevice<'_>) -> Result<(), TorchError> {
    check_lengths(step.params, &[("grads", step.grads)])?;
    if step.momentum != 0.0 {
        check_lengths(step.params, &[("momentum_buffers", step.momentum_buffers)])?;
    }
    if step.params.is_empty() {
        return Ok(());
    }
    let [params, grads, momentum_buffers] = [step.params, step.grads, step.momentum_buffers].map(pointers);
    let [rate, skip] = on_device.pointers();
    checked(|message| {
        // SAFETY: each array holds as many pointers as there are parameters, to tensors that `step` borrows; that of
        // buffers may have another length without momentum, where it is not read.
        unsafe {
            ffi::fc_fused_sgd(
                params.as_ptr(),
                grads.as_ptr(),
                momentum_buffers.as_ptr(),
                params.len(),
                step.lr,
                step.momentum,
                step.weight_decay,
                i32::from(step.is_nesterov),
                rate,
                skip,
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
    reduced(tensors, ffi::fc_foreach_norm)
}

/// Returns the largest absolute value of each tensor, in one dimension on their device; not a number where there is one
/// that is none.
///
/// # Errors
///
/// Refuses an empty list, and what libtorch refuses.
pub fn foreach_largest(tensors: &[Tensor]) -> Result<Tensor, TorchError> {
    reduced(tensors, ffi::fc_foreach_largest)
}

fn reduced(tensors: &[Tensor], call: ffi::ReductionCall) -> Result<Tensor, TorchError> {
    let list = pointers(tensors);
    let mut result = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the array holds pointers to tensors that the caller lends; `result` lives on this stack.
        unsafe { call(list.as_ptr(), list.len(), &mut result, message) }
    })
    .map_err(|failure| failure.error)?;
    // SAFETY: after a success `result` is a new tensor on the heap, made like those of tch, which takes it over.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// Copies every tensor of `from` into the one of `to` at its place, whatever their kinds.
///
/// # Errors
///
/// Refuses lists of different lengths, and what libtorch refuses.
pub fn foreach_copy(to: &[Tensor], from: &[Tensor]) -> Result<(), TorchError> {
    if to.len() != from.len() {
        return Err(TorchError::new(format!("{} tensors cannot be copied into {}", from.len(), to.len())));
    }
    if to.is_empty() {
        return Ok(());
    }
    let [to, from] = [to, from].map(pointers);
    checked(|message| {
        // SAFETY: both arrays hold so many pointers to tensors that the caller lends.
        unsafe { ffi::fc_foreach_copy(to.as_ptr(), from.as_ptr(), to.len(), message) }
    })
    .map_err(|failure| failure.error)
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

/// Pointers to what a step of AdamW or LAMB works on.
struct AdamLists {
    params: Vec<*const C_tensor>,
    grads: Vec<*const C_tensor>,
    exp_avgs: Vec<*const C_tensor>,
    exp_avg_sqs: Vec<*const C_tensor>,
    steps: Vec<*const C_tensor>,
}

impl AdamLists {
    /// Checks that the lists have one length; none if that is 0.
    fn of(step: &AdamStep<'_>) -> Result<Option<Self>, TorchError> {
        let lists = [
            ("grads", step.grads),
            ("exp_avgs", step.exp_avgs),
            ("exp_avg_sqs", step.exp_avg_sqs),
            ("steps", step.steps),
        ];
        check_lengths(step.params, &lists)?;
        let [params, grads, exp_avgs, exp_avg_sqs, steps] =
            [step.params, step.grads, step.exp_avgs, step.exp_avg_sqs, step.steps].map(pointers);
        Ok((!params.is_empty()).then_some(Self { params, grads, exp_avgs, exp_avg_sqs, steps }))
    }
}

fn check_lengths(params: &[Tensor], lists: &[(&str, &[Tensor])]) -> Result<(), TorchError> {
    match lists.iter().find(|(_, list)| list.len() != params.len()) {
        Some((name, list)) => {
            Err(TorchError::new(format!("{} params but {} {name}", params.len(), list.len())))
        }
        None => Ok(()),
    }
}

pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

//! Parts of a network whose inner results are computed again in backward instead of being kept.
//!
//! The part becomes one node of the graph, which keeps its inputs alone. Parameters are inputs like any other, and their
//! gradients are results of the node: so they reach the parameters when and how they would without it, and hooks on them,
//! those of [`GradientBuckets`](crate::GradientBuckets) among them, run once in a backward pass. PyTorch's older way of
//! checkpointing starts a second backward pass inside of the first that stores gradients by itself, and forgets a part
//! whose first input needs no gradient.

#![expect(unsafe_code, reason = "lends tensors and a function to C++")]

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::TorchError;
use crate::ffi::{self, checked};
use crate::ops::pointers;

type Body = dyn Fn(&[Tensor]) -> Tensor + Send + Sync;

/// Returns `body(inputs)`. Backward calls `body` again for what it needs, with tensors of the same values.
///
/// `body` must return the same bits in both calls, and a tensor that is not one of its inputs. All tensors that need
/// gradients must be inputs: one that `body` captures gets none. Backward may call it on another thread.
///
/// # Errors
///
/// When `body` panics, or libtorch refuses. A failure in backward is one of the backward pass.
pub fn recompute(
    inputs: &[Tensor],
    body: impl Fn(&[Tensor]) -> Tensor + Send + Sync + 'static,
) -> Result<Tensor, TorchError> {
    let list = pointers(inputs);
    let body: Box<Box<Body>> = Box::new(Box::new(body));
    let context = Box::into_raw(body).cast::<c_void>();
    let mut output = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the array holds pointers to tensors that the caller lends; `call` and `release` know what lies behind
        // the context, which C++ takes over; `output` lives on this stack.
        unsafe { ffi::fc_recompute(list.as_ptr(), list.len(), call, context, release, &mut output, message) }
    })
    .map_err(|failure| failure.error)?;
    // SAFETY: after a success `output` is a new tensor on the heap, made like those of tch, which takes it over.
    Ok(unsafe { Tensor::from_ptr(output) })
}

unsafe extern "C" fn call(
    context: *mut c_void,
    inputs: *const *mut C_tensor,
    num_inputs: usize,
) -> *mut C_tensor {
    // A panic must not unwind through C++; it has been reported by the time that it is caught.
    let output = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the context is the box that `recompute` made, which C++ holds until it calls `release`.
        let body = unsafe { &*context.cast::<Box<Body>>() };
        // SAFETY: C++ lends that many pointers to tensors.
        let inputs = unsafe { std::slice::from_raw_parts(inputs, num_inputs) };
        // SAFETY: each points to a tensor, of which this makes a handle of its own.
        let inputs: Vec<Tensor> =
            inputs.iter().map(|&input| unsafe { Tensor::clone_from_ptr(input) }).collect();
        body(&inputs)
    }));
    match output {
        // The handle goes over to C++.
        Ok(output) => ManuallyDrop::new(output).as_mut_ptr(),
        Err(_) => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: the context is the box that `recompute` made, and C++ gives it back once.
    let body = unsafe { Box::from_raw(context.cast::<Box<Body>>()) };
    // What the closure owns may panic when it is dropped, and C++ could not go on then.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(body)));
}

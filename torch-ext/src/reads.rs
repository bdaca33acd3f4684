//! Where work reads values of tensors.
//!
//! On a GPU each such place makes the host wait for all that was asked of the device before. libtorch can be told to refuse
//! it there ([`set_host_waits`](crate::set_host_waits)), which needs a GPU; the operators that read are the same on a CPU, so
//! that what a GPU would wait for is found without one.

#![expect(unsafe_code, reason = "calls the C interface of libtorch's observers")]

use std::ptr::NonNull;

use crate::TorchError;
use crate::ffi::{self, checked};

/// Ends the observation when it is dropped.
struct Reads(NonNull<ffi::Reads>);

impl Drop for Reads {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the C++ side, on this thread, as the type is not `Send`.
        unsafe { ffi::fc_reads_free(self.0.as_ptr()) };
    }
}

/// Runs `work` and returns, beside its result, the names of the operators by which it read values of tensors: those that
/// return a number, and those whose result has a shape that depends on values.
///
/// Sees what this thread calls, and what CPU backward passes call that it starts. Copies to the host are not seen: a
/// tensor on a CPU is there already.
///
/// # Errors
///
/// When this thread observes already.
pub fn value_reads<T>(work: impl FnOnce() -> T) -> Result<(T, Vec<String>), TorchError> {
    let mut reads = std::ptr::null_mut();
    checked(|message| {
        // SAFETY: the place for the observer is on this stack.
        unsafe { ffi::fc_reads_new(&mut reads, message) }
    })
    .map_err(|failure| failure.error)?;
    let reads = Reads(NonNull::new(reads).expect("a success hands out an observer"));
    let result = work();
    let (mut text, mut text_len) = (std::ptr::null_mut(), 0);
    checked(|message| {
        // SAFETY: the observer lives until the end of this function, and both places are on this stack.
        unsafe { ffi::fc_reads_names(reads.0.as_ptr(), &mut text, &mut text_len, message) }
    })
    .map_err(|failure| failure.error)?;
    // SAFETY: after a success that many bytes are there, and ours until they are given back in the line after.
    let names = String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(text, text_len) }).into_owned();
    // SAFETY: see above; nothing refers to them any more.
    unsafe { ffi::fc_bytes_free(text) };
    Ok((result, names.split_whitespace().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn what_reads_a_value_is_named_and_nothing_else() {
        let numbers = Tensor::from_slice(&[1.0f32, 0.0, 2.0]).set_requires_grad(true);
        let ((), reads) = value_reads(|| (&numbers * &numbers).sum(Kind::Float).backward()).unwrap();
        assert!(reads.is_empty(), "{reads:?}");
        let (sum, reads) = value_reads(|| numbers.sum(Kind::Float).double_value(&[])).unwrap();
        assert_eq!((sum, reads), (3.0, vec!["aten::_local_scalar_dense".to_owned()]));
        let (places, reads) = value_reads(|| numbers.nonzero()).unwrap();
        assert_eq!((places.size(), reads), (vec![2, 1], vec!["aten::nonzero".to_owned()]));
    }

    #[test]
    fn a_thread_observes_once_at_a_time() {
        let inner = value_reads(|| value_reads(|| ())).unwrap().0;
        assert!(inner.unwrap_err().to_string().contains("noted already"));
        value_reads(|| ()).unwrap();
    }
}

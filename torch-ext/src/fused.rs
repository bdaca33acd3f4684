//! Linear layers of transformers together with what stands around them.
//!
//! Between their matrix products transformers move numbers: residual sums, norms, activations, and in backward the sums over
//! rows that are the gradients of biases. One operation of libtorch after another reads and writes the same tensors again
//! and again, and a fast GPU waits for its memory meanwhile. Here each layer is one node of the graph whose backward reads a
//! gradient once. On GPUs that takes kernels of our own, in bf16 ([`FusedLayers::load`]); elsewhere the same nodes are made
//! of libtorch's operations, for tests.

#![expect(unsafe_code, reason = "lends tensors to C++")]

use tch::Tensor;
#[cfg(feature = "cuda")]
use tch::{Device, Kind};
use torch_sys::C_tensor;

use crate::TorchError;
use crate::ffi::{self, Message, Status, checked};

/// Numbers that a warp of a GPU has in its hands at once: widths are multiples of it.
#[cfg(feature = "cuda")]
const STEP: i64 = 256;

/// Beyond it rows do not fit the registers of a warp.
#[cfg(feature = "cuda")]
const WIDEST: i64 = 1280;

/// A layer's weight \[out, in\] and bias \[out\], or those of a norm, both \[width\].
pub type WeightAndBias<'a> = (&'a Tensor, &'a Tensor);

/// Leave to use the layers of this module. All tensors must be contiguous, and have one kind and one device, which is the
/// thread's current one if it is a GPU. They can be differentiated once.
#[derive(Debug, Clone, Copy)]
pub struct FusedLayers(());

impl FusedLayers {
    /// Compiles the kernels for a residual stream `like`, \[.., width\], and for what is `hidden` wide between layers.
    /// `None` where there are none: not on a GPU, not in bf16, for other widths than multiples of 256 up to 1280, or
    /// without the feature `cuda`.
    ///
    /// # Errors
    ///
    /// When NVRTC or the driver cannot be found or refuse the kernels.
    pub fn load(like: &Tensor, hidden: i64) -> Result<Option<Self>, TorchError> {
        #[cfg(feature = "cuda")]
        if let (Device::Cuda(device), Kind::BFloat16, Some(&width)) =
            (like.device(), like.kind(), like.size().last())
            && width <= WIDEST
            && width % STEP == 0
            && hidden % STEP == 0
        {
            const SOURCE: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(
                concat!(include_str!("../cpp/kernels.cu"), "\0").as_bytes(),
            ) {
                Ok(source) => source,
                Err(_) => panic!("a source has no zero in it"),
            };
            // SAFETY: the source is a static string, the rest are numbers.
            checked(|message| unsafe {
                ffi::fc_kernels_load(SOURCE.as_ptr(), device as i32, width, message)
            })
            .map_err(|failure| failure.error)?;
            return Ok(Some(Self(())));
        }
        let _ = (like, hidden);
        Ok(None)
    }

    /// The layers made of libtorch's operations, for tensors that are not on a GPU.
    pub fn of_libtorch() -> Self {
        Self(())
    }

    /// gelu(x·Wᵀ + b), with the exact GELU.
    ///
    /// # Errors
    ///
    /// When shapes, kinds or devices do not fit.
    pub fn linear_gelu(self, x: &Tensor, (weight, bias): WeightAndBias<'_>) -> Result<Tensor, TorchError> {
        let [activated] = results(|results: &mut [_; 1], message| {
            // SAFETY: the handles are lent for the call; there is room for one result.
            unsafe {
                ffi::fc_linear_gelu(x.as_ptr(), weight.as_ptr(), bias.as_ptr(), results.as_mut_ptr(), message)
            }
        })?;
        Ok(activated)
    }

    /// x·Wᵀ + b, cut into three along the last dimension. The parts are not contiguous.
    ///
    /// # Errors
    ///
    /// When shapes, kinds or devices do not fit.
    pub fn linear_split(
        self,
        x: &Tensor,
        (weight, bias): WeightAndBias<'_>,
    ) -> Result<[Tensor; 3], TorchError> {
        results(|results, message| {
            // SAFETY: the handles are lent for the call; there is room for three results.
            unsafe {
                ffi::fc_linear_split(
                    x.as_ptr(),
                    weight.as_ptr(),
                    bias.as_ptr(),
                    results.as_mut_ptr(),
                    message,
                )
            }
        })
    }

    /// x + (y·Wᵀ + b), and its layer norm over the last dimension.
    ///
    /// # Errors
    ///
    /// When shapes, kinds or devices do not fit.
    pub fn linear_add_norm(
        self,
        x: &Tensor,
        y: &Tensor,
        (weight, bias): WeightAndBias<'_>,
        (norm_weight, norm_bias): WeightAndBias<'_>,
        eps: f64,
    ) -> Result<[Tensor; 2], TorchError> {
        results(|[sum, normed], message| {
            // SAFETY: the handles are lent for the call; there is room for a result in each place.
            unsafe {
                ffi::fc_linear_add_norm(
                    x.as_ptr(),
                    y.as_ptr(),
                    weight.as_ptr(),
                    bias.as_ptr(),
                    norm_weight.as_ptr(),
                    norm_bias.as_ptr(),
                    eps,
                    sum,
                    normed,
                    message,
                )
            }
        })
    }
}

/// Gives `call` places for so many tensors, and takes them over.
fn results<const NUM: usize>(
    call: impl FnOnce(&mut [*mut C_tensor; NUM], Message) -> Status,
) -> Result<[Tensor; NUM], TorchError> {
    let mut places = [std::ptr::null_mut(); NUM];
    checked(|message| call(&mut places, message)).map_err(|failure| failure.error)?;
    // SAFETY: after a success these are new tensors on the heap, made like those of tch, which takes them over.
    Ok(places.map(|place| unsafe { Tensor::from_ptr(place) }))
}

//! Batch normalisation.

use tch::{Tensor, no_grad};

use super::Pass;
use super::parameters::{Init, ParameterSpec, Parameters, Role};

/// PyTorch's epsilon, and OpenCLIP's.
const EPS: f64 = 1e-5;

/// Weight of a batch in what is gathered; PyTorch's.
const MOMENTUM: f64 = 0.1;

/// Normalises every channel of (n, channels, h, w), then scales and shifts it. Its own numbers are never rounded, whatever it
/// is given.
///
/// The statistics of a batch are those of the samples that a rank encodes at once, as in OpenCLIP and in the published runs:
/// what is learned depends on how the global batch is split.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches: Tensor,
}

impl BatchNorm {
    /// Lists the tensors; `scale` is the first value of the weight.
    pub(super) fn layout(name: &str, channels: i64, scale: f64) -> [ParameterSpec; 5] {
        let spec = |part: &str, shape: &[i64], value, role| {
            ParameterSpec::new(format!("{name}.{part}"), shape, Init::Constant(value)).role(role).exact()
        };
        [
            spec("weight", &[channels], scale, Role::Parameter),
            spec("bias", &[channels], 0.0, Role::Parameter),
            spec("running_mean", &[channels], 0.0, Role::Statistic),
            spec("running_var", &[channels], 1.0, Role::Statistic),
            spec("num_batches_tracked", &[], 0.0, Role::Count),
        ]
    }

    pub(super) fn new(parameters: &Parameters, name: &str) -> Self {
        let handle = |part: &str| parameters.handle(&format!("{name}.{part}"));
        Self {
            weight: handle("weight"),
            bias: handle("bias"),
            running_mean: handle("running_mean"),
            running_var: handle("running_var"),
            num_batches: handle("num_batches_tracked"),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let (mean, var) = match pass {
            Pass::Repetition => (None, None),
            Pass::Evaluation | Pass::Training => (Some(&self.running_mean), Some(&self.running_var)),
        };
        if pass == Pass::Training {
            let _ = no_grad(|| self.num_batches.shallow_clone().g_add_scalar_(1));
        }
        let by_batch = pass != Pass::Evaluation;
        x.batch_norm(Some(&self.weight), Some(&self.bias), mean, var, by_batch, MOMENTUM, EPS, true)
    }
}

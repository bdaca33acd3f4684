//! What both towers are made of: residual blocks of attention and MLP.

use fastclip_torch_ext::{FusedLayers, TorchError, recompute};
use tch::{TchError, Tensor};

use super::parameters::{Init, ParameterSpec, Parameters};

/// PyTorch's epsilon, and OpenCLIP's.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Unwraps what libtorch refuses only for want of memory, and panics as tch does, so that both are told in the same way.
fn computed<T>(result: Result<T, TorchError>) -> T {
    let result = result.map_err(|error| TchError::Torch(error.message().to_owned()));
    result.expect("a block computes from what fits its shape")
}

/// Normalises the last dimension, then scales and shifts it.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    pub(super) fn layout(name: &str, width: i64) -> [ParameterSpec; 2] {
        [
            ParameterSpec::new(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            ParameterSpec::new(format!("{name}.bias"), &[width], Init::Constant(0.0)),
        ]
    }

    pub(super) fn new(parameters: &Parameters, name: &str) -> Self {
        Self {
            weight: parameters.handle(&format!("{name}.weight")),
            bias: parameters.handle(&format!("{name}.bias")),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.native_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), LAYER_NORM_EPS).0
    }
}

/// softmax(query·keyᵀ/√width)·value; all are [samples, heads, tokens, width]. Causal: no token sees those after it.
pub(super) fn attend(query: &Tensor, key: &Tensor, value: &Tensor, is_causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(query, key, value, None::<Tensor>, 0.0, is_causal, None, false)
}

/// The initial distributions in which the two towers differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockInit {
    pub(super) in_proj: Init,
    pub(super) out_proj: Init,
    pub(super) c_fc: Init,
    pub(super) c_proj: Init,
}

/// PyTorch's default for the weight and bias of a linear layer.
pub(super) fn linear_default(fan_in: i64) -> Init {
    Init::Uniform(1.0 / (fan_in as f64).sqrt())
}

/// Shape and kind of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) width: i64,
    pub(super) heads: i64,
    pub(super) mlp_width: i64,
    pub(super) is_causal: bool,
    pub(super) quick_gelu: bool,
    /// First value of the factors γ on what is added to the residual stream, if there are any.
    pub(super) layer_scale: Option<f64>,
}

/// x += γ₁ attention(ln_1 x); x += γ₂ c_proj(gelu(c_fc(ln_2 x)))
#[derive(Debug)]
pub(super) struct Block {
    shape: BlockShape,
    /// Takes the place of separate operations where it can.
    fused: Option<FusedLayers>,
    /// γ₁ and γ₂.
    scales: Option<[Tensor; 2]>,
    ln_1: LayerNorm,
    in_proj: Linear,
    out_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

/// Blocks, one after another.
#[derive(Debug)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// Whether backward computes again what happens inside of a block.
    recomputes: bool,
}

impl Blocks {
    /// Puts together `layers` blocks of these names.
    pub(super) fn new(
        parameters: &Parameters,
        layers: i64,
        name: impl Fn(i64) -> String,
        shape: BlockShape,
    ) -> Self {
        let blocks = (0..layers).map(|index| Block::new(parameters, &name(index), shape)).collect();
        Self { blocks, recomputes: false }
    }

    pub(super) fn set_recomputes(&mut self, recomputes: bool) {
        self.recomputes = recomputes;
    }

    /// Says with what layers are computed; with separate operations of libtorch if absent.
    pub(super) fn set_fused(&mut self, fused: Option<FusedLayers>) {
        self.blocks.iter_mut().for_each(|block| block.fused = fused);
    }

    /// Returns the layers that can be computed at once, if there are such for these blocks and their device.
    ///
    /// # Errors
    /// When there should be, and cannot.
    pub(super) fn load_fused(&self) -> Result<Option<FusedLayers>, TorchError> {
        let first = self.blocks.first().expect("configs have at least one block");
        FusedLayers::load(&first.in_proj.weight, first.shape.mlp_width)
    }

    /// Maps the residual stream (n, tokens, width) to what leaves it at the token that is `read` of each sample, (n, width).
    pub(super) fn forward(&self, x: Tensor, read: &ReadAt) -> Tensor {
        let (last, others) = self.blocks.split_last().expect("configs have at least one block");
        let (x, normed) = if self.recomputes {
            // Of the last block not much is kept anyway.
            let x = others.iter().fold(x, |x, block| block.forward_recomputed(&x));
            let normed = last.ln_1.forward(&x);
            (x, normed)
        } else {
            let normed = self.blocks[0].ln_1.forward(&x);
            self.blocks.windows(2).fold((x, normed), |(x, normed), pair| {
                let [block, next] = pair else { unreachable!("windows are two blocks wide") };
                block.forward(&x, &normed, &next.ln_1).into()
            })
        };
        last.finish(&read.of(&x), &read.of(&last.mix(&normed))).squeeze_dim(1)
    }
}

/// The token of each sample that somebody reads behind the last block, which computes nothing else behind its attention.
#[derive(Debug)]
pub(super) enum ReadAt {
    First,
    /// Indices `i64`, (n, 1, width): for each number the token that it is taken from.
    Gathered(Tensor),
}

impl ReadAt {
    /// (n, tokens, width) becomes (n, 1, width).
    fn of(&self, x: &Tensor) -> Tensor {
        match self {
            Self::First => x.narrow(1, 0, 1).contiguous(),
            Self::Gathered(tokens) => x.gather(1, tokens, false),
        }
    }
}

/// x·Wᵀ + bias.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    pub(super) fn new(parameters: &Parameters, weight: &str, bias: &str) -> Self {
        Self { weight: parameters.handle(weight), bias: parameters.handle(bias) }
    }

    fn weight_and_bias(&self) -> (&Tensor, &Tensor) {
        (&self.weight, &self.bias)
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

impl Block {
    pub(super) fn layout(name: &str, shape: BlockShape, init: BlockInit) -> Vec<ParameterSpec> {
        let BlockShape { width, mlp_width, .. } = shape;
        let spec =
            |part: &str, shape: &[i64], init| ParameterSpec::new(format!("{name}.{part}"), shape, init);
        let scale = |part: &str| {
            shape.layer_scale.map(|value| spec(&format!("{part}.gamma"), &[width], Init::Constant(value)))
        };
        let mut specs = LayerNorm::layout(&format!("{name}.ln_1"), width).to_vec();
        specs.push(spec("attn.in_proj_weight", &[3 * width, width], init.in_proj));
        specs.push(spec("attn.in_proj_bias", &[3 * width], Init::Constant(0.0)));
        specs.push(spec("attn.out_proj.weight", &[width, width], init.out_proj));
        specs.push(spec("attn.out_proj.bias", &[width], Init::Constant(0.0)));
        specs.extend(scale("ls_1"));
        specs.extend(LayerNorm::layout(&format!("{name}.ln_2"), width));
        specs.push(spec("mlp.c_fc.weight", &[mlp_width, width], init.c_fc));
        specs.push(spec("mlp.c_fc.bias", &[mlp_width], linear_default(width)));
        specs.push(spec("mlp.c_proj.weight", &[width, mlp_width], init.c_proj));
        specs.push(spec("mlp.c_proj.bias", &[width], linear_default(mlp_width)));
        specs.extend(scale("ls_2"));
        specs
    }

    fn new(parameters: &Parameters, name: &str, shape: BlockShape) -> Self {
        let linear = |weight: &str, bias: &str| {
            Linear::new(parameters, &format!("{name}.{weight}"), &format!("{name}.{bias}"))
        };
        let scale = |part: &str| parameters.handle(&format!("{name}.{part}.gamma"));
        Self {
            shape,
            fused: None,
            scales: shape.layer_scale.map(|_| ["ls_1", "ls_2"].map(scale)),
            ln_1: LayerNorm::new(parameters, &format!("{name}.ln_1")),
            in_proj: linear("attn.in_proj_weight", "attn.in_proj_bias"),
            out_proj: linear("attn.out_proj.weight", "attn.out_proj.bias"),
            ln_2: LayerNorm::new(parameters, &format!("{name}.ln_2")),
            c_fc: linear("mlp.c_fc.weight", "mlp.c_fc.bias"),
            c_proj: linear("mlp.c_proj.weight", "mlp.c_proj.bias"),
        }
    }

    /// Returns the parameters, in the order in which [`of`](Self::of) takes them.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let Self { ln_1, in_proj, out_proj, ln_2, c_fc, c_proj, scales, .. } = self;
        let layers = [ln_1.tensors(), in_proj.tensors(), out_proj.tensors()];
        let layers = layers.into_iter().chain([ln_2.tensors(), c_fc.tensors(), c_proj.tensors()]);
        layers.flatten().chain(scales.iter().flatten())
    }

    fn of(shape: BlockShape, fused: Option<FusedLayers>, tensors: &[Tensor]) -> Self {
        let mut tensors = tensors.iter().map(Tensor::shallow_clone);
        let mut pair = || {
            let mut next = || tensors.next().expect("a block is made of as many tensors as it lists");
            (next(), next())
        };
        let norm = |(weight, bias)| LayerNorm { weight, bias };
        let linear = |(weight, bias)| Linear { weight, bias };
        Self {
            shape,
            fused,
            ln_1: norm(pair()),
            in_proj: linear(pair()),
            out_proj: linear(pair()),
            ln_2: norm(pair()),
            c_fc: linear(pair()),
            c_proj: linear(pair()),
            scales: shape.layer_scale.map(|_| pair().into()),
        }
    }

    /// Maps the residual stream to the block's output, and keeps `x` alone: backward computes the rest again.
    fn forward_recomputed(&self, x: &Tensor) -> Tensor {
        let (shape, fused) = (self.shape, self.fused);
        let inputs: Vec<Tensor> =
            std::iter::once(x).chain(self.tensors()).map(Tensor::shallow_clone).collect();
        let body = move |inputs: &[Tensor]| {
            let (x, tensors) = inputs.split_first().expect("a block has an input");
            let block = Self::of(shape, fused, tensors);
            block.finish(x, &block.mix(&block.ln_1.forward(x)))
        };
        computed(recompute(&inputs, body))
    }

    /// Maps the residual stream and its first norm to the block's output and the norm that comes next.
    fn forward(&self, x: &Tensor, normed: &Tensor, next: &LayerNorm) -> [Tensor; 2] {
        let [x, normed] = self.add(0, &self.out_proj, x, &self.mix(normed), &self.ln_2);
        self.add(1, &self.c_proj, &x, &self.hidden(&normed), next)
    }

    /// What follows attention, without the next norm.
    fn finish(&self, x: &Tensor, mixed: &Tensor) -> Tensor {
        let [x, normed] = self.add(0, &self.out_proj, x, mixed, &self.ln_2);
        x + self.scaled(1, self.c_proj.forward(&self.hidden(&normed)))
    }

    /// Adds a layer of `y` to the residual stream, and normalises it.
    fn add(&self, which: usize, layer: &Linear, x: &Tensor, y: &Tensor, norm: &LayerNorm) -> [Tensor; 2] {
        match self.fused {
            Some(fused) if self.scales.is_none() => {
                let norm = (&norm.weight, &norm.bias);
                computed(fused.linear_add_norm(x, y, layer.weight_and_bias(), norm, LAYER_NORM_EPS))
            }
            _ => {
                let x = x + self.scaled(which, layer.forward(y));
                let normed = norm.forward(&x);
                [x, normed]
            }
        }
    }

    fn hidden(&self, normed: &Tensor) -> Tensor {
        match (self.fused, self.shape.quick_gelu) {
            (Some(fused), false) => computed(fused.linear_gelu(normed, self.c_fc.weight_and_bias())),
            (None, false) => self.c_fc.forward(normed).gelu("none"),
            (_, true) => {
                let hidden = self.c_fc.forward(normed);
                &hidden * (&hidden * 1.702).sigmoid()
            }
        }
    }

    fn scaled(&self, which: usize, added: Tensor) -> Tensor {
        match &self.scales {
            Some(scales) => added * &scales[which],
            None => added,
        }
    }

    /// Attention without the projection behind it.
    fn mix(&self, normed: &Tensor) -> Tensor {
        let BlockShape { width, heads, is_causal, .. } = self.shape;
        let (samples, tokens, _) = normed.size3().expect("the residual stream is [samples, tokens, width]");
        let heads_apart = |x: Tensor| x.view([samples, tokens, heads, width / heads]).transpose(1, 2);
        let parts = match self.fused {
            Some(fused) => computed(fused.linear_split(normed, self.in_proj.weight_and_bias())),
            // Cut along the last dimension, so that backward puts the gradients beside each other in one pass.
            None => self.in_proj.forward(normed).chunk(3, -1).try_into().expect("three parts were asked for"),
        };
        let [query, key, value] = parts.map(heads_apart); // [samples, heads, tokens, head width]
        let mixed = attend(&query, &key, &value, is_causal);
        mixed.transpose(1, 2).reshape([samples, tokens, width])
    }
}

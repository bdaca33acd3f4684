//! OpenAI's variant of the ResNet: a stem of three convolutions, averages before every stride, attention at the end.

use tch::{Kind, Tensor};

use super::attention_pool::AttentionPool;
use crate::model::Pass;
use crate::model::batch_norm::BatchNorm;
use crate::model::config::ModelConfig;
use crate::model::parameters::{ParameterSpec, Parameters};
use crate::model::transformer::linear_default;

/// Channels that leave a bottleneck, over those inside.
const EXPANSION: i64 = 4;

/// A convolutional image tower.
#[derive(Debug)]
pub(crate) struct ResNet {
    stem: [Convolution; 3],
    bottlenecks: Vec<Bottleneck>,
    pool: AttentionPool,
}

impl ResNet {
    pub(super) fn layout(config: &ModelConfig, stages: [i64; 4]) -> Vec<ParameterSpec> {
        let mut specs: Vec<_> = stem(config).iter().flat_map(|shape| shape.layout(1.0)).collect();
        specs.extend(bottlenecks(config, stages).iter().flat_map(BottleneckShape::layout));
        specs.extend(AttentionPool::layout("visual.attnpool", config));
        specs
    }

    pub(super) fn new(config: &ModelConfig, stages: [i64; 4], parameters: &Parameters) -> Self {
        let bottlenecks = bottlenecks(config, stages);
        Self {
            stem: stem(config).map(|shape| Convolution::new(shape, parameters)),
            bottlenecks: bottlenecks.iter().map(|shape| Bottleneck::new(shape, parameters)).collect(),
            pool: AttentionPool::new("visual.attnpool", config, parameters),
        }
    }

    /// Maps normalised pixels (n, 3, size, size) to features (n, embed_dim), not yet of unit length.
    pub(super) fn forward(&self, pixels: &Tensor, pass: Pass) -> Tensor {
        let x = self.stem.iter().fold(pixels.shallow_clone(), |x, layer| layer.forward(&x, pass).relu());
        let x = average(&x, 2);
        let x = self.bottlenecks.iter().fold(x, |x, bottleneck| bottleneck.forward(&x, pass));
        self.pool.forward(&x)
    }
}

fn stem(config: &ModelConfig) -> [ConvolutionShape; 3] {
    let width = config.vision_cfg.width;
    let shape = |number: i64, from, to, stride| ConvolutionShape {
        name: format!("visual.conv{number}"),
        norm: format!("visual.bn{number}"),
        from,
        to,
        size: 3,
        stride,
    };
    [shape(1, 3, width / 2, 2), shape(2, width / 2, width / 2, 1), shape(3, width / 2, width, 1)]
}

fn bottlenecks(config: &ModelConfig, stages: [i64; 4]) -> Vec<BottleneckShape> {
    let mut from = config.vision_cfg.width;
    let mut shapes = Vec::new();
    for (stage, number) in stages.into_iter().enumerate() {
        let inner = config.vision_cfg.width << stage;
        for index in 0..number {
            let name = format!("visual.layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            shapes.push(BottleneckShape { name, from, inner, stride });
            from = inner * EXPANSION;
        }
    }
    shapes
}

fn average(x: &Tensor, stride: i64) -> Tensor {
    if stride == 1 {
        return x.shallow_clone();
    }
    let by_place = x.permute([0, 2, 3, 1]); // [n, rows, columns, channels]
    match by_place.size()[..] {
        // With channels last, libtorch's operation takes some ten times as long as reading and writing does.
        [n, rows, columns, channels]
            if by_place.is_contiguous() && rows % stride == 0 && columns % stride == 0 =>
        {
            let windows = by_place.view([n, rows / stride, stride, columns / stride, stride, channels]);
            let sums = windows.sum_dim_intlist([2i64, 4].as_slice(), false, None::<Kind>);
            (sums / (stride * stride) as f64).permute([0, 3, 1, 2])
        }
        _ => x.avg_pool2d([stride; 2], [stride; 2], [0, 0], false, true, None),
    }
}

/// A convolution without bias, and the batch norm after it.
#[derive(Debug)]
struct ConvolutionShape {
    name: String,
    norm: String,
    from: i64,
    to: i64,
    size: i64,
    stride: i64,
}

impl ConvolutionShape {
    /// Lists the tensors; `scale` is the first value of the norm's weight.
    fn layout(&self, scale: f64) -> Vec<ParameterSpec> {
        let Self { name, norm, from, to, size, .. } = self;
        let init = linear_default(from * size * size);
        let mut specs = vec![ParameterSpec::new(format!("{name}.weight"), &[*to, *from, *size, *size], init)];
        specs.extend(BatchNorm::layout(norm, *to, scale));
        specs
    }
}

#[derive(Debug)]
struct Convolution {
    weight: Tensor,
    norm: BatchNorm,
    stride: i64,
    padding: i64,
}

impl Convolution {
    fn new(shape: ConvolutionShape, parameters: &Parameters) -> Self {
        Self {
            weight: parameters.handle(&format!("{}.weight", shape.name)),
            norm: BatchNorm::new(parameters, &shape.norm),
            stride: shape.stride,
            padding: shape.size / 2,
        }
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let x = x.conv2d(&self.weight, None::<Tensor>, stride, padding, [1, 1], 1);
        self.norm.forward(&x, pass)
    }
}

struct BottleneckShape {
    name: String,
    from: i64,
    inner: i64,
    stride: i64,
}

impl BottleneckShape {
    fn convolutions(&self) -> [ConvolutionShape; 3] {
        let Self { name, from, inner, .. } = self;
        let shape = |number: i64, from: i64, to: i64, size| ConvolutionShape {
            name: format!("{name}.conv{number}"),
            norm: format!("{name}.bn{number}"),
            from,
            to,
            size,
            stride: 1,
        };
        [shape(1, *from, *inner, 1), shape(2, *inner, *inner, 3), shape(3, *inner, inner * EXPANSION, 1)]
    }

    /// The convolution around the bottleneck, where what goes in does not fit what comes out.
    fn shortcut(&self) -> Option<ConvolutionShape> {
        let to = self.inner * EXPANSION;
        (self.stride > 1 || self.from != to).then(|| ConvolutionShape {
            name: format!("{}.downsample.0", self.name),
            norm: format!("{}.downsample.1", self.name),
            from: self.from,
            to,
            size: 1,
            stride: 1,
        })
    }

    /// The last norm begins at zero, so that a new bottleneck changes nothing.
    fn layout(&self) -> Vec<ParameterSpec> {
        let [first, second, last] = self.convolutions();
        let mut specs = [first.layout(1.0), second.layout(1.0), last.layout(0.0)].concat();
        specs.extend(self.shortcut().into_iter().flat_map(|shape| shape.layout(1.0)));
        specs
    }
}

/// Convolutions of 1, 3 and 1 pixels around which a shortcut leads. Strides are averages, so that no pixel is skipped.
#[derive(Debug)]
struct Bottleneck {
    convolutions: [Convolution; 3],
    shortcut: Option<Convolution>,
    stride: i64,
}

impl Bottleneck {
    fn new(shape: &BottleneckShape, parameters: &Parameters) -> Self {
        Self {
            convolutions: shape.convolutions().map(|shape| Convolution::new(shape, parameters)),
            shortcut: shape.shortcut().map(|shape| Convolution::new(shape, parameters)),
            stride: shape.stride,
        }
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let [first, second, last] = &self.convolutions;
        let hidden = first.forward(x, pass).relu();
        let hidden = average(&second.forward(&hidden, pass).relu(), self.stride);
        let hidden = last.forward(&hidden, pass);
        let around = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&average(x, self.stride), pass),
            None => x.shallow_clone(),
        };
        (hidden + around).relu()
    }
}

//! Fused layers against the operations that they stand for: results, and gradients of everything that goes in.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use fastclip_torch_ext::FusedLayers;
use tch::{Cuda, Device, Kind, Tensor};

const EPS: f64 = 1e-5;

/// Which way layers are computed.
#[derive(Clone, Copy)]
enum Way {
    Fused(FusedLayers),
    Plain,
}

#[derive(Debug, Clone, Copy)]
enum Layer {
    Gelu,
    Split,
    AddNorm,
}

impl Layer {
    const ALL: [Self; 3] = [Self::Gelu, Self::Split, Self::AddNorm];

    /// Draws what goes in, in the order in which [`Layer::outputs`] takes it: values that bf16 has.
    fn draw(self, rows: [i64; 2], width: i64, hidden: i64) -> Vec<Tensor> {
        let x = |width: i64| tensor(&[rows[0], rows[1], width], 1.0);
        let weight = |from: i64, to: i64| tensor(&[to, from], (from as f64).powf(-0.5));
        let vector = |width: i64| tensor(&[width], 0.5);
        match self {
            Self::Gelu => vec![x(width), weight(width, hidden), vector(hidden)],
            Self::Split => vec![x(width), weight(width, 3 * width), vector(3 * width)],
            Self::AddNorm => {
                let (scale, shift) = (as_in_bf16(vector(width) + 1.0), vector(width));
                vec![x(width), x(hidden), weight(hidden, width), vector(width), scale, shift]
            }
        }
    }

    fn outputs(self, way: Way, inputs: &[Tensor]) -> Vec<Tensor> {
        match (self, inputs, way) {
            (Self::Gelu, [x, weight, bias], Way::Fused(fused)) => {
                vec![fused.linear_gelu(x, (weight, bias)).unwrap()]
            }
            (Self::Gelu, [x, weight, bias], Way::Plain) => {
                vec![x.linear(weight, Some(bias)).gelu("none")]
            }
            (Self::Split, [x, weight, bias], Way::Fused(fused)) => {
                fused.linear_split(x, (weight, bias)).unwrap().into()
            }
            (Self::Split, [x, weight, bias], Way::Plain) => x.linear(weight, Some(bias)).chunk(3, -1),
            (Self::AddNorm, [x, y, weight, bias, scale, shift], Way::Fused(fused)) => {
                fused.linear_add_norm(x, y, (weight, bias), (scale, shift), EPS).unwrap().into()
            }
            (Self::AddNorm, [x, y, weight, bias, scale, shift], Way::Plain) => {
                let sum = x + y.linear(weight, Some(bias));
                let normed = sum.layer_norm(scale.size(), Some(scale), Some(shift), EPS, true);
                vec![sum, normed]
            }
            (layer, inputs, _) => panic!("{layer:?} takes another number of inputs than {}", inputs.len()),
        }
    }

    /// Returns outputs, then the gradients of all inputs of a weighted sum over the outputs.
    fn results(self, way: Way, inputs: &[Tensor], kind: Kind, device: Device) -> Vec<Tensor> {
        let inputs: Vec<Tensor> = inputs
            .iter()
            .map(|input| input.to_kind(kind).to_device(device).detach().set_requires_grad(true))
            .collect();
        let mut results = self.outputs(way, &inputs);
        tch::manual_seed(5);
        let weighted = results.iter().map(|output| {
            let weights = tensor(&output.size(), 1.0).to_kind(kind).to_device(device);
            (output * weights).sum(Kind::Double)
        });
        weighted.reduce(|sum, term| sum + term).expect("every layer has outputs").backward();
        results.extend(inputs.iter().map(Tensor::grad));
        results.iter().map(|result| result.detach().to_kind(Kind::Double).to_device(Device::Cpu)).collect()
    }
}

fn tensor(shape: &[i64], scale: f64) -> Tensor {
    as_in_bf16(Tensor::randn(shape, (Kind::Double, Device::Cpu)) * scale)
}

fn as_in_bf16(tensor: Tensor) -> Tensor {
    tensor.to_kind(Kind::BFloat16).to_kind(Kind::Double)
}

/// ‖found − expected‖ / ‖expected‖
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let norm = |tensor: &Tensor| tensor.norm().double_value(&[]);
    norm(&(found - expected)) / norm(expected)
}

#[test]
fn layers_of_libtorch_have_the_derivatives_of_what_they_stand_for() {
    tch::manual_seed(3);
    for layer in Layer::ALL {
        let inputs = layer.draw([3, 5], 12, 20);
        let results = |way| layer.results(way, &inputs, Kind::Double, Device::Cpu);
        let (found, expected) = (results(Way::Fused(FusedLayers::of_libtorch())), results(Way::Plain));
        assert_eq!(found.len(), expected.len());
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = difference(found, expected);
            assert!(difference < 1e-13, "{layer:?}, result {place}: {difference:e}");
        }
    }
}

#[test]
fn there_are_no_kernels_for_a_cpu() {
    let like = Tensor::zeros([2, 256], (Kind::BFloat16, Device::Cpu));
    assert!(FusedLayers::load(&like, 1024).unwrap().is_none());
}

/// On machines without a GPU there is nothing to compare. Against fp64; what libtorch is off by in bf16 is the measure.
#[test]
fn kernels_of_a_gpu_are_as_exact_as_libtorch() {
    if !Cuda::is_available() {
        println!("no GPU here");
        return;
    }
    let device = Device::Cuda(0);
    // Rows that fill no block, some, and many more than there are; the widths of CLIP's towers.
    for (rows, width, hidden) in [
        ([1, 1], 512, 2048),
        ([3, 7], 256, 1024),
        ([40, 77], 512, 2048),
        ([64, 197], 768, 3072),
        ([9, 50], 1024, 4096),
        ([3, 50], 1280, 5120),
    ] {
        let like = Tensor::zeros([1, width], (Kind::BFloat16, device));
        let fused = FusedLayers::load(&like, hidden).unwrap().expect("there are kernels for these widths");
        for layer in Layer::ALL {
            tch::manual_seed(rows[0] + width);
            let inputs = layer.draw(rows, width, hidden);
            let expected = layer.results(Way::Plain, &inputs, Kind::Double, Device::Cpu);
            let in_bf16 = |way| layer.results(way, &inputs, Kind::BFloat16, device);
            let (found, again) = (in_bf16(Way::Fused(fused)), in_bf16(Way::Fused(fused)));
            for (place, (plain, expected)) in in_bf16(Way::Plain).iter().zip(&expected).enumerate() {
                let (ours, theirs) = (difference(&found[place], expected), difference(plain, expected));
                println!("{layer:?} {rows:?} × {width}, result {place}: {ours:.2e}, libtorch {theirs:.2e}");
                assert!(ours < 1.1 * theirs + 1e-4, "{layer:?} {rows:?} × {width}, result {place}");
                assert!(
                    found[place].equal(&again[place]),
                    "{layer:?} {rows:?} × {width}, result {place} twice"
                );
            }
        }
    }
}

//! Operations on lists of tensors against plain formulas.

use std::num::NonZeroUsize;

use fastclip_torch_ext::{
    AdamStep, LionStep, OnDevice, SgdStep, foreach_copy, foreach_lamb, foreach_largest, foreach_lion,
    foreach_mul, foreach_norm, fused_adamw, fused_sgd, num_threads, set_deterministic, set_num_threads,
    torch_version,
};
use tch::{Device, Kind, Tensor};

const SHAPES: [&[i64]; 4] = [&[7, 5], &[3], &[], &[2, 3, 4]];

fn random(seed: i64) -> Vec<Tensor> {
    tch::manual_seed(seed);
    SHAPES.iter().map(|shape| Tensor::randn(*shape, (Kind::Float, Device::Cpu))).collect()
}

fn zeros() -> Vec<Tensor> {
    SHAPES.iter().map(|shape| Tensor::zeros(*shape, (Kind::Float, Device::Cpu))).collect()
}

fn doubles(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.to_kind(Kind::Double)).collect()
}

#[test]
fn the_fused_step_agrees_with_the_formula_of_adamw() {
    let (lr, beta1, beta2, weight_decay, eps) = (0.01, 0.9, 0.98, 0.2, 1e-6);
    let params = random(1);
    let (exp_avgs, exp_avg_sqs) = (zeros(), zeros());
    let steps: Vec<Tensor> = SHAPES.iter().map(|_| Tensor::from(0f32)).collect();

    let mut plain_params = doubles(&params);
    let (mut means, mut squares) = (doubles(&zeros()), doubles(&zeros()));
    for step in 1..=5 {
        let grads = random(100 + step);
        fused_adamw(
            &AdamStep {
                params: &params,
                grads: &grads,
                exp_avgs: &exp_avgs,
                exp_avg_sqs: &exp_avg_sqs,
                steps: &steps,
                lr,
                beta1,
                beta2,
                weight_decay,
                eps,
            },
            OnDevice::default(),
        )
        .unwrap();

        for (i, grad) in doubles(&grads).iter().enumerate() {
            means[i] = &means[i] * beta1 + grad * (1.0 - beta1);
            squares[i] = &squares[i] * beta2 + grad * grad * (1.0 - beta2);
            let mean = &means[i] / (1.0 - beta1.powi(step as i32));
            let root = (&squares[i] / (1.0 - beta2.powi(step as i32))).sqrt() + eps;
            plain_params[i] = &plain_params[i] * (1.0 - lr * weight_decay) - mean / root * lr;
        }
        for (param, plain) in params.iter().zip(&plain_params) {
            assert!(param.to_kind(Kind::Double).allclose(plain, 1e-5, 1e-6, false), "step {step}");
        }
    }
    assert_eq!(f32::try_from(&steps[0]).unwrap(), 5.0);
}

#[test]
fn the_fused_step_moves_parameters_that_require_gradients() {
    let param = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    (&param * &param).sum(Kind::Float).backward();
    let state = || vec![Tensor::zeros([4], (Kind::Float, Device::Cpu))];
    fused_adamw(
        &AdamStep {
            params: std::slice::from_ref(&param),
            grads: &[param.grad()],
            exp_avgs: &state(),
            exp_avg_sqs: &state(),
            steps: &[Tensor::from(0f32)],
            lr: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            eps: 0.0,
        },
        OnDevice::default(),
    )
    .unwrap();
    assert!(param.requires_grad() && param.is_leaf());
    assert!((param.double_value(&[0]) - 0.5).abs() < 1e-6);
}

fn scalars(value: f32) -> Vec<Tensor> {
    SHAPES.iter().map(|_| Tensor::from(value)).collect()
}

fn norm(tensor: &Tensor) -> f64 {
    tensor.square().sum(Kind::Double).double_value(&[]).sqrt()
}

#[track_caller]
fn assert_near(found: &[Tensor], expected: &[Tensor]) {
    for (found, expected) in found.iter().zip(expected) {
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-12, "{difference:e} apart: {found:?}");
    }
}

#[test]
fn steps_of_lamb_agree_with_its_formula() {
    let (lr, beta1, beta2, eps) = (0.01, 0.9, 0.98, 1e-6);
    for weight_decay in [0.0, 0.2] {
        let params = doubles(&random(1));
        let (exp_avgs, exp_avg_sqs, steps) = (doubles(&zeros()), doubles(&zeros()), scalars(0.0));
        let mut plain: Vec<Tensor> = params.iter().map(Tensor::copy).collect();
        let (mut means, mut squares) = (doubles(&zeros()), doubles(&zeros()));
        for step in 1..=5 {
            let grads = doubles(&random(100 + step));
            foreach_lamb(&AdamStep {
                params: &params,
                grads: &grads,
                exp_avgs: &exp_avgs,
                exp_avg_sqs: &exp_avg_sqs,
                steps: &steps,
                lr,
                beta1,
                beta2,
                weight_decay,
                eps,
            })
            .unwrap();
            for (i, grad) in grads.iter().enumerate() {
                means[i] = &means[i] * beta1 + grad * (1.0 - beta1);
                squares[i] = &squares[i] * beta2 + grad * grad * (1.0 - beta2);
                let mean = &means[i] / (1.0 - beta1.powi(step as i32));
                let root = (&squares[i] / (1.0 - beta2.powi(step as i32))).sqrt() + eps;
                let update = mean / root + &plain[i] * weight_decay;
                let ratio = if weight_decay == 0.0 { 1.0 } else { norm(&plain[i]) / norm(&update) };
                plain[i] = &plain[i] - update * (lr * ratio);
            }
            assert_near(&params, &plain);
        }
        assert_eq!(f32::try_from(&steps[0]).unwrap(), 5.0);
    }
}

#[test]
fn lamb_takes_a_trust_ratio_of_one_where_a_norm_is_zero() {
    let double = |value: f64| vec![Tensor::from_slice(&[value, 0.0])];
    let moved = |param: f64, grad: f64, weight_decay| {
        let params = double(param);
        foreach_lamb(&AdamStep {
            params: &params,
            grads: &double(grad),
            exp_avgs: &double(0.0),
            exp_avg_sqs: &double(0.0),
            steps: &[Tensor::from(0f32)],
            lr: 0.5,
            beta1: 0.5,
            beta2: 0.5,
            weight_decay,
            eps: 1e-300,
        })
        .unwrap();
        params[0].double_value(&[0]) - param
    };
    // The direction of Adam's first step is the sign of the gradient; powers of two keep it exact.
    for (param, grad, weight_decay, expected) in [
        (0.0, 4.0, 0.25, -0.5),       // no parameter
        (0.0, 0.0, 0.25, 0.0),        // neither parameter nor update
        (-4.0, 4.0, 0.25, 0.0),       // decay and gradient cancel: no update
        (2.0, 0.0, 0.25, -0.5 * 2.0), // decay alone: as long as the parameter
        (4.0, 4.0, 0.25, -0.5 * 4.0), // decay and gradient: as long as the parameter
        (4.0, 4.0, 0.0, -0.5),        // no decay, no ratio
    ] {
        let found = moved(param, grad, weight_decay);
        assert!((found - expected).abs() < 1e-12, "w {param}, g {grad}, decay {weight_decay}: {found}");
    }
}

#[test]
fn steps_of_lion_agree_with_its_formula() {
    let (lr, beta1, beta2) = (0.01, 0.9, 0.99);
    for weight_decay in [0.0, 0.2] {
        let (params, exp_avgs) = (doubles(&random(1)), doubles(&zeros()));
        let mut plain: Vec<Tensor> = params.iter().map(Tensor::copy).collect();
        let mut means = doubles(&zeros());
        for step in 1..=5 {
            let grads = doubles(&random(100 + step));
            let step = LionStep {
                params: &params,
                grads: &grads,
                exp_avgs: &exp_avgs,
                lr,
                beta1,
                beta2,
                weight_decay,
            };
            foreach_lion(&step).unwrap();
            for (i, grad) in grads.iter().enumerate() {
                let sign = (&means[i] * beta1 + grad * (1.0 - beta1)).sign();
                plain[i] = &plain[i] * (1.0 - lr * weight_decay) - sign * lr;
                means[i] = &means[i] * beta2 + grad * (1.0 - beta2);
            }
            assert_near(&params, &plain);
            assert_near(&exp_avgs, &means);
        }
    }
}

#[test]
fn steps_of_sgd_agree_with_its_formula() {
    let (lr, weight_decay) = (0.01, 0.2);
    for (momentum, is_nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let (params, momentum_buffers) = (doubles(&random(1)), doubles(&zeros()));
        let mut plain: Vec<Tensor> = params.iter().map(Tensor::copy).collect();
        let mut buffers = doubles(&zeros());
        for step in 1..=5 {
            let grads = doubles(&random(100 + step));
            let step = SgdStep {
                params: &params,
                grads: &grads,
                momentum_buffers: &momentum_buffers,
                lr,
                momentum,
                weight_decay,
                is_nesterov,
            };
            fused_sgd(&step, OnDevice::default()).unwrap();
            for (i, grad) in grads.iter().enumerate() {
                let grad = grad + &plain[i] * weight_decay;
                buffers[i] = &buffers[i] * momentum + &grad;
                let update = if is_nesterov { grad + &buffers[i] * momentum } else { buffers[i].copy() };
                plain[i] = &plain[i] - update * lr;
            }
            assert_near(&params, &plain);
        }
    }
}

#[test]
fn sgd_needs_no_buffers_without_momentum_and_one_each_with_it() {
    let params = random(1);
    let with = |momentum| {
        fused_sgd(
            &SgdStep {
                params: &params,
                grads: &params,
                momentum_buffers: &[],
                lr: 0.0,
                momentum,
                weight_decay: 0.0,
                is_nesterov: false,
            },
            OnDevice::default(),
        )
    };
    with(0.0).unwrap();
    assert_eq!(with(0.5).unwrap_err().to_string(), "4 params but 0 momentum_buffers");
}

#[test]
fn a_step_over_lists_of_different_lengths_is_refused() {
    let params = random(1);
    let error = fused_adamw(
        &AdamStep {
            params: &params,
            grads: &params[..2],
            exp_avgs: &params,
            exp_avg_sqs: &params,
            steps: &params,
            lr: 0.0,
            beta1: 0.0,
            beta2: 0.0,
            weight_decay: 0.0,
            eps: 0.0,
        },
        OnDevice::default(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "4 params but 2 grads");
}

#[test]
fn the_norm_is_that_of_all_elements_of_all_tensors() {
    let tensors = random(2);
    let expected: f64 =
        doubles(&tensors).iter().map(|tensor| tensor.square().sum(Kind::Double).double_value(&[])).sum();
    let norm = foreach_norm(&tensors).unwrap();
    assert_eq!(norm.size(), [] as [i64; 0]);
    assert!((norm.double_value(&[]) - expected.sqrt()).abs() < 1e-5);
}

#[test]
fn the_largest_values_tell_which_tensors_hold_what_is_no_number() {
    let tensors: Vec<Tensor> = [[1.0f32, -3.0], [f32::NAN, 2.0], [f32::NEG_INFINITY, 0.0], [0.5, 0.25]]
        .iter()
        .map(|values| Tensor::from_slice(values))
        .collect();
    let largest = Vec::<f32>::try_from(foreach_largest(&tensors).unwrap()).unwrap();
    assert!(largest[1].is_nan());
    assert_eq!([largest[0], largest[2], largest[3]], [3.0, f32::INFINITY, 0.5]);
}

#[test]
fn the_norm_of_nothing_is_refused() {
    let error = foreach_norm(&[]).unwrap_err();
    assert!(!error.message().contains('\n'), "{error}");
}

#[test]
fn every_tensor_is_multiplied_in_place() {
    let tensors = random(3);
    let before: Vec<Tensor> = tensors.iter().map(Tensor::copy).collect();
    foreach_mul(&tensors, &Tensor::from(0.25f32)).unwrap();
    for (tensor, before) in tensors.iter().zip(&before) {
        assert_eq!(tensor, &(before * 0.25));
    }
}

#[test]
fn settings_of_the_process_are_taken() {
    set_num_threads(NonZeroUsize::MIN).unwrap();
    assert_eq!(num_threads(), 1);
    set_deterministic(true).unwrap();
    assert!(torch_version().starts_with("2.11."), "{}", torch_version());
}

/// A parameter with its state and a gradient, and the step that AdamW takes with it.
fn with_step(check: impl FnOnce(&AdamStep<'_>)) {
    // Not drawn: the generator is one for all tests, which run at once.
    let waves = |salt: i64| -> Vec<Tensor> {
        let wave = |shape: &&[i64]| {
            let numel: i64 = shape.iter().product();
            (Tensor::arange(numel, (Kind::Float, Device::Cpu)) + salt).sin().reshape(*shape)
        };
        SHAPES.iter().map(wave).collect()
    };
    let (params, grads, exp_avgs) = (waves(1), waves(2), waves(3));
    let exp_avg_sqs: Vec<Tensor> = waves(4).iter().map(Tensor::abs).collect();
    let steps: Vec<Tensor> = SHAPES.iter().map(|_| Tensor::from(3f32)).collect();
    check(&AdamStep {
        params: &params,
        grads: &grads,
        exp_avgs: &exp_avgs,
        exp_avg_sqs: &exp_avg_sqs,
        steps: &steps,
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.98,
        weight_decay: 0.2,
        eps: 1e-6,
    });
}

/// What a step changes, as it is now.
fn copies(step: &AdamStep<'_>) -> Vec<Tensor> {
    let lists = [step.params, step.exp_avgs, step.exp_avg_sqs, step.steps];
    lists.iter().flat_map(|list| list.iter().map(Tensor::copy)).collect()
}

fn all_equal(left: &[Tensor], right: &[Tensor]) -> bool {
    left.iter().zip(right).all(|(left, right)| left.equal(right))
}

#[test]
fn a_step_that_is_skipped_on_the_device_changes_nothing() {
    with_step(|step| {
        let before = copies(step);
        let skip = Tensor::from(1f32);
        fused_adamw(step, OnDevice { skip: Some(&skip), ..OnDevice::default() }).unwrap();
        assert!(all_equal(&copies(step), &before));
        let skip = Tensor::from(0f32);
        fused_adamw(step, OnDevice { skip: Some(&skip), ..OnDevice::default() }).unwrap();
        let skipped_nothing = copies(step);
        with_step(|step| {
            fused_adamw(step, OnDevice::default()).unwrap();
            assert!(all_equal(&copies(step), &skipped_nothing));
        });
    });
}

#[test]
fn a_rate_on_the_device_counts_like_one_of_the_host() {
    let mut found = Vec::new();
    for (lr, rate) in [(0.25, None), (0.5, Some(Tensor::from(0.25f32)))] {
        with_step(|step| {
            let step = AdamStep { lr, ..*step };
            fused_adamw(&step, OnDevice { lr: rate.as_ref(), ..OnDevice::default() }).unwrap();
            found.push(copies(&step));
        });
    }
    assert!(all_equal(&found[0], &found[1]));
}

#[test]
fn copies_round_to_the_kind_of_their_target() {
    let from = random(5);
    let to: Vec<Tensor> = from.iter().map(|tensor| tensor.zeros_like().to_kind(Kind::BFloat16)).collect();
    foreach_copy(&to, &from).unwrap();
    let rounded: Vec<Tensor> = from.iter().map(|tensor| tensor.to_kind(Kind::BFloat16)).collect();
    assert!(all_equal(&to, &rounded));
    let error = foreach_copy(&to[1..], &from).unwrap_err();
    assert_eq!(error.to_string(), "4 tensors cannot be copied into 3");
}

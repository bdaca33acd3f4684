//! Gradients in buckets, in one process; `processes.rs` has those between ranks.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastclip_torch_ext::{BucketEntry, GradientBuckets};
use tch::{Device, Kind, Tensor};

/// Room for two parameters of `parameters` in a bucket.
const BUCKET_BYTES: NonZeroUsize = NonZeroUsize::new(48).unwrap();

/// Three leaves of six values.
fn parameters() -> Vec<Tensor> {
    let parameter = |index: i64| {
        let values = Tensor::arange(6, (Kind::Float, Device::Cpu)) + (10 * index + 1);
        values.reshape([2, 3]).set_requires_grad(true)
    };
    (0..3).map(parameter).collect()
}

fn buckets(parameters: &[Tensor]) -> GradientBuckets {
    buckets_of_leaves(parameters, parameters)
}

/// Buckets for parameters whose gradients come to leaves that may be of another kind.
fn buckets_of_leaves(parameters: &[Tensor], leaves: &[Tensor]) -> GradientBuckets {
    let entries: Vec<_> = parameters
        .iter()
        .zip(leaves)
        .map(|(parameter, leaf)| BucketEntry { parameter, leaf: Some(leaf) })
        .collect();
    GradientBuckets::new(&entries, BUCKET_BYTES).unwrap()
}

fn squares(parameters: &[Tensor]) -> Tensor {
    parameters.iter().map(|parameter| parameter.square().sum(Kind::Float)).reduce(|a, b| a + b).unwrap()
}

fn largest(buckets: &GradientBuckets) -> Vec<f32> {
    Vec::try_from(buckets.largest()).unwrap()
}

#[test]
fn gradients_arrive_in_their_places() {
    let parameters = parameters();
    let mut buckets = buckets(&parameters);
    assert_eq!(buckets.flats().iter().map(Tensor::size).collect::<Vec<_>>(), [[12], [6]]);
    buckets.complete(|| squares(&parameters).backward()).unwrap();
    for (gradient, parameter) in buckets.gradients().iter().zip(&parameters) {
        assert_eq!(gradient, &(parameter.detach() * 2.0));
    }
    assert_eq!(largest(&buckets), [2.0 * 26.0, 2.0 * 6.0]);
}

#[test]
fn a_bucket_leaves_after_all_uses_of_its_parameters() {
    let parameters = parameters();
    let mut buckets = buckets(&parameters);
    let backward = || {
        // Used directly, and again through a second graph that is as deep as it is slow.
        let again = (0..20).fold(parameters[2].shallow_clone(), |tensor, _| tensor * 1.0);
        (squares(&parameters) + (again * 1000.0).sum(Kind::Float)).backward();
    };
    buckets.complete(backward).unwrap();
    let expected = parameters[2].detach() * 2.0 + 1000.0;
    assert_eq!(buckets.gradients()[2], expected);
    assert_eq!(largest(&buckets)[0], 1052.0, "noted when the bucket left");
}

#[test]
fn gradients_add_up_until_they_are_cleared() {
    let parameters = parameters();
    let mut buckets = buckets(&parameters);
    squares(&parameters).backward();
    squares(&parameters).backward();
    buckets.complete(|| squares(&parameters).backward()).unwrap();
    assert_eq!(buckets.gradients()[1], parameters[1].detach() * 6.0);
    assert_eq!(largest(&buckets), [6.0 * 26.0, 6.0 * 6.0]);
    buckets.clear();
    buckets.complete(|| squares(&parameters).backward()).unwrap();
    assert_eq!(buckets.gradients()[1], parameters[1].detach() * 2.0);
}

#[test]
fn gradients_that_are_given_or_never_come_hold_nothing_up() {
    let parameters = parameters();
    let scalar = Tensor::from(3.0f32);
    let mut entries: Vec<_> =
        parameters.iter().map(|parameter| BucketEntry { parameter, leaf: Some(parameter) }).collect();
    entries.push(BucketEntry { parameter: &scalar, leaf: None });
    let mut buckets = GradientBuckets::new(&entries, BUCKET_BYTES).unwrap();
    buckets.gradients()[3].shallow_clone().copy_(&Tensor::from(-100.0f32));
    buckets.complete(|| squares(&parameters[1..2]).backward()).unwrap();
    assert_eq!(buckets.gradients()[0], parameters[0].zeros_like());
    assert_eq!(buckets.gradients()[1], parameters[1].detach() * 2.0);
    assert_eq!(buckets.gradients()[3].double_value(&[]), -100.0);
    assert_eq!(largest(&buckets), [100.0, 2.0 * 16.0]);
}

#[test]
fn what_is_not_finite_shows_in_the_largest_value_of_its_bucket() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let parameters = parameters();
        let mut buckets = buckets(&parameters);
        let _ = buckets.gradients()[0].get(1).get(1).fill_(bad);
        buckets.complete(|| squares(&parameters).backward()).unwrap();
        let largest = largest(&buckets);
        assert_eq!((largest[0], largest[1].is_finite()), (52.0, false), "{bad}");
    }
}

#[test]
fn a_second_gradient_after_the_last_is_refused() {
    let parameters = parameters();
    let mut buckets = buckets(&parameters);
    let twice = || {
        squares(&parameters).backward();
        squares(&parameters).backward();
    };
    let message = buckets.complete(twice).unwrap_err().to_string();
    assert!(message.starts_with("a parameter got a second gradient"), "{message}");
}

#[test]
fn buckets_survive_a_backward_pass_that_panics() {
    let parameters = parameters();
    let mut buckets = buckets(&parameters);
    catch_unwind(AssertUnwindSafe(|| buckets.complete(|| panic!("for the test")))).unwrap_err();
    squares(&parameters).backward();
    buckets.clear();
    buckets.complete(|| squares(&parameters).backward()).unwrap();
    assert_eq!(buckets.gradients()[1], parameters[1].detach() * 2.0);
}

#[test]
fn dropped_buckets_leave_the_parameters_as_they_were() {
    let parameters = parameters();
    drop(buckets(&parameters));
    squares(&parameters).backward();
    assert_eq!(parameters[0].grad(), parameters[0].detach() * 2.0);
}

#[test]
fn parameters_that_cannot_have_a_bucket_are_refused() {
    let refused = |parameters: &[&Tensor]| {
        let entries: Vec<_> =
            parameters.iter().map(|&parameter| BucketEntry { parameter, leaf: Some(parameter) }).collect();
        GradientBuckets::new(&entries, BUCKET_BYTES).unwrap_err().to_string()
    };
    let leaf = Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
    let double = Tensor::from_slice(&[1.0f64]).set_requires_grad(true);
    assert!(refused(&[]).contains("no parameters"));
    assert!(refused(&[&leaf, &double]).contains("parameter 1 is Double on Cpu, parameter 0 is Float on Cpu"));
    assert!(refused(&[&leaf, &leaf.detach()]).contains("parameter 1 is no leaf"));
    assert!(refused(&[&leaf, &(&leaf * 2.0)]).contains("parameter 1 is no leaf"));
    let entry = BucketEntry { parameter: &leaf, leaf: Some(&leaf) };
    let _first = GradientBuckets::new(&[entry], BUCKET_BYTES).unwrap();
    assert!(refused(&[&leaf]).contains("has a bucket already"));
}

#[test]
fn gradients_of_rounded_copies_are_added_up_in_the_kind_of_the_parameters() {
    let parameters = parameters();
    let rounded: Vec<Tensor> = parameters
        .iter()
        .map(|parameter| parameter.detach().to_kind(Kind::BFloat16).set_requires_grad(true))
        .collect();
    let mut buckets = buckets_of_leaves(&parameters, &rounded);
    // 257 takes nine bits, one more than a bf16 has: adding up in bf16 would lose it.
    let weigh = |factor: f64| rounded.iter().map(|leaf| (leaf * factor).sum(Kind::Float)).sum::<Tensor>();
    weigh(256.0).backward();
    buckets.complete(|| weigh(1.0).backward()).unwrap();
    for (gradient, leaf) in buckets.gradients().iter().zip(&rounded) {
        assert_eq!(gradient.kind(), Kind::Float);
        assert_eq!(gradient, &gradient.full_like(257.0));
        assert!(!leaf.grad().defined(), "the gradient of a copy is kept by nobody");
    }
    assert_eq!(largest(&buckets), [257.0, 257.0]);
}

#[test]
fn gradients_of_rounded_copies_begin_anew_after_a_step_however_weights_lie_in_memory() {
    let parameters =
        [Tensor::ones([2, 3], (Kind::Float, Device::Cpu)), Tensor::ones([4], (Kind::Float, Device::Cpu))];
    let columns_first = Tensor::ones([3, 2], (Kind::BFloat16, Device::Cpu)).transpose(0, 1);
    let rounded =
        [columns_first, parameters[1].to_kind(Kind::BFloat16)].map(|leaf| leaf.set_requires_grad(true));
    let mut buckets = buckets_of_leaves(&parameters, &rounded);
    let factors = Tensor::arange(6, (Kind::BFloat16, Device::Cpu)).view([2, 3]);
    let weigh = |leaf: &Tensor, factor: &Tensor| (leaf * factor).sum(Kind::Float);
    let both = || weigh(&rounded[0], &factors) + weigh(&rounded[1], &Tensor::from(2.0f32));
    for _ in 0..2 {
        buckets.clear();
        buckets.complete(|| both().backward()).unwrap();
        assert_eq!(buckets.gradients()[0], factors.to_kind(Kind::Float));
        assert_eq!(buckets.gradients()[1], buckets.gradients()[1].full_like(2.0));
    }
    // A pass that is broken off leaves nothing to the next, and a leaf without a gradient has zeros.
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        buckets.complete(|| {
            both().backward();
            panic!("broken off");
        })
    }));
    assert!(broken.is_err());
    buckets.clear();
    buckets.complete(|| weigh(&rounded[0], &factors).backward()).unwrap();
    assert_eq!(buckets.gradients()[0], factors.to_kind(Kind::Float));
    assert_eq!(buckets.gradients()[1], buckets.gradients()[1].zeros_like());
}

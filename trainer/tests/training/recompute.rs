//! Gradient checkpointing: the same bits in less memory.

use std::num::NonZeroUsize;

use fastclip_schemas::SampleId;
use fastclip_torch_ext::peak_memory;
use fastclip_trainer::distributed::{Alone, Communicator};
use fastclip_trainer::gradients::Gradients;
use fastclip_trainer::model::{Clip, ImageLock, Locks, ModelConfig};
use fastclip_trainer::objective::OpenClip;
use fastclip_trainer::optimizer::{Optimizer, OptimizerOptions, Rule};
use fastclip_trainer::schedule::{LearningRate, Schedule};
use fastclip_trainer::step::{Inputs, Message, Trainer};
use tch::{Device, Kind, Tensor};

use crate::invariance::{Result, assert_same, on_ranks, train_prepared, v3};

fn half_of_the_patches(config: &mut ModelConfig) {
    config.vision_cfg.patch_dropout = 0.5;
    config.vision_cfg.ls_init_value = Some(0.1);
}

fn train(comm: &dyn Communicator, num_micro_batches: usize, locks: Locks, recomputes: bool) -> Result {
    train_prepared(comm, v3, num_micro_batches, half_of_the_patches, |model| {
        model.lock(locks);
        model.set_grad_checkpointing(recomputes);
    })
}

#[track_caller]
fn assert_equal_bits(found: &Result, expected: &Result) {
    assert_eq!(found.losses, expected.losses);
    for ((name, found), (_, expected)) in found.parameters.iter().zip(&expected.parameters) {
        assert!(found.equal(expected), "`{name}`");
    }
    assert_eq!((found.traffic, found.num_buckets), (expected.traffic, expected.num_buckets));
}

#[test]
fn computing_blocks_again_changes_no_bit() {
    // The second block of a tower whose first one is locked has an input without gradient.
    let half_locked =
        Locks { image: Some(ImageLock { unlocked_groups: 2, freezes_statistics: false }), text: None };
    for locks in [Locks::default(), half_locked] {
        for num_micro_batches in [1, 2] {
            let run = |recomputes| train(&Alone::new(), num_micro_batches, locks, recomputes);
            assert_equal_bits(&run(true), &run(false));
            let runs = |recomputes| on_ranks(2, |comm| train(comm, num_micro_batches, locks, recomputes));
            for (found, expected) in runs(true).iter().zip(&runs(false)) {
                assert_equal_bits(found, expected);
            }
        }
    }
}

#[test]
fn the_same_patches_are_left_out_on_any_number_of_ranks_and_micro_batches() {
    let expected = train(&Alone::new(), 1, Locks::default(), false);
    let whole = train_prepared(&Alone::new(), v3, 1, |_| {}, |_| {});
    assert_ne!(expected.losses, whole.losses);
    for world_size in [2, 4] {
        for found in on_ranks(world_size, |comm| train(comm, 2, Locks::default(), true)) {
            assert_same(&found, &expected, &format!("{world_size} ranks"));
        }
    }
}

/// The peak of what tensors take in a step, in bytes, of a model whose blocks take most of it.
fn peak_of_a_step(recomputes: bool) -> u64 {
    let config = r#"{
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 12, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 32, "heads": 2, "layers": 2}
    }"#;
    let config = ModelConfig::from_json("test", config).unwrap();
    let mut model = Clip::with_kind(&config, Device::Cpu, Kind::Float, 1);
    model.set_grad_checkpointing(recomputes);
    let rule = Rule::Sgd { momentum: 0.0, is_nesterov: false };
    let mut trainer = Trainer {
        optimizer: Optimizer::new(
            model.parameters(),
            OptimizerOptions { rule, weight_decay: 0.0, max_grad_norm: None },
        ),
        objective: Box::new(OpenClip::default()),
        schedule: Schedule {
            model: LearningRate::constant(1e-3),
            temperature: LearningRate::constant(1e-3),
            threshold: None,
        },
        gradients: Gradients::new(model.parameters(), NonZeroUsize::MAX).unwrap(),
        num_micro_batches: NonZeroUsize::MIN,
        model,
        step: 0,
    };
    let ids: Vec<SampleId> = (0..16).map(SampleId).collect();
    let tokens: Vec<i64> = (0..16).flat_map(|row| [38, row, 39, 0]).collect();
    let inputs = Inputs {
        images: Tensor::zeros([16, 3, 64, 64], (Kind::Uint8, Device::Cpu)),
        tokens: Tensor::from_slice(&tokens).view([16, 4]),
        ids: &ids,
        epoch: 0,
    };
    let (report, peak) = peak_memory(|| trainer.step(&inputs, Message::default(), &Alone::new())).unwrap();
    report.unwrap();
    peak
}

#[test]
fn twelve_blocks_take_little_more_memory_than_one() {
    let [kept, recomputed] = [false, true].map(peak_of_a_step);
    eprintln!("peak of a step: {kept} bytes with all blocks kept, {recomputed} with blocks computed again");
    assert_eq!([kept, recomputed], [false, true].map(peak_of_a_step), "the measure is exact");
    assert!(recomputed * 4 < kept, "{recomputed} bytes with recomputing, {kept} without");
}

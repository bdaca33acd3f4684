//! What a step makes the host wait for: on a GPU, nothing.

use fastclip_schemas::SampleId;
use fastclip_torch_ext::value_reads;
use fastclip_trainer::distributed::Alone;
use fastclip_trainer::optimizer::{AdamOptions, Optimizer, OptimizerOptions, Rule};
use fastclip_trainer::step::{Inputs, Message, Trainer};
use tch::{Cuda, Tensor};

use crate::invariance::{image_of, openclip, siglip, tokens, trainer, v2, v3};
use crate::setting::{Setting, succeed};

const NUM_SAMPLES: i64 = 8;

/// Takes a step after another one; returns the operators by which it read values before its report was asked for.
fn reads_of_a_step(trainer: &mut Trainer) -> Vec<String> {
    let side = trainer.model.config().vision_cfg.image_size;
    let images: Vec<Tensor> = (0..NUM_SAMPLES).map(|sample| image_of(sample, side)).collect();
    let texts: Vec<Tensor> = (0..NUM_SAMPLES).map(tokens).collect();
    let ids: Vec<SampleId> = (0..NUM_SAMPLES as u64).map(SampleId).collect();
    let inputs =
        Inputs { images: Tensor::stack(&images, 0), tokens: Tensor::stack(&texts, 0), ids: &ids, epoch: 1 };
    trainer.step(&inputs, Message::default(), &Alone::new()).unwrap();
    let launch = || trainer.launch(&inputs, Message::default(), &Alone::new()).unwrap();
    let (pending, reads) = value_reads(launch).unwrap();
    pending.read().unwrap();
    reads
}

fn optimizer(trainer: &Trainer, rule: Rule) -> Optimizer {
    let options = OptimizerOptions { rule, weight_decay: 0.1, max_grad_norm: Some(1.0) };
    Optimizer::new(trainer.model.parameters(), options)
}

#[test]
fn a_step_reads_no_value_before_its_report_is_asked_for() {
    for objective in [v3, v2, openclip, siglip] {
        for is_resnet in [false, true] {
            for num_micro_batches in [1, 2] {
                let mut trainer = trainer(objective, is_resnet);
                trainer.optimizer = optimizer(&trainer, Rule::Sgd { momentum: 0.9, is_nesterov: false });
                trainer.num_micro_batches = num_micro_batches.try_into().unwrap();
                let reads = reads_of_a_step(&mut trainer);
                let name = trainer.objective.name();
                assert!(reads.is_empty(), "{name}, resnet {is_resnet}, {num_micro_batches}: {reads:?}");
            }
        }
    }
}

#[test]
fn rules_differ_in_what_they_read() {
    let reads = |rule| {
        let mut trainer = trainer(v3, false);
        trainer.optimizer = optimizer(&trainer, rule);
        (reads_of_a_step(&mut trainer), trainer.model.parameters().len())
    };
    let item = || "aten::_local_scalar_dense".to_owned();
    // Of many operations: whether the step is lost.
    let (found, _) = reads(Rule::Lion { beta1: 0.9, beta2: 0.99 });
    assert_eq!(found, [item()]);
    // The kernel for CPUs reads the number of steps of each parameter, in memory that is its own; that for GPUs reads it there.
    let (found, num_parameters) = reads(Rule::AdamW(AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 }));
    assert_eq!(found, vec![item(); num_parameters]);
}

#[test]
fn steps_on_a_gpu_make_the_host_wait_for_nothing() {
    if !(Cuda::is_available() && fastclip_torch_ext::HAS_CUDA) {
        eprintln!("skipped: this machine has no GPU, or this program no CUDA");
        return;
    }
    let setting = Setting::new();
    for more in [&[][..], &["--cuda-graphs"], &["--precision", "amp_bf16", "--accum-freq", "2"]] {
        let mut command = setting.train("bench");
        command.args([
            "--model",
            "tiny.json",
            "--batch-size",
            "8",
            "--device",
            "cuda",
            "--refuse-host-waits",
        ]);
        command.args(more);
        succeed(command);
    }
}

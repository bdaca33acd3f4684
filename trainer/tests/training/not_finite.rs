//! Samples that are no numbers.

use fastclip_schemas::SampleId;
use fastclip_trainer::distributed::Alone;
use fastclip_trainer::step::{Inputs, Message, StepError, Trainer};
use tch::{Kind, Tensor};

use crate::invariance::{image_of, tokens, trainer, v3};
use crate::setting::{Setting, succeed};

const SAMPLES: [i64; 8] = [3, 1, 4, 15, 9, 2, 6, 5];

/// Takes a step; the pixels of `broken` are no numbers.
fn step(trainer: &mut Trainer, first: i64, broken: Option<i64>) -> Result<f64, StepError> {
    let samples = SAMPLES.map(|sample| sample + first);
    let side = trainer.model.config().vision_cfg.image_size;
    let images: Vec<Tensor> = samples
        .iter()
        .map(|&sample| match image_of(sample, side).to_kind(Kind::Double) / 100.0 {
            pixels if broken == Some(sample) => pixels * f64::NAN,
            pixels => pixels,
        })
        .collect();
    let ids = samples.map(|sample| SampleId(sample as u64));
    let inputs = Inputs {
        images: Tensor::stack(&images, 0),
        tokens: Tensor::stack(&samples.map(tokens), 0),
        ids: &ids,
        epoch: 1,
    };
    Ok(trainer.step(&inputs, Message::default(), &Alone::new())?.values.loss)
}

#[test]
fn a_step_with_a_broken_sample_names_it_and_leaves_everything_as_it_was() {
    for resnet in [false, true] {
        let (mut whole, mut disturbed) = (trainer(v3, resnet), trainer(v3, resnet));
        for first in [0, 8] {
            assert_eq!(step(&mut whole, first, None).unwrap(), step(&mut disturbed, first, None).unwrap());
        }
        let error = step(&mut disturbed, 16, Some(16 + 4)).unwrap_err();
        let StepError::NotFinite { step: 2, not_finite_on, first, samples, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(not_finite_on, &[0]);
        assert!(first.is_some());
        if resnet {
            // Batch norms mix the samples of a batch.
            assert!(samples.contains(&SampleId(20)), "{error}");
        } else {
            assert_eq!(samples, &[SampleId(20)]);
            let words = "features of this rank's samples 20 are not finite";
            assert!(error.to_string().ends_with(words), "{error}");
        }
        for first in [8, 0] {
            assert_eq!(step(&mut whole, first, None).unwrap(), step(&mut disturbed, first, None).unwrap());
        }
        for (left, right) in whole.model.parameters().state().zip(disturbed.model.parameters().state()) {
            assert!(left.tensor.equal(&right.tensor), "`{}`", left.name);
        }
    }
}

#[test]
fn a_run_whose_numbers_end_stops_and_leaves_a_checkpoint_that_can_be_used() {
    let setting = Setting::new();
    let lost = |name: &str, policy: &str| {
        let mut command = setting.launched(name, 2);
        // So high a rate that one step leads out of what numbers can hold.
        command.args(["--lr", "1e30", "--warmup", "3", "--save-every-steps", "1", "--on-non-finite", policy]);
        fastclip_testkit::run(&mut command).assert_code(2)
    };
    lost("stopped", "stop").assert_says(&[
        "loss or gradients are not finite in step",
        "on ranks 0, 1",
        "are not finite",
    ]);
    lost("skipped", "skip").assert_says(&["the step is left out", "are not finite"]);
    for name in ["stopped", "skipped"] {
        let latest = std::fs::read_to_string(setting.of_run(name, "checkpoints/latest")).unwrap();
        let checkpoint = setting.of_run(name, "checkpoints").join(latest.trim());
        let mut command = setting.train("eval");
        command.arg("--checkpoint").arg(checkpoint).args(["--val-data", setting.data.location()]);
        succeed(command);
    }
}

//! Parts of a model that are not trained.

use std::fs;

use fastclip_trainer::distributed::Alone;
use fastclip_trainer::model::{ImageLock, Locks, TextLock};

use crate::invariance::{openclip, train_prepared};
use crate::setting::{Setting, succeed};

const WHOLE_IMAGE_TOWER: Locks =
    Locks { image: Some(ImageLock { unlocked_groups: 0, freezes_statistics: false }), text: None };

#[test]
fn what_is_locked_keeps_its_bits_and_the_optimizer_knows_nothing_of_it() {
    let before = train_prepared(
        &Alone::new(),
        openclip,
        1,
        |_| {},
        |model| {
            // Everything but the temperature and the bias.
            model.lock(Locks { text: Some(TextLock { unlocked_groups: 0 }), ..WHOLE_IMAGE_TOWER });
        },
    );
    assert!(before.optimizer.iter().all(|name| name.starts_with("logit_")), "{:?}", before.optimizer);
    let found = train_prepared(&Alone::new(), openclip, 1, |_| {}, |model| model.lock(WHOLE_IMAGE_TOWER));
    assert!(found.optimizer.iter().all(|name| !name.starts_with("visual.")), "{:?}", found.optimizer);
    assert!(found.optimizer.iter().any(|name| name == "text_projection.exp_avg"));
    let first = |name: &str| &before.parameters.iter().find(|(known, _)| known == name).unwrap().1;
    for (name, tensor) in &found.parameters {
        if !name.starts_with("logit_") {
            assert_eq!(tensor.equal(first(name)), name.starts_with("visual."), "`{name}`");
        }
    }
}

#[test]
fn a_run_begins_with_the_weights_of_another_and_locks_them() {
    let setting = Setting::new();
    succeed(setting.alone("first"));
    let latest = fs::read_to_string(setting.of_run("first", "checkpoints/latest")).unwrap();
    let weights = setting.of_run("first", "checkpoints").join(latest.trim());
    let tower = |name: &str| {
        let bytes = setting.newest(name, "open_clip_model.safetensors");
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let of = |name: &str| file.tensor(name).unwrap().data().to_vec();
        (of("visual.proj"), of("visual.conv1.weight"), of("text_projection"))
    };
    let tuned = |epochs: &str| {
        let mut command = setting.launched("tuned", 2);
        command.args([
            "--lock-image",
            "--lock-image-unlocked-groups",
            "1",
            "--epochs",
            epochs,
            "--pretrained",
        ]);
        command.arg(&weights);
        command
    };
    succeed(tuned("1")).assert_says(&["beginning with the weights of"]);
    let (first, second) = (tower("first"), tower("tuned"));
    assert_ne!(first.0, second.0, "the projection is trained");
    assert_eq!(first.1, second.1, "the patches are not");
    assert_ne!(first.2, second.2, "the text tower is trained");
    // The first loss of the second run is about where the first ended, and so is its temperature.
    let ended = *setting.curve("first", "tau").last().unwrap();
    let began = setting.curve("tuned", "tau")[0];
    assert!((began - ended).abs() < 0.1 * ended, "{began} {ended}");

    let mut command = setting.alone("hot");
    command.args(["--temperature", "0.5", "--epochs", "1", "--pretrained"]).arg(&weights);
    succeed(command);
    assert_eq!(setting.curve("hot", "tau")[0], 0.5);
}

#[test]
fn weights_that_cannot_be_used_are_refused_by_all_ranks_with_the_reason() {
    let setting = Setting::new();
    succeed(setting.alone("first"));
    let latest = fs::read_to_string(setting.of_run("first", "checkpoints/latest")).unwrap();
    let weights = setting.of_run("first", "checkpoints").join(latest.trim());
    let mut command = setting.launched("other", 2);
    command.args(["--model", "resnet.json", "--pretrained"]).arg(&weights);
    let refused = fastclip_testkit::run(&mut command);
    refused
        .assert_code(1)
        .assert_says(&["could not begin with the weights of `--pretrained`", "missing (`visual"]);
}

#[test]
fn locks_that_contradict_each_other_are_refused() {
    let setting = Setting::new();
    for (flags, words) in [
        (&["--lock-image-unlocked-groups", "1"][..], "`lock_image` is not"),
        (
            &["--model", "resnet.json", "--lock-image", "--lock-image-unlocked-groups", "1"],
            "a ResNet can be locked as a whole only",
        ),
        (&["--patch-dropout", "1"], "it must lie in [0, 1)"),
        (&["--model", "resnet.json", "--patch-dropout", "0.5"], "a ResNet has no patches"),
    ] {
        let mut command = setting.alone("refused");
        command.args(flags);
        fastclip_testkit::run(&mut command).assert_code(1).assert_says(&[words]);
    }
}

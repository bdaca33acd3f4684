//! Which parameters a locked model trains.

use std::collections::{BTreeSet, HashMap};

use fastclip_testkit::Python;
use fastclip_trainer::model::{Clip, ImageLock, Locks, ModelConfig, TextLock};
use tch::Device;

use super::{REFERENCE, TINY_RESNET, TINY_VIT};

type Trained = HashMap<String, Vec<String>>;

#[test]
fn locked_models_train_what_those_of_open_clip_train() {
    for json in [TINY_VIT, TINY_RESNET] {
        let printed = Python::with_torch().run(REFERENCE, &["locked", "", "none", json]);
        let expected: Trained = serde_json::from_str(&printed).unwrap();
        assert!(expected.len() >= 12);
        let config = ModelConfig::from_json("test", json).unwrap();
        for (ways, expected) in expected {
            let [image, text]: [Option<u64>; 2] = serde_json::from_str(&ways).unwrap();
            let mut model = Clip::new(&config, Device::Cpu, 1);
            model.lock(Locks {
                image: image.map(|unlocked_groups| ImageLock { unlocked_groups, freezes_statistics: false }),
                text: text.map(|unlocked_groups| TextLock { unlocked_groups }),
            });
            let trained: BTreeSet<&str> = model.parameters().iter().map(|p| p.name.as_str()).collect();
            let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
            assert_eq!(trained, expected, "image and text unlocked by {ways}");
            assert!(model.parameters().iter().all(|parameter| parameter.tensor.requires_grad()));
            assert!(model.parameters().locked().iter().all(|parameter| !parameter.tensor.requires_grad()));
        }
    }
}

use super::*;
use fastclip_torch_ext::FusedLayers;

fn layout(name: &str) -> Vec<ParameterSpec> {
    Clip::layout(&ModelConfig::load(name).unwrap())
}

fn numel(specs: &[ParameterSpec]) -> i64 {
    specs.iter().map(ParameterSpec::numel).sum()
}

fn toy() -> Clip {
    Clip::with_kind(&ModelConfig::load("toy").unwrap(), Device::Cpu, Kind::Double, 7)
}

fn captions() -> Tensor {
    let rows = [vec![49406, 320, 49407, 0, 0, 0], vec![49406, 320, 1125, 539, 49407, 0]];
    Tensor::from_slice2(&rows)
}

fn largest_difference(left: &Tensor, right: &Tensor) -> f64 {
    (left - right).abs().max().double_value(&[])
}

#[test]
fn vit_b_32_has_the_state_dict_of_openclip() {
    let specs = layout("ViT-B-32");
    let listing: String = specs.iter().map(|spec| format!("{} {:?}\n", spec.name, spec.shape)).collect();
    assert_eq!(listing, include_str!("testdata/ViT-B-32.state_dict.txt"));
    assert_eq!(specs.len(), 302);
    assert_eq!(numel(&specs), 151_277_313);
    let visual: Vec<_> = specs.into_iter().filter(|spec| spec.name.starts_with("visual.")).collect();
    assert_eq!(numel(&visual), 87_849_216);
}

#[test]
fn vit_b_16_has_the_size_of_openclip() {
    assert_eq!(numel(&layout("ViT-B-16")), 149_620_737);
}

#[test]
fn initial_distributions_are_those_of_openclip() {
    let specs = layout("ViT-B-32");
    let init = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap().init;
    assert_eq!(init("logit_scale"), Init::Constant((1.0f64 / 0.07).ln()));
    assert_eq!(init("visual.proj"), Init::Normal(768f64.powf(-0.5)));
    assert_eq!(
        init("visual.transformer.resblocks.3.attn.in_proj_weight"),
        Init::Uniform((6.0 / 3072.0f64).sqrt())
    );
    assert_eq!(init("visual.transformer.resblocks.3.mlp.c_proj.bias"), Init::Uniform(1.0 / 3072f64.sqrt()));
    assert_eq!(init("transformer.resblocks.3.mlp.c_fc.weight"), Init::Normal(1.0 / 1024f64.sqrt()));
    assert_eq!(
        init("transformer.resblocks.3.attn.out_proj.weight"),
        Init::Normal(512f64.powf(-0.5) * 24f64.powf(-0.5))
    );
    assert_eq!(init("token_embedding.weight"), Init::Normal(0.02));
}

#[test]
fn features_have_unit_length() {
    let model = toy();
    let images = Tensor::arange(2 * 3 * 48 * 48, (Kind::Int64, Device::Cpu)).remainder(251);
    let images = images.to_kind(Kind::Uint8).view([2, 3, 48, 48]);
    for features in [model.encode_image(&images, Pass::Evaluation), model.encode_text(&captions())] {
        assert_eq!(features.size(), [2, 96]);
        let lengths = features.norm_scalaropt_dim(2, [1i64], false);
        assert!(largest_difference(&lengths, &lengths.ones_like()) < 1e-12);
    }
}

#[test]
fn trimming_padding_changes_no_feature() {
    let model = toy();
    let trimmed = model.encode_text(&captions());
    let whole = model.encode_trimmed_text(&captions());
    assert!(largest_difference(&trimmed, &whole) < 1e-14);
    let alone = model.encode_text(&captions().narrow(0, 0, 1));
    assert!(largest_difference(&trimmed.narrow(0, 0, 1), &alone) < 1e-14);
}

#[test]
fn bytes_are_normalised_with_the_channel_statistics() {
    let model = toy();
    let bytes = Tensor::full([1, 3, 48, 48], 51, (Kind::Uint8, Device::Cpu));
    let statistic = |values: [f64; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    let pixels = (bytes.to_kind(Kind::Double) / 255.0 - statistic(IMAGE_MEAN)) / statistic(IMAGE_STD);
    assert!(
        largest_difference(
            &model.encode_image(&bytes, Pass::Evaluation),
            &model.encode_image(&pixels, Pass::Evaluation)
        ) < 1e-12
    );
}

#[test]
fn every_parameter_but_the_scale_receives_a_gradient() {
    let model = toy();
    let images = Tensor::full([2, 3, 48, 48], 51, (Kind::Uint8, Device::Cpu));
    let sum = (model.encode_image(&images, Pass::Evaluation) + model.encode_text(&captions()))
        .cumsum(1, Kind::Double)
        .sum(None);
    sum.backward();
    for Parameter { name, tensor, .. } in model.parameters() {
        assert_eq!(tensor.grad().defined(), name != LOG_SCALE, "{name}");
    }
}

#[test]
fn a_repeated_pass_gives_the_same_and_gathers_nothing() {
    let text = r#"{
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": null},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1}
    }"#;
    let config = ModelConfig::from_json("test", text).unwrap();
    let model = Clip::with_kind(&config, Device::Cpu, Kind::Double, 7);
    let images = Tensor::arange(3 * 3 * 32 * 32, (Kind::Int64, Device::Cpu)).remainder(251);
    let images = images.to_kind(Kind::Uint8).view([3, 3, 32, 32]);
    let gathered = || -> Vec<Tensor> {
        model.parameters().buffers().iter().map(|buffer| buffer.tensor.copy()).collect()
    };
    let new = gathered();
    let before = model.encode_image(&images, Pass::Evaluation);
    let first = model.encode_image(&images, Pass::Training);
    let after_first = gathered();
    assert!(new.iter().zip(&after_first).all(|(new, after)| !new.equal(after)));
    assert!(first.equal(&model.encode_image(&images, Pass::Repetition)));
    assert!(after_first.iter().zip(gathered()).all(|(first, repeated)| first.equal(&repeated)));
    assert!(largest_difference(&before, &model.encode_image(&images, Pass::Evaluation)) > 1e-3);
}

#[test]
fn quick_gelu_is_an_option_of_both_towers() {
    let mut config = ModelConfig::load("toy").unwrap();
    config.quick_gelu = true;
    let quick = Clip::with_kind(&config, Device::Cpu, Kind::Double, 7);
    let images = Tensor::full([1, 3, 48, 48], 51, (Kind::Uint8, Device::Cpu));
    assert!(
        largest_difference(
            &quick.encode_image(&images, Pass::Evaluation),
            &toy().encode_image(&images, Pass::Evaluation)
        ) > 1e-6
    );
    assert!(largest_difference(&quick.encode_text(&captions()), &toy().encode_text(&captions())) > 1e-6);
}

#[test]
fn rounded_towers_stay_close_to_exact_ones() {
    let resnet = r#"{
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": null},
        "text_cfg": {"width": 16, "heads": 2, "layers": 1}
    }"#;
    for config in [ModelConfig::load("toy").unwrap(), ModelConfig::from_json("test", resnet).unwrap()] {
        let side = config.vision_cfg.image_size;
        let images = Tensor::arange(4 * 3 * side * side, (Kind::Int64, Device::Cpu)).remainder(251);
        let images = images.to_kind(Kind::Uint8).view([4, 3, side, side]);
        let exact = Clip::new(&config, Device::Cpu, 7);
        for format in [Format::Planes, Format::ChannelsLast] {
            let rounded = Clip::mixed_in(&config, Device::Cpu, 7, format);
            for (exact, rounded) in [
                (exact.encode_image(&images, Pass::Training), rounded.encode_image(&images, Pass::Training)),
                (exact.encode_text(&captions()), rounded.encode_text(&captions())),
            ] {
                assert_eq!(rounded.kind(), Kind::Float);
                let difference = largest_difference(&exact, &rounded);
                assert!(difference > 0.0 && difference < 0.02, "{format:?}: {difference}");
            }
            for parameter in rounded.parameters().state() {
                assert_ne!(parameter.tensor.kind(), Kind::BFloat16, "{} is kept as it is", parameter.name);
            }
        }
    }
}

#[test]
fn parameters_that_changed_count_when_they_have_been_rounded_anew() {
    let model = Clip::mixed(&ModelConfig::load("toy").unwrap(), Device::Cpu, 7);
    let before = model.encode_text(&captions());
    no_grad(|| {
        let _ = model.parameters().get("text_projection").unwrap().shallow_clone().neg_();
    });
    assert!(before.equal(&model.encode_text(&captions())));
    model.round();
    assert!(largest_difference(&(-before), &model.encode_text(&captions())) == 0.0);
}

#[test]
fn fused_layers_change_no_feature_and_no_gradient() {
    let images = Tensor::arange(2 * 3 * 48 * 48, (Kind::Int64, Device::Cpu)).remainder(251);
    let images = images.to_kind(Kind::Uint8).view([2, 3, 48, 48]);
    let results = |config: &ModelConfig, is_fused: bool, recomputes: bool| -> Vec<Tensor> {
        let mut model = Clip::with_kind(config, Device::Cpu, Kind::Double, 7);
        model.set_grad_checkpointing(recomputes);
        let fused = is_fused.then(FusedLayers::of_libtorch);
        model.transformers().for_each(|blocks| blocks.set_fused(fused));
        let features = [model.encode_image(&images, Pass::Training), model.encode_text(&captions())];
        let sum = features.iter().map(|features| features.cumsum(1, Kind::Double).sum(None));
        sum.reduce(|sum, term| sum + term).unwrap().backward();
        let gradients = model.parameters().iter().map(|parameter| parameter.tensor.grad());
        features.into_iter().chain(gradients.filter(Tensor::defined)).collect()
    };
    for (quick_gelu, layer_scale, recomputes) in
        [(false, None, false), (false, None, true), (true, None, false), (false, Some(0.5), false)]
    {
        let mut config = ModelConfig::load("toy").unwrap();
        config.quick_gelu = quick_gelu;
        config.vision_cfg.ls_init_value = layer_scale;
        config.text_cfg.ls_init_value = layer_scale;
        let expected = results(&config, false, recomputes);
        let found = results(&config, true, recomputes);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let difference = largest_difference(found, expected);
            assert!(difference <= 1e-12 * expected.abs().max().double_value(&[]), "{difference:e}");
        }
    }
}

#[test]
fn pixels_that_fill_no_patch_are_left_out() {
    let mut config = ModelConfig::load("toy").unwrap();
    config.vision_cfg.image_size = 50;
    let model = Clip::with_kind(&config, Device::Cpu, Kind::Double, 7);
    let whole = Tensor::randn([2, 3, 50, 50], (Kind::Double, Device::Cpu));
    let cut = whole.narrow(2, 0, 48).narrow(3, 0, 48);
    let features = |pixels: &Tensor| model.encode_image(pixels, Pass::Evaluation);
    assert!(features(&whole).equal(&features(&cut)));
}

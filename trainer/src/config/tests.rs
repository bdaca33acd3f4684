use std::path::Path;

use super::*;
use crate::objective::GammaDecay;

const MACHINE: Machine = Machine { processors_per_rank: NonZeroUsize::new(2).expect("2 is not 0") };

fn parse(text: &str) -> Result<RunOptions, ConfigError> {
    RunOptions::parse(Path::new("run.toml"), text)
}

fn resolve(text: &str) -> Result<RunConfig, ConfigError> {
    RunConfig::resolve(parse(&format!("train_data = \"data/train\"\n{text}")).unwrap(), MACHINE)
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_likely_meaning() {
    let error = parse("batchsize = 3").unwrap_err();
    assert_eq!(error.to_string(), "`run.toml` sets `batchsize`, which is no setting of a run");
    assert_eq!(error.hint().unwrap(), "did you mean `batch_size`?");
    assert_eq!(parse("lr-tau = 1.0").unwrap_err().hint().unwrap(), "did you mean `lr_tau`?");
    assert!(parse("zebra_crossing = 3").unwrap_err().hint().unwrap().contains("--help"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_place() {
    let error = parse("lr = 1.0\nepochs = \"many\"").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().contains("run.toml") && source.contains("line 2"), "{error}: {source}");
}

#[test]
fn flags_lie_over_the_file_and_defaults_under_both() {
    let file = parse("lr = 0.25\nepochs = 7").unwrap();
    let flags = RunOptions { lr: Some(0.5), ..RunOptions::default() };
    let settings = flags.over(file).with_defaults();
    assert_eq!((settings.lr, settings.epochs, settings.wd), (0.5, 7, 0.2));
}

#[test]
fn what_follows_from_other_settings_is_filled_in() {
    let config = resolve("lr = 1e-3\nepochs = 5").unwrap();
    assert_eq!(config.rates.lr_tau, 1e-3);
    assert_eq!(config.rates.lr_tau_scheduler, TemperatureSchedule::StepThresh);
    assert_eq!(config.settings.threads, Some(MACHINE.processors_per_rank));
    assert_eq!(config.run_dir, Path::new("./logs/ViT-B-32-fastclip-v3-seed0"));
    assert_eq!(config.settings.gamma_decay_epochs, Some(3));
    assert_eq!(config.settings.gamma_schedule, Some(GammaDecay::Cosine));
    assert_eq!(config.objective.initial_temperature, 0.07);
    for (objective, temperature, scheduler, decay) in [
        ("openclip", 0.07, TemperatureSchedule::Cosine, GammaDecay::Cosine),
        ("siglip", 0.1, TemperatureSchedule::Cosine, GammaDecay::Cosine),
        ("sogclr", 0.07, TemperatureSchedule::Cosine, GammaDecay::Constant),
        ("fastclip-v2", 0.07, TemperatureSchedule::Const, GammaDecay::Cosine),
    ] {
        let config = resolve(&format!("objective = \"{objective}\"")).unwrap();
        assert_eq!(config.objective.initial_temperature, temperature, "{objective}");
        assert_eq!(config.rates.lr_tau_scheduler, scheduler, "{objective}");
        assert_eq!(config.settings.gamma_schedule, Some(decay), "{objective}");
        assert_eq!(config.model.init_logit_bias.is_some(), objective == "siglip");
    }
}

#[test]
fn gamma_may_be_left_to_the_authors_advice() {
    let config = resolve("gamma = \"auto\"\nepochs = 30").unwrap();
    assert_eq!(config.settings.gamma_decay_epochs, Some(30));
    let by_hand = resolve("gamma = 0.3529\nepochs = 30\ngamma_decay_epochs = 30").unwrap();
    assert_ne!(config.objective, by_hand.objective, "the advice has more digits");
    let again = RunConfig::resolve(parse(&config.to_toml()).unwrap(), MACHINE).unwrap();
    assert_eq!(again.objective, config.objective);
    assert_eq!("auto".parse(), Ok(GammaChoice::Auto(Auto::Auto)));
    assert!("often".parse::<GammaChoice>().is_err());
}

#[test]
fn settings_that_an_objective_does_not_have_are_refused_with_the_alternative() {
    for (text, expected) in [
        (
            "objective = \"sogclr\"\ngamma_schedule = \"cosine\"",
            "`gamma_schedule` is cosine, but sogclr has a constant gamma; fastclip-v1 is the same with a cosine",
        ),
        (
            "objective = \"fastclip-v2\"\nlr_tau_scheduler = \"cosine\"",
            "`lr_tau_scheduler` is cosine, but the temperatures of fastclip-v2 have a constant rate, `const`",
        ),
    ] {
        assert_eq!(resolve(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_resolved_config_can_be_fed_back() {
    let text =
        "model = \"toy\"\nimage_size = 64\nlr_tau = -1.0\nval_data = \"data/val\"\nresume = \"latest\"";
    let config = resolve(text).unwrap();
    let again = RunConfig::resolve(parse(&config.to_toml()).unwrap(), MACHINE).unwrap();
    assert_eq!(again, config);
}

#[test]
fn a_rank_has_at_least_one_micro_batch() {
    let error = parse("accum_freq = 0").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("nonzero") && source.contains("accum_freq"), "{source}");
    assert_eq!(resolve("accum_freq = 4").unwrap().data.accum_freq.get(), 4);
    assert_eq!(resolve("bucket_mib = 2").unwrap().bucket_bytes.get(), 2 << 20);
}

#[test]
fn values_that_no_run_can_have_are_refused_by_key() {
    for (text, expected) in [
        ("gamma = 0.0", "`gamma` is 0, but it must lie in (0, 1]"),
        ("gamma = nan", "`gamma` is NaN, but it must lie in (0, 1]"),
        ("temperature = 1.5", "`temperature` is 1.5, but temperatures lie between 0.01 and 1"),
        ("lr = 0.1\nlr_min = 0.2", "`lr_min` is 0.2, but `lr` is 0.1, which it must not exceed"),
        (
            "image_size = 40",
            "`image_size` is 40, but it must be a multiple of the model's patch size, 32, up to 4096",
        ),
        ("beta2 = 1.0", "`beta2` is 1, but it must lie in [0, 1)"),
        ("name = \"a/b\"", "`name` is `a/b`, but it must be usable as the name of a folder"),
    ] {
        assert_eq!(resolve(text).unwrap_err().to_string(), expected);
    }
    let missing = RunConfig::resolve(RunOptions::default(), MACHINE).unwrap_err();
    assert_eq!(missing.to_string(), "`train_data` is not set");
    assert!(missing.hint().unwrap().contains("--train-data"));
}

#[test]
fn every_setting_that_may_change_exists() {
    for key in FREE_TO_CHANGE {
        assert!(RunOptions::KEYS.contains(&key), "{key}");
    }
}

#[test]
fn identity_tells_what_is_trained_and_not_where() {
    let identity = |text| resolve(text).unwrap().identity();
    assert_eq!(identity(""), identity("workers = 9\nlogs = \"elsewhere\"\nval_frequency = 3"));
    for text in ["lr = 1e-3", "model = \"toy\"", "seed = 1", "force_quick_gelu = true", "image_size = 64"] {
        assert_ne!(identity(""), identity(text), "{text}");
    }
}

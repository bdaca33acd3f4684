use std::path::Path;

use fastclip_loader::{CaptionSource, Captions};

use super::*;
use crate::objective::GammaDecay;
use crate::optimizer::{AdamOptions, Rule};
use crate::schedule::{Decay, LearningRate, Schedule};

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
fn every_recipe_of_the_repository_resolves_and_survives_being_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let folders = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    let mut found = Vec::new();
    for file in files.map(|entry| entry.unwrap().path()) {
        let config = resolve(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let again = RunConfig::resolve(parse(&config.to_toml()).unwrap(), MACHINE).unwrap();
        assert_eq!(again, config, "{}", file.display());
        let adam = match config.optimizer.rule {
            Rule::AdamW(AdamOptions { beta2, eps, .. }) => (beta2, eps),
            rule => panic!("{}: {rule:?}", file.display()),
        };
        let is_resnet = config.settings.model.starts_with("RN");
        assert_eq!(adam, if is_resnet { (0.999, 1e-8) } else { (0.98, 1e-6) }, "{}", file.display());
        found.push(file);
    }
    assert!(found.len() >= 14, "{found:?}");
}

#[test]
fn captions_are_sources_by_rule_or_by_weight() {
    let captions = |text: &str| resolve(text).map(|config| config.data.captions);
    let (txt, alt) = (CaptionSource::member("txt"), CaptionSource::json("alt"));
    assert_eq!(captions("").unwrap(), Captions::First(vec![txt.clone()]));
    let both = vec![alt.clone(), txt.clone()];
    assert_eq!(captions("captions = \"json:alt, txt\"").unwrap(), Captions::First(both.clone()));
    let random = "captions = \"json:alt,txt\"\ncaption_choice = \"random\"";
    assert_eq!(captions(random).unwrap(), Captions::Random(both));
    let weighted = Captions::Weighted(vec![(txt, 2.0), (alt, 0.5)]);
    assert_eq!(captions("captions = \"txt=2,json:alt=0.5\"").unwrap(), weighted);
    for (text, rule) in [
        ("txt=2,json:alt", "either all sources have weights or none"),
        ("txt=-1", "weights must be numbers above 0"),
        ("txt,,cap", "separated by commas"),
    ] {
        let error = captions(&format!("captions = \"{text}\"")).unwrap_err().to_string();
        assert!(error.contains(rule) && error.contains(text), "{error}");
    }
}

#[test]
fn factors_are_joined_as_in_open_clip() {
    let factors = |text: &str| resolve(text).map(|config| config.data.upsampling_factors);
    assert_eq!(factors("").unwrap(), None);
    assert_eq!(factors("train_data_upsampling_factors = \"1::2.5\"").unwrap(), Some(vec![1.0, 2.5]));
    let error = factors("train_data_upsampling_factors = \"1:2\"").unwrap_err().to_string();
    assert!(error.contains("`1:2`") && error.contains("one for each dataset"), "{error}");
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
fn rules_of_steps_come_with_their_settings_and_defaults() {
    let rule = |text| resolve(text).unwrap().optimizer.rule;
    let adam = AdamOptions { beta1: 0.9, beta2: 0.98, eps: 1e-6 };
    assert_eq!(rule(""), Rule::AdamW(adam));
    assert_eq!(rule("optimizer = \"lamb\"\neps = 1e-8"), Rule::Lamb(AdamOptions { eps: 1e-8, ..adam }));
    assert_eq!(rule("optimizer = \"lion\""), Rule::Lion { beta1: 0.9, beta2: 0.99 });
    assert_eq!(rule("optimizer = \"lion\"\nbeta2 = 0.98"), Rule::Lion { beta1: 0.9, beta2: 0.98 });
    assert_eq!(rule("optimizer = \"sgd\""), Rule::Sgd { momentum: 0.9, is_nesterov: false });
    assert_eq!(rule("optimizer = \"sgd\"\nnesterov = true"), Rule::Sgd { momentum: 0.9, is_nesterov: true });
    let options = resolve("wd = 0.3\ngrad_clip_norm = 2.0").unwrap().optimizer;
    assert_eq!((options.weight_decay, options.max_grad_norm), (0.3, Some(2.0)));
}

#[test]
fn schedules_are_chosen_for_the_model_and_the_temperature_apart() {
    let schedule = |text: &str| {
        let text = format!("lr = 1e-3\nlr_min = 1e-5\nlr_tau = 2e-4\nepochs = 10\nwarmup = 7\n{text}");
        resolve(&text).unwrap().rates.schedule(20)
    };
    let cosine = Decay::Cosine { floor: 1e-5 };
    let rate = |peak, decay| LearningRate { peak, warmup_steps: 7, total_steps: 200, decay };
    let threshold = TauThreshold { tau: 0.03, factor: 1.0 / 3.0 };
    let default = Schedule {
        model: rate(1e-3, cosine),
        temperature: LearningRate::constant(2e-4),
        threshold: Some(threshold),
    };
    assert_eq!(schedule(""), default);
    assert_eq!(
        schedule("lr_tau_threshold = 0.02\nlr_tau_factor = 0.5").threshold,
        Some(TauThreshold { tau: 0.02, factor: 0.5 })
    );
    assert_eq!(
        schedule("lr_scheduler = \"const\"\nlr_tau_scheduler = \"cosine\""),
        Schedule { model: rate(1e-3, Decay::None), temperature: rate(2e-4, cosine), threshold: None }
    );
    let cooldown = Decay::Cooldown { num_steps: 80, end: 1e-6, power: 2.0 };
    let text = "epochs_cooldown = 4\nlr_cooldown_end = 1e-6\nlr_cooldown_power = 2.0";
    assert_eq!(
        schedule(&format!("{text}\nlr_scheduler = \"const-cooldown\"\nlr_tau_scheduler = \"const\"")),
        Schedule { model: rate(1e-3, cooldown), temperature: LearningRate::constant(2e-4), threshold: None }
    );
    assert_eq!(
        schedule(&format!("{text}\nlr_tau_scheduler = \"const-cooldown\"")),
        Schedule { model: rate(1e-3, cosine), temperature: rate(2e-4, cooldown), threshold: None }
    );
}

#[test]
fn choices_have_the_same_names_in_files_and_flags() {
    fn check<T: clap::ValueEnum + serde::Serialize>() {
        for choice in T::value_variants() {
            let flag = choice.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(choice).unwrap(), flag.get_name());
        }
    }
    check::<OptimizerChoice>();
    check::<ModelSchedule>();
    check::<TemperatureSchedule>();
}

#[test]
fn a_resolved_config_can_be_fed_back() {
    let text =
        "model = \"toy\"\nimage_size = 64\nlr_tau = -1.0\nval_data = \"data/val\"\nresume = \"latest\"";
    let config = resolve(text).unwrap();
    let again = RunConfig::resolve(parse(&config.to_toml()).unwrap(), MACHINE).unwrap();
    assert_eq!(again, config);
    assert_eq!(config.settings.beta2, Some(0.98));
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
        ("image_size = 40", "`image_size` is 40, but it must be a multiple of 32 for this model, up to 4096"),
        ("beta2 = 1.0", "`beta2` is 1, but it must lie in [0, 1)"),
        ("optimizer = \"lion\"\nbeta2 = 1.0", "`beta2` is 1, but it must lie in [0, 1)"),
        ("momentum = 1.0", "`momentum` is 1, but it must lie in [0, 1)"),
        ("nesterov = true", "`nesterov` is true, but `optimizer` is adamw, only sgd has it"),
        (
            "optimizer = \"sgd\"\nnesterov = true\nmomentum = 0.0",
            "`nesterov` is true, but `momentum` is 0, and there is nothing to look ahead along",
        ),
        ("grad_clip_norm = 0.0", "`grad_clip_norm` is 0, but it must be above 0"),
        (
            "lr_tau = 1e-5\nlr_min = 2e-5\nlr_tau_scheduler = \"cosine\"",
            "`lr_min` is 0.00002, but `lr_tau` is 0.00001, which it must not exceed",
        ),
        ("lr_tau_threshold = 0.0", "`lr_tau_threshold` is 0, but it must lie in (0, 1]"),
        ("lr_tau_factor = -1.0", "`lr_tau_factor` is -1, but it must lie in [0, 1]"),
        (
            "lr_scheduler = \"const-cooldown\"",
            "`epochs_cooldown` is 0, but `lr_scheduler` is const-cooldown, which needs at least one",
        ),
        (
            "lr_tau_scheduler = \"const-cooldown\"",
            "`epochs_cooldown` is 0, but `lr_tau_scheduler` is const-cooldown, which needs at least one",
        ),
        (
            "epochs_cooldown = 2",
            "`epochs_cooldown` is 2, but neither `lr_scheduler` nor `lr_tau_scheduler` is const-cooldown",
        ),
        (
            "lr_scheduler = \"const-cooldown\"\nepochs_cooldown = 33",
            "`epochs_cooldown` is 33, but `epochs` is 32: the cooldown is a part of them",
        ),
        (
            "lr_scheduler = \"const-cooldown\"\nepochs_cooldown = 3\nlr_cooldown_end = 0.1",
            "`lr_cooldown_end` is 0.1, but `lr` is 0.0005, which it must not exceed",
        ),
        ("lr_cooldown_power = 0.0", "`lr_cooldown_power` is 0, but it must be above 0"),
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

#[test]
fn fewer_ranks_share_the_same_global_batch_in_the_same_memory() {
    let number = |number| NonZeroUsize::new(number).unwrap();
    let settings = resolve("batch_size = 8\naccum_freq = 3").unwrap().settings;
    let on = |ranks| {
        let settings = settings.on_ranks(number(4), number(ranks))?;
        Some((settings.batch_size.get(), settings.accum_freq.get()))
    };
    assert_eq!(on(4), Some((8, 3)));
    assert_eq!(on(3), Some((8, 4)));
    assert_eq!(on(2), Some((8, 6)));
    assert_eq!(on(1), Some((8, 12)));
    assert_eq!(on(5), None);
}

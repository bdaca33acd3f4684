//! The result of an evaluation, against the definition and over numbers of ranks.

use std::num::{NonZeroU64, NonZeroUsize};
use std::thread;
use std::time::Duration;

use fastclip_loader::{CaptionSource, Captions, Loader, Order, Tail, Tokenizer, Transform};
use fastclip_schemas::Position;
use fastclip_shards::Dataset;
use fastclip_testkit::{Pair, free_port};
use fastclip_trainer::distributed::{Agreement, Alone, ConnectOptions, Environment, connect};
use fastclip_trainer::eval::{EvalError, EvalOptions, EvalReport, evaluate};
use fastclip_trainer::model::Pass;
use tch::{Device, Tensor};

use crate::pairs::{NUM_PAIRS, dataset, dataset_with_captions_in, model, options};

/// Evaluates on so many ranks over Gloo, each in a thread with a model of its own.
fn on_ranks(world_size: usize, dataset: &Dataset, options: &EvalOptions) -> Vec<EvalReport> {
    let port = free_port();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                scope.spawn(move || {
                    let environment = Environment::detect(|name| match name {
                        "RANK" | "LOCAL_RANK" => Some(rank.to_string()),
                        "WORLD_SIZE" => Some(world_size.to_string()),
                        "MASTER_ADDR" => Some("127.0.0.1".to_owned()),
                        "MASTER_PORT" => Some(port.to_string()),
                        _ => None,
                    });
                    let together = ConnectOptions {
                        timeout: Duration::from_secs(60),
                        agreement: Agreement::default(),
                        device: Device::Cpu,
                    };
                    let comm = connect(&environment.unwrap(), &together).unwrap();
                    evaluate(&model(), dataset, &*comm, options).unwrap()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Scores as plain loops over plain numbers have them.
struct Plain {
    zero_shot_top1: f64,
    image_to_text: [f64; 3],
    text_to_image: [f64; 3],
}

fn plain(dataset: &Dataset) -> Plain {
    let model = model();
    let all = NonZeroUsize::new(NUM_PAIRS as usize).unwrap();
    let loader = Loader::builder(dataset.clone())
        .global_batch(all)
        .order(Order::Sequential)
        .tail(Tail::Keep)
        .transform(Transform::eval(32))
        .context_length(24)
        .build()
        .unwrap();
    let batch = loader.stream(Position::default(), Position::start_of(1)).unwrap().next().unwrap().unwrap();
    let num = i64::from(NUM_PAIRS);
    let rows = |tensor: &Tensor| Vec::<Vec<f64>>::try_from(&tensor.to_kind(tch::Kind::Double)).unwrap();
    let _guard = tch::no_grad_guard();
    let images = rows(
        &model.encode_image(&Tensor::from_slice(batch.images()).view([num, 3, 32, 32]), Pass::Evaluation),
    );
    let texts = rows(&model.encode_text(&Tensor::from_slice(batch.tokens()).view([num, 24])));

    let tokenizer = Tokenizer::clip();
    let classes: Vec<Vec<f64>> = Pair::CLASSES
        .iter()
        .map(|name| {
            let mut mean = vec![0.0; 32];
            for prompt in [format!("a picture of a {name}"), format!("a {name}")] {
                let mut tokens = vec![0; 24];
                tokenizer.encode_into(&prompt, &mut tokens);
                let row = rows(&model.encode_text(&Tensor::from_slice(&tokens).view([1, 24]))).remove(0);
                mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / 2.0);
            }
            mean // not of unit length, which the comparison must then make up for
        })
        .collect();

    let recall = |queries: &[Vec<f64>], candidates: &[Vec<f64>]| {
        let right: Vec<usize> = (0..queries.len()).collect();
        [1, 5, 10].map(|k| within(queries, candidates, &right, k))
    };
    let class_of: Vec<usize> = batch.classes().iter().map(|&class| class as usize).collect();
    Plain {
        zero_shot_top1: within(&images, &classes, &class_of, 1),
        image_to_text: recall(&images, &texts),
        text_to_image: recall(&texts, &images),
    }
}

/// Fraction of queries whose right candidate is among the best `k`; those that tie share their places.
fn within(queries: &[Vec<f64>], candidates: &[Vec<f64>], right: &[usize], k: usize) -> f64 {
    let score = |query: &[f64], candidate: &[f64]| {
        let length = candidate.iter().map(|value| value * value).sum::<f64>().sqrt();
        query.iter().zip(candidate).map(|(a, b)| a * b).sum::<f64>() / length
    };
    let found = queries.iter().zip(right).map(|(query, &right)| {
        let own = score(query, &candidates[right]);
        let scores = candidates.iter().map(|candidate| score(query, candidate) - own);
        // Equal captions differ by rounding here; different ones by far more.
        let ahead = scores.clone().filter(|&lead| lead > 1e-6).count();
        let level = scores.filter(|lead| lead.abs() <= 1e-6).count();
        ((k as f64 - ahead as f64) / level as f64).clamp(0.0, 1.0)
    });
    found.sum::<f64>() / queries.len() as f64
}

#[test]
fn scores_are_those_of_plain_loops_over_all_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let report = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap();
    let plain = plain(&dataset);

    let zero_shot = report.zero_shot.unwrap();
    assert_eq!((zero_shot.num_classes, zero_shot.num_images), (4, u64::from(NUM_PAIRS)));
    assert_eq!((zero_shot.chance, zero_shot.top5), (0.25, 1.0));
    let near =
        |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    near(zero_shot.top1, plain.zero_shot_top1);
    assert_eq!(report.retrieval.pool, u64::from(NUM_PAIRS));
    for (recall, plain) in [
        (report.retrieval.image_to_text, plain.image_to_text),
        (report.retrieval.text_to_image, plain.text_to_image),
    ] {
        [recall.r1, recall.r5, recall.r10].into_iter().zip(plain).for_each(|(a, b)| near(a, b));
    }
}

#[test]
fn the_result_is_the_same_on_every_rank_and_for_every_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let alone = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap();
    assert!(alone.predictions.is_some());
    // Nine ranks with eight samples each are more than the dataset fills: one has nothing at all.
    for world_size in [2, 4, 9] {
        let reports = on_ranks(world_size, &dataset, &options());
        assert_eq!(reports[0], alone, "{world_size} ranks");
        for report in &reports[1..] {
            assert_eq!(report, &EvalReport { predictions: None, ..alone.clone() }, "{world_size} ranks");
        }
    }
}

#[test]
fn a_pool_that_is_limited_holds_the_first_pairs_of_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let whole = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap();
    let options = EvalOptions { retrieval_pool: NonZeroU64::new(13), num_predictions: 48, ..options() };
    let reports = on_ranks(3, &dataset, &options);
    assert_eq!(reports[0].retrieval.pool, 13);
    assert_eq!(reports[0].zero_shot, whole.zero_shot, "classes are judged on all images");
    let predictions = reports[0].predictions.as_ref().unwrap();
    let keys: Vec<_> = predictions.images.iter().map(|image| image.key.clone()).collect();
    assert_eq!(keys, (0..13).map(|position| format!("00000{position:04}")).collect::<Vec<_>>());
}

#[test]
fn predictions_agree_with_the_scores() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    let options = EvalOptions { num_predictions: NUM_PAIRS as usize, ..options() };
    let report = evaluate(&model(), &dataset, &Alone::new(), &options).unwrap();
    let predictions = report.predictions.unwrap();
    assert_eq!(predictions.images.len(), NUM_PAIRS as usize);

    let num = predictions.images.len() as f64;
    let mean_rank = predictions.images.iter().map(|image| image.caption_rank).sum::<f64>() / num;
    assert!((mean_rank - report.retrieval.image_to_text.mean_rank).abs() < 1e-9);
    let right =
        predictions.images.iter().filter(|image| image.class.as_ref() == Some(&image.classes[0].name));
    assert!((right.count() as f64 / num - report.zero_shot.unwrap().top1).abs() < 1e-9);
    for image in &predictions.images {
        assert!(image.captions.is_sorted_by(|a, b| a.score >= b.score), "{image:?}");
        let own = image.captions.iter().position(|ranked| ranked.sample_id == image.sample_id);
        if let Some(own) = own {
            assert!((image.caption_rank - 1.0 - own as f64).abs() <= 1.0, "{image:?}");
        } else {
            assert!(image.caption_rank >= 5.0, "{image:?}");
        }
    }
}

#[test]
fn captions_are_encoded_and_shown_from_where_they_are_said_to_be() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let expected = evaluate(&model(), &dataset(&folders[0]), &Alone::new(), &options()).unwrap();
    let elsewhere = dataset_with_captions_in("alt", &folders[1]);
    let mut options = options();
    options.encode.captions = Captions::First(vec![CaptionSource::member("alt")]);
    let found = evaluate(&model(), &elsewhere, &Alone::new(), &options).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_class_number_without_a_name_is_refused_on_all_ranks_alike() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    std::fs::write(folder.path().join("classnames.txt"), "red slope\ngreen slope\nblue slope\n").unwrap();
    let error = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap_err();
    assert_eq!(error.to_string(), "sample 3 has class 3, `classnames.txt` names 3 classes from 0");
}

#[test]
fn a_dataset_without_class_names_has_retrieval_only() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(&folder);
    std::fs::remove_file(folder.path().join("classnames.txt")).unwrap();
    let error = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap_err();
    assert!(matches!(error, EvalError::SideFile { file: "classnames.txt", .. }), "{error}");
    std::fs::remove_file(folder.path().join("zeroshot_classification_templates.txt")).unwrap();
    let report = evaluate(&model(), &dataset, &Alone::new(), &options()).unwrap();
    assert_eq!(report.zero_shot, None);
    assert!(report.predictions.unwrap().images.iter().all(|image| image.classes.is_empty()));
}

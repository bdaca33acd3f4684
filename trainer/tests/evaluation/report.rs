//! The page that a finished run leaves.

use std::path::Path;

use fastclip_shards::Dataset;
use fastclip_trainer::distributed::Alone;
use fastclip_trainer::distributed::CommCounters;
use fastclip_trainer::eval::{EvalReport, evaluate};
use fastclip_trainer::metrics::{
    EvalRecord, EvalTiming, MetricsOptions, MetricsWriter, RunInfo, TrainRecord, TrainTiming,
};
use fastclip_trainer::progress::Progress;
use fastclip_trainer::report::{ReportError, write_report};

use crate::pairs::{HOSTILE_CAPTION, NUM_PAIRS, dataset, model, options};

const TOTAL_STEPS: u64 = 200;

/// Leaves what a run of `steps` steps leaves, by the code that a run uses.
fn run(run_dir: &Path, steps: u64, report: Option<&EvalReport>) {
    let info = RunInfo {
        name: "demo <b>run</b>".to_owned(),
        objective: "fastclip-v3".to_owned(),
        command: "train --train-data 's3://bucket/train' --name \"<b>\"".to_owned(),
        version: "0.1.0".to_owned(),
        num_ranks: 2,
        global_batch: 128,
        samples_per_epoch: 128 * 20,
        total_steps: TOTAL_STEPS,
    };
    let options =
        MetricsOptions { run_dir: run_dir.to_owned(), info, resumed_at: None, progress: Progress::hidden() };
    let mut metrics = MetricsWriter::open(options).unwrap();
    for step in 1..=steps {
        let progress = step as f64 / TOTAL_STEPS as f64;
        let record = TrainRecord {
            step,
            epoch: (step - 1) / 20,
            samples_seen: step * 128,
            loss: 5.0 * (-3.0 * progress).exp() + 0.1 * (step as f64).sin(),
            contrastive_loss: None,
            log_mean: None,
            lr: 1e-3 * (1.0 - progress),
            lr_tau: None,
            tau: 0.07 - 0.04 * progress,
            gamma: Some(1.0 - 0.8 * progress),
            grad_norm: Some(1.0 + (step as f64).cos().abs()),
            communication_bytes: 1 << 20,
            collectives: CommCounters::default(),
            timing: TrainTiming {
                seconds: step as f64 * 0.4,
                step_seconds: 0.4,
                data_seconds: 0.01,
                images_per_second: 320.0 + (step as f64).sin(),
                gpu_memory: None,
                checkpoints: None,
            },
        };
        metrics.train(record).unwrap();
        if let Some(report) = report.filter(|_| step % 50 == 0) {
            let record = EvalRecord {
                step,
                epoch: (step - 1) / 20,
                samples_seen: step * 128,
                zero_shot: report.zero_shot,
                retrieval: Some(report.retrieval),
                timing: EvalTiming { seconds: 1.5 },
            };
            metrics.eval(record).unwrap();
        }
    }
    if let Some(predictions) = report.and_then(|report| report.predictions.as_ref()) {
        predictions.save(run_dir).unwrap();
    }
    std::fs::write(run_dir.join("config.toml"), "name = \"<i>demo</i>\"\n").unwrap();
}

fn evaluated(dataset: &Dataset) -> EvalReport {
    let options = fastclip_trainer::eval::EvalOptions { num_predictions: NUM_PAIRS as usize, ..options() };
    evaluate(&model(), dataset, &Alone::new(), &options).unwrap()
}

fn page(run_dir: &Path, dataset: &Dataset) -> String {
    let path = write_report(run_dir, dataset).unwrap();
    assert_eq!(path, run_dir.join("report.html"));
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_report_stands_alone_and_lets_nothing_run() {
    let (data, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(&data);
    run(run_dir.path(), TOTAL_STEPS, Some(&evaluated(&dataset)));
    let page = page(run_dir.path(), &dataset);

    for (mark, _) in page.match_indices("src=\"") {
        assert!(page[mark..].starts_with("src=\"data:image/jpeg;base64,"), "{}", &page[mark..mark + 80]);
    }
    assert_eq!(page.matches("<img ").count(), NUM_PAIRS as usize);
    for forbidden in
        ["<script", "<link", "href=", "url(", "@import", "http-equiv=\"refresh\"", "http:", "https:"]
    {
        assert!(!page.contains(forbidden), "the page holds `{forbidden}`");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("NaN"));
}

#[test]
fn text_from_outside_is_escaped_wherever_it_stands() {
    let (data, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(&data);
    run(run_dir.path(), TOTAL_STEPS, Some(&evaluated(&dataset)));
    let page = page(run_dir.path(), &dataset);

    assert!(!page.contains(HOSTILE_CAPTION));
    assert!(page.contains("a &lt;script&gt;alert("), "the caption is there, as text");
    assert!(page.contains("demo &lt;b&gt;run&lt;/b&gt;"), "so is the name of the run");
    assert!(page.contains("&lt;i&gt;demo&lt;/i&gt;"), "so are its settings");
    assert!(page.contains("--name &quot;&lt;b&gt;&quot;"), "so is its command");
}

#[test]
fn equal_runs_have_equal_reports() {
    let (data, first, second) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(&data);
    let report = evaluated(&dataset);
    for folder in [&first, &second] {
        run(folder.path(), TOTAL_STEPS, Some(&report));
    }
    assert_eq!(page(first.path(), &dataset), page(second.path(), &dataset));
}

#[test]
fn a_run_that_goes_on_and_was_never_evaluated_has_a_shorter_report() {
    let (data, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(&data);
    run(run_dir.path(), 30, None);
    let page = page(run_dir.path(), &dataset);
    assert!(page.contains("at step 30 of 200"));
    assert!(!page.contains("<img "));
    assert!(!page.contains("Held-out accuracy"));
}

#[test]
fn a_report_over_another_dataset_is_refused_with_both_keys() {
    let (data, run_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(&data);
    let mut report = evaluated(&dataset);
    let image = &mut report.predictions.as_mut().unwrap().images[0];
    image.key = "kitten".to_owned();
    run(run_dir.path(), 50, Some(&report));
    let error = write_report(run_dir.path(), &dataset).unwrap_err();
    assert!(matches!(&error, ReportError::OtherDataset { expected, .. } if expected == "kitten"), "{error}");
    assert!(error.to_string().contains("`000000000` there"), "{error}");
}

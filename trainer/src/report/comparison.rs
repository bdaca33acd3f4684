//! A page on which several runs stand side by side.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use fastclip_pages::{count, duration, escaped, measure, percent};

use super::chart::{Along, Chart, Density, NUM_COLOURS, Series, Unit};
use super::page::{self, evals, trains};
use super::{CONFIG_FILE, ReportError, read_if_there};
use crate::files;
use crate::metrics::{EvalRecord, Record, RunInfo, TrainRecord, read_metrics};

/// What is read of a run.
#[derive(Debug)]
struct Run {
    info: RunInfo,
    records: Vec<Record>,
    /// Its settings, by key.
    settings: toml::Table,
}

/// Settings that say where a run lies or what it is called, and differ in any two.
const NAMES: [&str; 2] = ["name", "logs"];

/// Writes a page that compares runs to `path`: results, settings that differ, and curves over the samples seen.
///
/// It stands alone like that of [`write_report`](super::write_report), and shows no images.
///
/// # Errors
/// When there are more than eight runs, a file of one cannot be read, or the page not written.
pub fn write_comparison(run_dirs: &[PathBuf], path: &Path) -> Result<(), ReportError> {
    if run_dirs.len() > NUM_COLOURS {
        return Err(ReportError::TooMany { num_runs: run_dirs.len(), most: NUM_COLOURS });
    }
    let runs: Vec<Run> = run_dirs.iter().map(|run_dir| Run::read(run_dir)).collect::<Result<_, _>>()?;
    files::replace(path, page(&runs).as_bytes()).map_err(|source| ReportError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

impl Run {
    fn read(run_dir: &Path) -> Result<Self, ReportError> {
        let path = run_dir.join(CONFIG_FILE);
        let settings = read_if_there(&path)?.unwrap_or_default();
        Ok(Self {
            info: RunInfo::read(run_dir)?,
            records: read_metrics(run_dir)?,
            settings: settings.parse().map_err(|source| ReportError::Settings { path, source })?,
        })
    }

    fn last_train(&self) -> Option<&TrainRecord> {
        trains(&self.records).last()
    }

    fn last_eval(&self) -> Option<&EvalRecord> {
        evals(&self.records).last()
    }
}

fn page(runs: &[Run]) -> String {
    let mut html = format!(
        "<header><p class=\"brand\">FastCLIP training report</p><h1>{} runs compared</h1>\
         <p class=\"lead\">Curves run over the samples seen, so that runs with other batches can be compared.</p></header>\n",
        runs.len()
    );
    html += &results(runs);
    let charts = [accuracy_charts(runs), training_charts(runs)];
    for (title, charts) in ["Held-out accuracy", "Training"].into_iter().zip(charts) {
        let drawn: String = charts.iter().map(Chart::to_html).collect();
        if !drawn.is_empty() {
            html += &format!("<section><h2>{title}</h2>\n<div class=\"charts\">\n{drawn}</div></section>\n");
        }
    }
    html += &differences(runs);
    page::page("Comparison of runs", &html)
}

/// Which of some values is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Neither,
}

fn results(runs: &[Run]) -> String {
    type Figure = (&'static str, Better, fn(f64) -> String, fn(&Run) -> Option<f64>);
    let whole = |value: f64| count(value as u64);
    let figures: [Figure; 10] = [
        ("Zero-shot top-1", Better::Higher, percent, |run| Some(run.last_eval()?.zero_shot?.top1)),
        ("Zero-shot top-5", Better::Higher, percent, |run| Some(run.last_eval()?.zero_shot?.top5)),
        ("Image → caption, R@1", Better::Higher, percent, |run| {
            Some(run.last_eval()?.retrieval?.image_to_text.r1)
        }),
        ("Caption → image, R@1", Better::Higher, percent, |run| {
            Some(run.last_eval()?.retrieval?.text_to_image.r1)
        }),
        ("Temperature", Better::Neither, measure, |run| Some(run.last_train()?.tau)),
        ("Images a second", Better::Higher, measure, |run| {
            let last = run.last_train()?;
            Some(last.samples_seen as f64 / last.timing.seconds.max(1e-9))
        }),
        ("Waiting for data", Better::Neither, percent, |run| {
            let (wait, step) = trains(&run.records).fold((0.0, 0.0), |(wait, step), record| {
                (wait + record.timing.data_seconds, step + record.timing.step_seconds)
            });
            (step > 0.0).then(|| wait / step)
        }),
        ("Samples seen", Better::Neither, whole, |run| Some(run.last_train()?.samples_seen as f64)),
        ("Training time", Better::Neither, duration, |run| Some(run.last_train()?.timing.seconds)),
        ("Global batch", Better::Neither, whole, |run| Some(run.info.global_batch as f64)),
    ];
    let mut html = "<section class=\"compared\"><table><thead><tr><th></th>".to_owned();
    for (number, run) in runs.iter().enumerate() {
        html += &format!("<th><span class=\"swatch c{number}\"></span>{}</th>", escaped(&run.info.name));
    }
    html += "</tr></thead><tbody>\n<tr><th>Objective</th>";
    html += &runs.iter().map(|run| format!("<td>{}</td>", escaped(&run.info.objective))).collect::<String>();
    html += "</tr>\n";
    for (name, better, words, of) in figures {
        let values: Vec<Option<f64>> =
            runs.iter().map(|run| of(run).filter(|value| value.is_finite())).collect();
        let best = match better {
            Better::Higher if values.iter().any(|value| *value != values[0]) => {
                values.iter().flatten().copied().reduce(f64::max)
            }
            _ => None,
        };
        if values.iter().all(Option::is_none) {
            continue;
        }
        html += &format!("<tr><th>{name}</th>");
        for value in values {
            let class = if best.is_some() && value == best { " class=\"best\"" } else { "" };
            let words = value.map_or("–".to_owned(), words);
            html += &format!("<td{class}>{}</td>", escaped(&words));
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></section>\n"
}

/// Settings that are not the same in all runs.
fn differences(runs: &[Run]) -> String {
    let mut keys: Vec<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut rows = String::new();
    for key in keys {
        let values: Vec<Option<&toml::Value>> = runs.iter().map(|run| run.settings.get(key)).collect();
        if NAMES.contains(&key.as_str()) || values.iter().all(|value| *value == values[0]) {
            continue;
        }
        rows += &format!("<tr><th><code>{}</code></th>", escaped(key));
        for value in values {
            let words = value.map_or("–".to_owned(), ToString::to_string);
            rows += &format!("<td>{}</td>", escaped(&words));
        }
        rows += "</tr>\n";
    }
    if rows.is_empty() {
        return "<section><h2>Settings</h2><p class=\"lead\">All runs have the same settings.</p></section>\n"
            .to_owned();
    }
    let names: String = runs.iter().map(|run| format!("<th>{}</th>", escaped(&run.info.name))).collect();
    format!(
        "<section><h2>Settings that differ</h2><div class=\"compared\"><table><thead><tr><th></th>{names}</tr></thead>\
         <tbody>\n{rows}</tbody></table></div></section>\n"
    )
}

fn chart(
    title: &'static str,
    unit: Unit,
    density: Density,
    runs: &[Run],
    points: impl Fn(&Run) -> Vec<(f64, f64)>,
) -> Chart {
    let series =
        runs.iter().map(|run| Series { name: Cow::Owned(run.info.name.clone()), points: points(run) });
    Chart {
        title,
        unit,
        density,
        is_wide: false,
        series: series.collect(),
        along: Along::Samples,
        reference: None,
    }
}

fn accuracy_charts(runs: &[Run]) -> Vec<Chart> {
    let curve = |title, of: fn(&EvalRecord) -> Option<f64>| {
        chart(title, Unit::Fraction, Density::Sparse, runs, |run| {
            evals(&run.records).filter_map(|record| Some((record.samples_seen as f64, of(record)?))).collect()
        })
    };
    vec![
        curve("Zero-shot top-1", |record| Some(record.zero_shot?.top1)),
        curve("Image → caption retrieval, R@1", |record| Some(record.retrieval?.image_to_text.r1)),
        curve("Caption → image retrieval, R@1", |record| Some(record.retrieval?.text_to_image.r1)),
    ]
}

fn training_charts(runs: &[Run]) -> Vec<Chart> {
    let curve = |title, unit, density, of: fn(&TrainRecord) -> Option<f64>| {
        chart(title, unit, density, runs, |run| {
            trains(&run.records)
                .filter_map(|record| Some((record.samples_seen as f64, of(record)?)))
                .collect()
        })
    };
    vec![
        Chart {
            is_wide: true,
            ..curve("InfoNCE of the batch", Unit::Measure, Density::Noisy, |record| {
                Some(record.contrastive_loss.unwrap_or(record.loss))
            })
        },
        curve("Temperature", Unit::Measure, Density::Smooth, |record| Some(record.tau)),
        curve("Learning rate", Unit::Measure, Density::Smooth, |record| Some(record.lr)),
        curve("Gradient norm", Unit::Measure, Density::Noisy, |record| record.grad_norm),
        curve("Images a second", Unit::Measure, Density::Noisy, |record| {
            Some(record.timing.images_per_second)
        }),
        curve("Time waiting for data", Unit::Fraction, Density::Noisy, |record| {
            Some(record.timing.data_seconds / record.timing.step_seconds)
        }),
    ]
}

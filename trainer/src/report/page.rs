//! The page as a whole.

use std::borrow::Cow;

use fastclip_pages::{count, duration, escaped, measure, percent};

use super::chart::{Along, Chart, Density, Series, Unit};
use super::figures::times_chance;
use super::gallery;
use crate::eval::{Predictions, Recall, Retrieval};
use crate::metrics::{EvalRecord, Record, RunInfo, TrainRecord};

/// Everything that a page shows.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) info: &'a RunInfo,
    pub(super) records: &'a [Record],
    pub(super) predictions: Option<&'a Predictions>,
    /// One `data:` address for each image of the predictions.
    pub(super) images: &'a [String],
    pub(super) config: Option<&'a str>,
    pub(super) dataset: &'a str,
}

/// A page of ours with this content.
pub(super) fn page(title: &str, body: &str) -> String {
    fastclip_pages::Page { title, style: include_str!("style.css"), body }.to_html()
}

/// A figure at the top of the page.
struct Headline {
    name: &'static str,
    value: String,
    /// How it compares, in words.
    note: String,
    /// A value between 0 and 1 with its chance level, drawn as a bar.
    bar: Option<(f64, f64)>,
}

impl Page<'_> {
    /// Writes the page.
    pub(super) fn to_html(&self) -> String {
        let mut html = self.header();
        html += "<section class=\"headlines\">\n";
        html += &self.headlines().iter().map(Headline::to_html).collect::<String>();
        html += "</section>\n";
        if self.evals().next().is_some() {
            html += "<section><h2>Held-out accuracy</h2>\n<div class=\"charts\">\n";
            html += &self.accuracy_charts().iter().map(Chart::to_html).collect::<String>();
            html += "</div></section>\n";
        }
        html += "<section><h2>Training</h2>\n<div class=\"charts\">\n";
        html += &self.training_charts().iter().map(Chart::to_html).collect::<String>();
        html += "</div></section>\n";
        if let Some(predictions) = self.predictions {
            html += "<section><h2>What the model sees</h2>\n";
            html += &gallery::to_html(predictions, self.images);
            html += "</section>\n";
        }
        html += &self.facts();
        page(&self.info.name, &html)
    }

    fn header(&self) -> String {
        let RunInfo { name, objective, num_ranks, total_steps, .. } = self.info;
        let state = match self.trains().last() {
            Some(last) if last.step < *total_steps => {
                format!(" · at step {} of {}", count(last.step), count(*total_steps))
            }
            _ => String::new(),
        };
        let ranks = if *num_ranks == 1 { "1 process".to_owned() } else { format!("{num_ranks} processes") };
        format!(
            "<header><p class=\"brand\">FastCLIP training report</p><h1>{}</h1><p class=\"lead\">{} · {ranks}{state}</p>\
             </header>\n",
            escaped(name),
            escaped(objective),
        )
    }

    fn headlines(&self) -> Vec<Headline> {
        let mut headlines = Vec::new();
        if let Some(eval) = self.evals().last() {
            if let Some(zero_shot) = &eval.zero_shot {
                headlines.push(Headline {
                    name: "Zero-shot top-1",
                    value: percent(zero_shot.top1),
                    note: format!(
                        "{} ({} classes) · top-5 {}",
                        times_chance(zero_shot.top1, zero_shot.chance),
                        count(zero_shot.num_classes),
                        percent(zero_shot.top5)
                    ),
                    bar: Some((zero_shot.top1, zero_shot.chance)),
                });
            }
            if let Some(retrieval) = &eval.retrieval {
                let (images, texts) = (retrieval.image_to_text, retrieval.text_to_image);
                for (name, recall) in [("Image → caption, R@1", images), ("Caption → image, R@1", texts)]
                {
                    headlines.push(Headline {
                        name,
                        value: percent(recall.r1),
                        note: format!(
                            "{} (pool of {}) · R@10 {}",
                            times_chance(recall.r1, retrieval.chance()),
                            count(retrieval.pool),
                            percent(recall.r10)
                        ),
                        bar: Some((recall.r1, retrieval.chance())),
                    });
                }
            }
        }
        if let Some(last) = self.trains().last() {
            headlines.push(Headline {
                name: "Samples seen",
                value: count(last.samples_seen),
                note: format!(
                    "{} epochs of {}",
                    measure(last.samples_seen as f64 / self.info.samples_per_epoch.max(1) as f64),
                    count(self.info.samples_per_epoch)
                ),
                bar: None,
            });
            headlines.push(Headline {
                name: "Training time",
                value: duration(last.timing.seconds),
                note: format!(
                    "{} images a second",
                    measure(last.samples_seen as f64 / last.timing.seconds.max(1e-9))
                ),
                bar: None,
            });
        }
        headlines
    }

    fn training_charts(&self) -> Vec<Chart> {
        let curve = |of: &dyn Fn(&TrainRecord) -> Option<f64>| -> Vec<(f64, f64)> {
            self.trains().filter_map(|record| Some((record.step as f64, of(record)?))).collect()
        };
        let measured = |title, name: &'static str, density, points| Chart {
            title,
            unit: Unit::Measure,
            density,
            is_wide: false,
            series: vec![Series { name: Cow::Borrowed(name), points }],
            along: Along::Steps,
            reference: None,
        };
        let mut losses =
            vec![Series { name: "objective".into(), points: curve(&|record| Some(record.loss)) }];
        // OpenCLIP's objective is that very figure: a second curve would hide behind the first.
        if self.trains().any(|record| record.contrastive_loss.is_some_and(|loss| loss != record.loss)) {
            let points = curve(&|record| record.contrastive_loss);
            losses.push(Series { name: "InfoNCE of the batch".into(), points });
        }
        let timing = |of: fn(&TrainRecord) -> f64| curve(&|record| Some(of(record)));
        vec![
            Chart { is_wide: true, series: losses, ..measured("Loss", "", Density::Noisy, Vec::new()) },
            measured("Temperature", "τ", Density::Smooth, curve(&|record| Some(record.tau))),
            measured("Inner learning rate", "γ", Density::Smooth, curve(&|record| record.gamma)),
            measured("Learning rate", "weights", Density::Smooth, curve(&|record| Some(record.lr))),
            measured("Gradient norm", "norm", Density::Noisy, curve(&|record| record.grad_norm)),
            Chart {
                is_wide: true,
                ..measured(
                    "Throughput",
                    "images a second, all ranks",
                    Density::Noisy,
                    timing(|record| record.timing.images_per_second),
                )
            },
            Chart {
                title: "Time waiting for data",
                unit: Unit::Fraction,
                density: Density::Noisy,
                is_wide: false,
                series: vec![Series {
                    name: "of each step".into(),
                    points: timing(|record| record.timing.data_seconds / record.timing.step_seconds),
                }],
                along: Along::Steps,
                reference: None,
            },
        ]
    }

    fn accuracy_charts(&self) -> Vec<Chart> {
        let curve = |name: &'static str, of: &dyn Fn(&EvalRecord) -> Option<f64>| Series {
            name: name.into(),
            points: self.evals().filter_map(|record| Some((record.step as f64, of(record)?))).collect(),
        };
        let chart = |title, series, reference: Option<f64>| Chart {
            title,
            unit: Unit::Fraction,
            density: Density::Sparse,
            is_wide: false,
            series,
            along: Along::Steps,
            reference: reference.map(|value| ("chance", value)),
        };
        let last = self.evals().last();
        let mut charts = vec![chart(
            "Zero-shot classification",
            vec![
                curve("top-1", &|record| Some(record.zero_shot?.top1)),
                curve("top-5", &|record| Some(record.zero_shot?.top5)),
            ],
            last.and_then(|record| Some(record.zero_shot?.chance)),
        )];
        type Direction = fn(&Retrieval) -> Recall;
        for (title, of) in [
            ("Image → caption retrieval", (|retrieval| retrieval.image_to_text) as Direction),
            ("Caption → image retrieval", |retrieval| retrieval.text_to_image),
        ] {
            charts.push(chart(
                title,
                vec![
                    curve("R@1", &|record| Some(of(record.retrieval.as_ref()?).r1)),
                    curve("R@5", &|record| Some(of(record.retrieval.as_ref()?).r5)),
                    curve("R@10", &|record| Some(of(record.retrieval.as_ref()?).r10)),
                ],
                last.and_then(|record| Some(record.retrieval?.chance())),
            ));
        }
        charts
    }

    fn facts(&self) -> String {
        let RunInfo {
            objective,
            command,
            version,
            num_ranks,
            global_batch,
            samples_per_epoch,
            total_steps,
            ..
        } = self.info;
        let facts = [
            ("Objective", objective.clone()),
            ("Command", command.clone()),
            ("Version", version.clone()),
            ("Ranks", count(*num_ranks as u64)),
            ("Global batch", count(*global_batch)),
            ("Samples an epoch", count(*samples_per_epoch)),
            ("Steps", count(*total_steps)),
            ("Evaluated on", self.dataset.to_owned()),
        ];
        let mut html = "<section><h2>The run</h2>\n<table class=\"facts\">\n".to_owned();
        for (name, value) in facts {
            html += &format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(&value));
        }
        html += "</table>\n";
        if let Some(config) = self.config {
            html += &format!(
                "<details><summary>Resolved settings</summary><pre>{}</pre></details>\n",
                escaped(config)
            );
        }
        html += "<details><summary>How to read the figures</summary><p><b>Chance</b> is what guessing scores: one over \
                 the number of classes, or one over the pool. <b>R@k</b> is the share of queries whose own counterpart \
                 is among the best k of the pool; another sample with the same caption does not count as right, and \
                 candidates with equal scores share their places. In the gallery, equal words count as right. \
                 Bars there compare the five best captions of one image with each other; the numbers are cosine \
                 similarities. Thick lines are running means of the thin ones behind them. \
                 <b>InfoNCE</b> of the batch is what OpenCLIP minimises; it can be compared over objectives, but only \
                 at one batch size and temperature.</p></details>\n";
        html + "</section>\n"
    }

    fn trains(&self) -> impl DoubleEndedIterator<Item = &TrainRecord> {
        trains(self.records)
    }

    fn evals(&self) -> impl DoubleEndedIterator<Item = &EvalRecord> {
        evals(self.records)
    }
}

pub(super) fn trains(records: &[Record]) -> impl DoubleEndedIterator<Item = &TrainRecord> {
    records.iter().filter_map(|record| match record {
        Record::Train(record) => Some(record),
        Record::Eval(_) => None,
    })
}

pub(super) fn evals(records: &[Record]) -> impl DoubleEndedIterator<Item = &EvalRecord> {
    records.iter().filter_map(|record| match record {
        Record::Eval(record) => Some(record),
        Record::Train(_) => None,
    })
}

impl Headline {
    fn to_html(&self) -> String {
        let bar = self.bar.map_or(String::new(), |(value, chance)| {
            format!(
                "<div class=\"meter\" aria-hidden=\"true\"><span style=\"width:{:.2}%\"></span>\
                 <i style=\"left:{:.2}%\"></i></div>",
                100.0 * value.clamp(0.0, 1.0),
                100.0 * chance.clamp(0.0, 1.0)
            )
        });
        format!(
            "<div class=\"headline\"><h3>{}</h3><p class=\"value\">{}</p>{bar}<p class=\"note\">{}</p></div>\n",
            self.name,
            escaped(&self.value),
            escaped(&self.note)
        )
    }
}

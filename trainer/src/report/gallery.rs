//! Held-out images beside what the model says about them.

use fastclip_pages::{count, escaped, measure, percent};
use fastclip_shards::{Dataset, ReadError};

use super::ReportError;
use super::thumbnail::MEDIA_TYPES;
use crate::eval::{ImagePrediction, Predictions};

/// Reads the images of predictions; `make` makes of a file and its media type what is wanted.
pub(super) fn read_images<T>(
    dataset: &Dataset,
    predictions: &[ImagePrediction],
    make: impl Fn(&str, &[u8]) -> T,
) -> Result<Vec<T>, ReportError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| {
        ReportError::File { action: "start reading", path: dataset.location().into(), source }
    })?;
    let read = |prediction: &ImagePrediction| runtime.block_on(read_image(dataset, prediction, &make));
    predictions.iter().map(read).collect()
}

async fn read_image<T>(
    dataset: &Dataset,
    prediction: &ImagePrediction,
    make: impl Fn(&str, &[u8]) -> T,
) -> Result<T, ReportError> {
    let &ImagePrediction { shard, position, ref key, .. } = prediction;
    let other = |found: String| ReportError::OtherDataset {
        expected: key.clone(),
        found,
        shard,
        position,
        location: dataset.location().to_owned(),
    };
    let failed = |source: ReadError| ReportError::Image {
        key: key.clone(),
        location: dataset.location().to_owned(),
        source: Box::new(source),
    };
    let num_shards = dataset.manifest().shards.len();
    if shard >= num_shards {
        return Err(other(format!("{num_shards} shards, none")));
    }
    let index = dataset.index(shard).await.map_err(failed)?;
    if position >= index.len() {
        return Err(other(format!("{} samples, none", index.len())));
    }
    let run = dataset.fetch(shard, &index, position..position + 1).await.map_err(failed)?;
    let sample = run.sample(position).map_err(failed)?;
    if sample.key() != key {
        return Err(other(format!("`{}`", sample.key())));
    }
    let image = MEDIA_TYPES.iter().find_map(|(extension, media)| Some((media, sample.member(extension)?)));
    match image {
        Some((media, bytes)) => Ok(make(media, bytes)),
        None => Err(other(format!("a sample `{key}` without an image"))),
    }
}

/// Captions shown for each image; the predictions hold a few more.
const NUM_SHOWN: usize = 3;

/// Draws the gallery.
pub(super) fn to_html(predictions: &Predictions, images: &[String]) -> String {
    let right = predictions.images.iter().filter(|image| Verdict::of(image) == Verdict::Right).count();
    let near = predictions.images.iter().filter(|image| Verdict::of(image) == Verdict::Near).count();
    let shown = predictions.images.len();
    let mut html = format!(
        "<p class=\"lead\">{shown} held-out images, picked by a hash of their ids, and the captions that the model \
         finds best among {pool}. The first choice is right for <b>{right}</b>, the right caption is among the \
         first five for <b>{near}</b> more. Guessing would find {chance} of them.</p>\n<div class=\"gallery\">\n",
        pool = count(predictions.pool),
        chance = percent(1.0 / predictions.pool.max(1) as f64),
    );
    for (prediction, image) in predictions.images.iter().zip(images) {
        html += &card(prediction, image);
    }
    html + "</div>\n"
}

/// How well an image's own caption did. A caption of another sample with the same words is as right as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Near,
    Wrong,
}

impl Verdict {
    fn of(prediction: &ImagePrediction) -> Self {
        match prediction.captions.iter().position(|ranked| ranked.caption == prediction.caption) {
            Some(0) => Self::Right,
            Some(_) => Self::Near,
            None => Self::Wrong,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Near => "near",
            Self::Wrong => "wrong",
        }
    }
}

fn card(prediction: &ImagePrediction, image: &str) -> String {
    let verdict = Verdict::of(prediction);
    let place = format!("right caption at {}", ordinal(prediction.caption_rank));
    let badge = match verdict {
        Verdict::Right => "✓ right".to_owned(),
        Verdict::Near => format!("≈ {place}"),
        Verdict::Wrong => format!("✗ {place}"),
    };
    let mut html = format!(
        "<article class=\"card {class}\">\n<div class=\"picture\"><img loading=\"lazy\" src=\"{image}\" alt=\"{alt}\">\
         <span class=\"badge\">{badge}</span></div>\n<ol class=\"captions\">\n",
        class = verdict.class(),
        alt = escaped(&prediction.caption),
    );
    // Bars compare the captions that are kept: from the weakest of them, which would be an empty bar, to the best.
    let best = prediction.captions.first().map_or(0.0, |ranked| ranked.score);
    let worst = prediction.captions.last().map_or(0.0, |ranked| ranked.score);
    for ranked in prediction.captions.iter().take(NUM_SHOWN) {
        let is_right = ranked.caption == prediction.caption;
        let width = if best > worst { 10.0 + 90.0 * (ranked.score - worst) / (best - worst) } else { 100.0 };
        html += &format!(
            "<li{class}><span class=\"words\">{mark}{caption}</span><span class=\"score\">{score}</span>\
             <span class=\"bar\"><span style=\"width:{width:.0}%\"></span></span></li>\n",
            class = if is_right { " class=\"true\"" } else { "" },
            mark = if is_right { "✓ " } else { "" },
            caption = escaped(&ranked.caption),
            score = format_args!("{:.3}", ranked.score),
        );
    }
    html += "</ol>\n";
    if !prediction.captions.iter().take(NUM_SHOWN).any(|ranked| ranked.caption == prediction.caption) {
        html += &format!("<p class=\"truth\"><b>True caption</b> {}</p>\n", escaped(&prediction.caption));
    }
    if let (Some(class), Some(found)) = (&prediction.class, prediction.classes.first()) {
        let (mark, kind) = if *class == found.name { ("✓", "good") } else { ("✗", "bad") };
        html += &format!(
            "<p class=\"class\"><b>Class</b> <span class=\"{kind}\">{mark} {}</span>",
            escaped(&found.name)
        );
        if *class != found.name {
            html += &format!(" · true class {}", escaped(class));
        }
        html += "</p>\n";
    }
    html + "</article>\n"
}

/// Words a place, which is a mean where captions tie.
fn ordinal(rank: f64) -> String {
    if rank.fract() == 0.0 {
        format!("place {}", count(rank as u64))
    } else {
        format!("place {}", measure(rank))
    }
}

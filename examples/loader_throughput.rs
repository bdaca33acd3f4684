//! Measures a loader, or several at a time. Prints one line of JSON; the time to open the dataset and build the loaders does
//! not count.
//!
//! The toy set is what `scripts/demo` makes.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_throughput -- --data runs/toy-world/shards/train --samples 10000 --progress
//! ```

#![allow(clippy::print_stdout, reason = "a tool prints what it has measured")]

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use fastclip_examples::{LayoutArgument, LoaderArguments, cpu_seconds, peak_rss_bytes, rss_bytes};
use fastclip_loader::{DecodeOptions, Loader, LoaderStats, Output, Timing};
use fastclip_schemas::Position;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Measure a loader, and print one line of JSON")]
struct Arguments {
    #[command(flatten)]
    loader: LoaderArguments,
    /// Stop after so many samples; after one epoch of `--data` unless set. More than an epoch has are read in several.
    #[arg(long)]
    samples: Option<u64>,
    /// In what order the values of an image come.
    #[arg(long, value_enum, default_value_t = LayoutArgument::Nchw)]
    output_layout: LayoutArgument,
    /// Another dataset, read at the same time by a loader of its own with as many threads and samples. May be repeated. Stages
    /// and bottleneck are those of the first.
    #[arg(long, value_name = "DATA")]
    beside: Vec<String>,
    /// Most bytes of shards that a loader may hold at a time.
    #[arg(long)]
    max_bytes_in_flight: Option<u64>,
    /// Most pixels of an image; larger ones are bad samples.
    #[arg(long, default_value_t = DecodeOptions::default().max_pixels)]
    max_pixels: u64,
    /// Show on standard error how it goes, and which stage holds the others up.
    #[arg(long)]
    progress: bool,
}

/// Mean and 99th percentile of each stage, in microseconds.
fn stages(stats: &LoaderStats) -> Value {
    let micros = |duration: Duration| (duration.as_secs_f64() * 1e7).round() / 10.0;
    let stage = |timing: Timing| json!({ "count": timing.count, "mean_us": micros(timing.mean()), "p99_us": micros(timing.p99) });
    json!({
        "fetch": stage(stats.fetch),
        "decode": stage(stats.decode),
        "transform": stage(stats.transform),
        "tokenize": stage(stats.tokenize),
        // How long each stage has waited for another.
        "reader_for_index": stage(stats.index_wait),
        "reader_for_room": stage(stats.room_wait),
        "dispatcher_for_run": stage(stats.run_wait),
        "dispatcher_for_decoder": stage(stats.decoder_wait),
        "decoder_for_work": stage(stats.job_wait),
        "caller_for_batch": stage(stats.batch_wait),
    })
}

/// A bar with the rate, and the first loader's bottleneck.
fn bar(num_samples: u64, is_shown: bool) -> anyhow::Result<ProgressBar> {
    if !is_shown {
        return Ok(ProgressBar::hidden());
    }
    let template = "{bar:32} {human_pos}/{human_len} samples, {per_sec}, {eta} left; bottleneck: {msg}";
    Ok(ProgressBar::new(num_samples).with_style(ProgressStyle::with_template(template)?))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let rss_before = rss_bytes();
    let loader = build(&arguments, &arguments.loader)?;
    let others = arguments
        .beside
        .iter()
        .map(|data| build(&arguments, &LoaderArguments { data: data.clone(), ..arguments.loader.clone() }));
    let others = others.collect::<anyhow::Result<Vec<_>>>()?;
    let loaders: Vec<&Loader> = std::iter::once(&loader).chain(&others).collect();
    let batch_size = loader.batch_size() as u64;
    let num_batches =
        arguments.samples.map_or(loader.steps_per_epoch(), |samples| samples.div_ceil(batch_size));
    let bar = bar(num_batches * batch_size * loaders.len() as u64, arguments.progress)?;

    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    let mut num_samples = 0;
    let mut streams = loaders
        .iter()
        .map(|loader| loader.stream(Position::default(), loader.position_after(num_batches)))
        .collect::<Result<Vec<_>, _>>()?;
    for _ in 0..num_batches {
        for stream in &mut streams {
            num_samples += stream.next().context("a stream ended before its end")??.len();
        }
        bar.set_position(num_samples as u64);
        bar.set_message(loader.stats().bottleneck().to_string());
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - start_cpu);
    bar.finish();
    let peak = peak_rss_bytes();
    let stats = loader.stats();
    let cache = loader.dataset().cache().map(|cache| {
        let cache = cache.stats();
        json!({ "hits": cache.hits, "misses": cache.misses, "damaged": cache.damaged })
    });
    println!(
        "{}",
        json!({
            "samples": num_samples,
            "seconds": seconds,
            "images_per_second": num_samples as f64 / seconds,
            "cpu_seconds": cpu,
            "images_per_cpu_second": num_samples as f64 / cpu,
            "peak_rss_bytes": peak,
            "taken_bytes": peak.zip(rss_before).map(|(peak, before)| peak - before),
            "memory_bound_bytes":
                loaders.iter().map(|loader| loader.memory_bound(arguments.max_pixels).total()).sum::<u64>(),
            "bad_samples": loaders.iter().map(|loader| loader.stats().num_bad()).sum::<u64>(),
            "cache": cache,
            "bottleneck": stats.bottleneck().to_string(),
            "stages": stages(&stats),
        })
    );
    Ok(())
}

fn build(arguments: &Arguments, loader: &LoaderArguments) -> anyhow::Result<Loader> {
    let output = Output { layout: arguments.output_layout.into(), ..Output::default() };
    let decoding = DecodeOptions { max_pixels: arguments.max_pixels, ..DecodeOptions::default() };
    let mut builder = loader.builder()?.output(output).decoding(decoding);
    if let Some(num_bytes) = arguments.max_bytes_in_flight {
        builder = builder.max_bytes_in_flight(num_bytes);
    }
    builder.build().context("could not build the loader")
}

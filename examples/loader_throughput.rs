//! Measures a loader. Prints one line of JSON; the time to open the dataset and build the loader does not count.
//!
//! ```sh
//! cargo run --release -p fastclip-examples --example loader_throughput -- --data data/toy/train --samples 10000
//! ```

#![allow(clippy::print_stdout, reason = "a tool prints what it has measured")]

use std::time::Instant;

use clap::Parser;
use fastclip_examples::{LayoutArgument, LoaderArguments, cpu_seconds, peak_rss_bytes};
use fastclip_loader::{LoaderStats, Output, Timing};
use fastclip_schemas::Position;
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Measure a loader, and print one line of JSON")]
struct Arguments {
    #[command(flatten)]
    loader: LoaderArguments,
    /// Stop after so many samples; after one epoch unless set. More than an epoch has are read in several.
    #[arg(long)]
    samples: Option<u64>,
    /// In what order the values of an image come.
    #[arg(long, value_enum, default_value_t = LayoutArgument::Nchw)]
    output_layout: LayoutArgument,
}

/// Mean and 99th percentile of each stage, in microseconds.
fn stages(stats: &LoaderStats) -> Value {
    let micros = |duration: std::time::Duration| (duration.as_secs_f64() * 1e7).round() / 10.0;
    let stage = |timing: Timing| json!({ "count": timing.count, "mean_us": micros(timing.mean()), "p99_us": micros(timing.p99) });
    json!({
        "fetch": stage(stats.fetch),
        "decode": stage(stats.decode),
        "transform": stage(stats.transform),
        "tokenize": stage(stats.tokenize),
        // How long both ends of each channel have waited.
        "dispatcher_for_run": stage(stats.run_wait),
        "dispatcher_for_decoder": stage(stats.decoder_wait),
        "decoder_for_work": stage(stats.job_wait),
        "caller_for_batch": stage(stats.batch_wait),
    })
}

fn main() -> anyhow::Result<()> {
    let Arguments { loader: arguments, samples, output_layout } = Arguments::parse();
    let output = Output { layout: output_layout.into(), ..Output::default() };
    let loader = arguments.builder()?.output(output).build()?;
    let num_steps = loader.steps_per_epoch();
    let num_batches = samples.map_or(num_steps, |samples| samples.div_ceil(loader.batch_size() as u64));
    let until = Position { epoch: num_batches / num_steps, step: num_batches % num_steps };

    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    let mut num_samples = 0;
    for batch in loader.stream(Position::default(), until)? {
        num_samples += batch?.len();
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - start_cpu);
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
            "peak_rss_bytes": peak_rss_bytes(),
            "bad_samples": stats.num_bad(),
            "cache": cache,
            "bottleneck": stats.bottleneck().to_string(),
            "stages": stages(&stats),
        })
    );
    Ok(())
}

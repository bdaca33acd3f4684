//! Feeds a target with seeded damage for some seconds, on any Rust. `scripts/fuzz` calls it where cargo-fuzz is missing.
//!
//! `seeded TARGET SECONDS [NUMBER]` damages; `seeded --corpus FOLDER` writes the seeds of all targets for libFuzzer.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastclip_fuzz::{Damage, Target};

/// Inputs of one series; the next one has the next number.
const SERIES: usize = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = match arguments[..] {
        ["--corpus", folder] => write_seeds(Path::new(folder)).map_err(|error| format!("{folder}: {error}")),
        [target, seconds] => damage(target, seconds, "0"),
        [target, seconds, number] => damage(target, seconds, number),
        _ => Err("usage: seeded TARGET SECONDS [NUMBER] | seeded --corpus FOLDER".to_owned()),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for target in Target::ALL {
        let folder = folder.join(target.name());
        fs::create_dir_all(&folder)?;
        for (number, seed) in target.seeds().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

fn damage(name: &str, seconds: &str, number: &str) -> Result<(), String> {
    let target =
        Target::ALL.into_iter().find(|target| target.name() == name).ok_or(format!("no target `{name}`"))?;
    let seconds = seconds.parse().map_err(|error| format!("`{seconds}`: {error}"))?;
    let mut number: u64 = number.parse().map_err(|error| format!("`{number}`: {error}"))?;
    let (start, first) = (Instant::now(), number);
    let mut num_inputs = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        // Where a series panics, its number is all that is needed to see it again.
        println!("{name}: series {number}");
        for input in Damage::new(target, number).take(SERIES) {
            target.feed(&input);
            num_inputs += 1;
            if start.elapsed() >= Duration::from_secs(seconds) {
                break;
            }
        }
        number += 1;
    }
    println!("{name}: {num_inputs} inputs in {seconds} s, series {first} to {}", number - 1);
    Ok(())
}

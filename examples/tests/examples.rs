//! The examples, run as their first lines say, on small real datasets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastclip_examples::open;
use fastclip_loader::{Loader, Order, Quality, Tail, Transform};
use fastclip_schemas::Position;
use fastclip_testkit::{Finished, Python, TinyDataset, binary, run};
use serde_json::Value;
use tempfile::TempDir;

fn example(name: &str, arguments: &[&str]) -> Finished {
    run(Command::new(binary(&format!("examples/{name}"))).args(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have readable names")
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

#[test]
fn basic_shows_batches_and_tells_the_rate() {
    let data = TinyDataset::new(40, 16);
    let shown = example("loader_basic", &["--data", data.location(), "--batch-size", "8", "--size", "32"]);
    let shown = shown.assert_code(0).stdout;
    assert!(shown.contains(": 40 samples, 5 steps of 8 in an epoch\n"), "{shown}");
    assert!(shown.contains("epoch 0, step 2: 8 samples, mean pixel "), "{shown}");
    assert!(shown.contains("\n40 samples in "), "{shown}");
}

#[test]
fn mixing_holds_of_each_dataset_what_was_asked_for() {
    let (first, second) = (TinyDataset::new(40, 16), TinyDataset::new(20, 16));
    let joined = format!("{}::{}", first.location(), second.location());
    let arguments =
        ["--data", &joined, "--upsampling-factors", "0.5::2", "--batch-size", "12", "--steps", "5"];
    let shown = example("loader_mixing", &arguments).assert_code(0).stdout;
    assert!(shown.starts_with("an epoch of 5 steps holds\n  20 of the 40 samples of "), "{shown}");
    assert!(shown.contains("\n  40 of the 20 samples of "), "{shown}");
    assert!(shown.ends_with("\ntogether: [20, 40]\n"), "{shown}");
}

#[test]
fn resume_goes_on_where_it_stopped_and_refuses_another_order() {
    let (data, folder) = (TinyDataset::new(40, 16), TempDir::new().expect("there is room"));
    let state = file(&folder, "state.json");
    let steps = |seed: &str| {
        let data = ["--data", data.location(), "--batch-size", "8", "--size", "32"];
        example(
            "loader_resume",
            &[&data[..], &["--state", text(&state), "--steps", "5", "--seed", seed]].concat(),
        )
    };
    let stopped = "stopped before step 0 of epoch 1; run again to go on\n";
    let first = steps("3").assert_code(0).stdout;
    assert!(first.starts_with("epoch 0, step 0: samples [") && first.ends_with(stopped), "{first}");
    let second = steps("3").assert_code(0).stdout;
    assert!(second.starts_with("epoch 1, step 0: samples ["), "{second}");
    steps("4").assert_code(1).assert_says(&["the stored position belongs to the order"]);
}

#[test]
fn custom_decode_reads_what_it_has_written_before() {
    let folder = TempDir::new().expect("there is room");
    let arguments = ["--data", text(folder.path())];
    let maps = || {
        let shown = example("loader_custom_decode", &arguments).assert_code(0).stdout;
        shown.lines().filter(|line| line.starts_with("step ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = maps();
    assert!(first.len() == 4 && first[0].starts_with("step 0: 50 maps, mean depth 0."), "{first:?}");
    assert_eq!(maps(), first);
}

#[test]
fn throughput_prints_one_line_of_json_whatever_the_sizes_of_its_datasets() {
    let (data, other) = (TinyDataset::new(40, 16), TinyDataset::new(20, 16));
    let arguments = ["--data", data.location(), "--batch-size", "8", "--size", "32", "--threads", "2"];
    let more =
        ["--quality", "exact", "--samples", "80", "--output-layout", "nhwc", "--beside", other.location()];
    let line = example("loader_throughput", &[&arguments[..], &more].concat()).assert_code(0).stdout;
    assert_eq!(line.lines().count(), 1, "{line}");
    let printed: Value = serde_json::from_str(&line).expect("it is JSON");
    assert_eq!((&printed["samples"], &printed["bad_samples"]), (&160.into(), &0.into()), "{line}");
    for number in ["seconds", "images_per_second", "cpu_seconds", "peak_rss_bytes"] {
        assert!(printed[number].as_f64().is_some_and(|value| value > 0.0), "{number} of {line}");
    }
    for stage in ["fetch", "decode", "transform", "tokenize"] {
        assert!(
            printed["stages"][stage]["mean_us"].as_f64().is_some_and(|mean| mean > 0.0),
            "{stage} of {line}"
        );
    }
}

#[test]
fn dump_writes_what_the_loader_delivers_as_numpy_reads_it() {
    let (data, folder) = (TinyDataset::new(20, 16), TempDir::new().expect("there is room"));
    let output = file(&folder, "dump");
    for (transform, order) in [("train", Order::Shuffled { seed: 5 }), ("eval", Order::Sequential)] {
        let arguments = ["--data", data.location(), "--transform", transform, "--seed", "5", "--epoch", "1"];
        let more = ["--samples", "15", "--size", "24", "--batch-size", "8", "--output", text(&output)];
        example("loader_dump", &[&arguments[..], &more].concat()).assert_code(0);
        let shapes = Python::new().run(
            "import numpy, pathlib, sys\n\
             for name in 'images', 'tokens', 'lengths', 'ids':\n\
             \x20   path = pathlib.Path(sys.argv[1]) / name\n\
             \x20   array = numpy.load(path.with_suffix('.npy'))\n\
             \x20   path.with_suffix('.raw').write_bytes(array.tobytes())\n\
             \x20   print(array.dtype, *array.shape)\n",
            &[text(&output)],
        );
        assert_eq!(shapes, "uint8 15 3 24 24\nint32 15 77\nint32 15\nuint64 15\n");

        let transform = if transform == "train" { Transform::train(24) } else { Transform::eval(24) };
        let loader = Loader::builder(open(data.location()).expect("it is there"))
            .global_batch(8.try_into().expect("it is not 0"))
            .order(order)
            .tail(Tail::Keep)
            .transform(transform)
            .quality(Quality::Exact)
            .build()
            .expect("it can be read");
        let stream = loader.stream(Position::start_of(1), Position::start_of(2)).expect("it starts");
        let batches: Vec<_> = stream.map(|batch| batch.expect("all are good")).collect();
        let raw = |name: &str| fs::read(output.join(name).with_extension("raw")).expect("it was written");
        let first = |mut bytes: Vec<u8>, of_sample: usize| {
            bytes.truncate(15 * of_sample);
            bytes
        };
        let images = batches.iter().flat_map(|batch| batch.images().to_vec()).collect();
        assert!(raw("images") == first(images, 3 * 24 * 24), "images");
        let tokens = batches.iter().flat_map(|batch| batch.tokens()).flat_map(|token| token.to_le_bytes());
        assert_eq!(raw("tokens"), first(tokens.collect(), 4 * 77));
        let lengths =
            batches.iter().flat_map(|batch| batch.lengths()).flat_map(|length| length.to_le_bytes());
        assert_eq!(raw("lengths"), first(lengths.collect(), 4));
        let ids = batches.iter().flat_map(|batch| batch.sample_ids()).flat_map(|id| id.0.to_le_bytes());
        assert_eq!(raw("ids"), first(ids.collect(), 8));
        let keys: Vec<&str> =
            batches.iter().flat_map(|batch| batch.keys()).map(|key| &**key).take(15).collect();
        let written = fs::read_to_string(output.join("keys.txt")).expect("it was written");
        assert_eq!(written.lines().collect::<Vec<_>>(), keys);
    }
}

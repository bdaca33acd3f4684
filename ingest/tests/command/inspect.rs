use std::fs;

use fastclip_testkit::{WebAnswer, WebServer};

use crate::support::{Scratch, caption, jpeg};

/// What a caption must not become part of.
const HOSTILE: &str =
    "</p><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' &amp; \u{202e} \u{1b}[2J";

/// Downloads 30 rows: 24 with an image, the first of which has a hostile caption, and six without.
fn download(scratch: &Scratch) {
    let server = WebServer::start();
    let mut list = "url,caption\n".to_owned();
    for row in 0..30 {
        let path = format!("/{row}.jpg");
        if row % 5 != 4 {
            server.answer(&path, WebAnswer::Body(jpeg(row)));
        }
        let caption = if row == 0 { HOSTILE.replace('"', "\"\"") } else { caption(row % 10) };
        list += &format!("{},\"{caption}\"\n", server.url(&path));
    }
    scratch.write("list.csv", list);
    let command = ["download", "--input", "list.csv", "--output", "out", "--number-sample-per-shard", "8"];
    let settings = ["--resize-mode", "no", "--allow-private-hosts"];
    scratch.ingest_well(&[&command[..], &settings].concat());
}

fn pack(scratch: &Scratch, num_samples: usize, samples_per_shard: &str) {
    scratch.pairs(num_samples);
    let arguments = ["pack", "--input", "pairs/table.jsonl", "--output", "out"];
    scratch.ingest_well(&[&arguments[..], &["--samples-per-shard", samples_per_shard]].concat());
}

#[test]
fn a_page_shows_samples_figures_and_failures_and_needs_nothing_else() {
    let scratch = Scratch::new();
    download(&scratch);
    let printed = scratch.ingest_well(&["inspect", "out", "--html", "out.html"]).stdout;
    assert!(printed.starts_with("24 samples in 4 shards of `out`, "), "{printed}");
    let rows = "rows: 80.0 % became samples, by 4 tables; most failed with http_404";
    assert!(printed.contains(rows), "{printed}");
    let page = fs::read_to_string(scratch.path("out.html")).unwrap();
    assert_eq!(page.matches("<article").count(), 24, "all samples of a small dataset are shown");
    assert_eq!(page.matches(" src=\"data:image/jpeg;base64,").count(), 24);
    for expected in
        [&caption(7)[..], "http_404", "127.0.0.1", "Most common captions", "80.0 %", "00003.parquet"]
    {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(page.contains("default-src 'none'"), "the browser is told to load nothing");
    assert!(!page.contains("<link") && !page.contains("@import") && !page.contains("url("));
}

#[test]
fn captions_stay_text_whatever_they_say() {
    let scratch = Scratch::new();
    download(&scratch);
    scratch.ingest_well(&["inspect", "out", "--html", "out.html"]);
    let page = fs::read_to_string(scratch.path("out.html")).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"), "the caption is there");
    assert!(!page.contains("<script") && !page.contains("<img src=x") && !page.contains("onload='"));
    let printed = scratch.ingest_well(&["inspect", "out", "--key", "000000"]).stdout;
    assert!(printed.contains("<script>alert(1)"), "{printed}");
    assert!(!printed.contains(['\u{202e}', '\u{1b}']), "a terminal does not obey it: {printed:?}");
}

#[test]
fn the_same_seed_shows_the_same_samples() {
    let scratch = Scratch::new();
    pack(&scratch, 200, "100");
    let page = |seed: &str| {
        let arguments = ["inspect", "out", "--html", "out.html", "--samples", "64", "--show", "5"];
        let printed = scratch.ingest_well(&[&arguments[..], &["--seed", seed]].concat()).stdout;
        assert!(printed.contains(" in runs of neighbours from 1 of 2 shards"), "{printed}");
        fs::read_to_string(scratch.path("out.html")).unwrap()
    };
    let first = page("1");
    assert_eq!(first.matches("<article").count(), 5);
    assert_eq!(first, page("1"));
    assert_ne!(first, page("2"));
}

#[test]
fn a_sample_is_found_by_key_or_id_and_can_be_taken_out() {
    let scratch = Scratch::new();
    pack(&scratch, 20, "8");
    let by_key = scratch.ingest_well(&["inspect", "out", "--key", "000010003", "--extract", "sample"]);
    let by_key = by_key.stdout;
    assert!(by_key.starts_with("`000010003`, id 11, sample 3 of 00001.tar\n"), "{by_key}");
    assert!(by_key.contains(&format!("\n  {}\n", caption(11))), "{by_key}");
    assert!(by_key.contains("27 × 16 pixels"), "{by_key}");
    assert_eq!(by_key, scratch.ingest_well(&["inspect", "out", "--id", "11"]).stdout);
    assert_eq!(fs::read(scratch.path("sample/sample-000010003.jpg")).unwrap(), jpeg(11));
    let error = scratch.ingest_refused(&["inspect", "out", "--key", "nobody"]);
    assert_eq!(error, "error: `out` has no sample with key `nobody`\n");
    let error = scratch.ingest_refused(&["inspect", "out", "--extract", "other"]);
    assert!(error.contains("<--key <KEY>|--id <ID>>"), "{error}");
}

#[test]
fn a_shard_that_is_gone_is_named_and_the_rest_is_shown() {
    let scratch = Scratch::new();
    pack(&scratch, 20, "8");
    fs::remove_file(scratch.path("out/00001.tar")).unwrap();
    let printed = scratch.ingest_well(&["inspect", "out", "--html", "out.html"]).stdout;
    let expected = "00001.tar cannot be read: the manifest of `out` names `00001.tar`";
    assert!(printed.contains(expected), "{printed}");
    let page = fs::read_to_string(scratch.path("out.html")).unwrap();
    assert_eq!(page.matches("<article").count(), 12);
    fs::remove_file(scratch.path("out/00000.tar")).unwrap();
    fs::remove_file(scratch.path("out/00002.tar")).unwrap();
    let error = scratch.ingest_refused(&["inspect", "out"]);
    assert!(error.contains("names `00000.tar`, which is not there"), "{error}");
}

use fastclip_testkit::{WebAnswer, WebServer};

use sha2::{Digest, Sha256};

use crate::download::{download, list, table};
use crate::parts::dataset;
use crate::support::{Scratch, caption, jpeg, json, manifest};

/// Hosts that are not there now: 503 for these rows.
fn fail(server: &WebServer, rows: impl IntoIterator<Item = usize>) {
    for row in rows {
        server.answer(&format!("/{row}.jpg"), WebAnswer::Whole(503, Vec::new(), Vec::new()));
    }
}

fn recover(server: &WebServer, rows: impl IntoIterator<Item = usize>) {
    for row in rows {
        server.answer(&format!("/{row}.jpg"), WebAnswer::Body(jpeg(row)));
    }
}

fn retry<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["retry", "out", "--allow-private-hosts", "--retries", "0"][..], more].concat()
}

#[test]
fn rows_that_failed_are_tried_again_into_shards_of_their_own() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 40);
    let failing: Vec<usize> = (0..40).filter(|row| row % 3 == 0).collect();
    fail(&server, failing.clone());
    scratch.ingest_well(&download("out", &["--retries", "0", "--save-additional-columns", "id"]));
    let before = dataset(&scratch, "out");
    let (found, ids) = (scratch.samples("out").len(), manifest(&scratch.path("out")).num_sample_ids);
    assert_eq!((found, ids), (23, 23));

    // All but two of fourteen; rows that give 404 are not asked again.
    let back: Vec<usize> = failing.iter().copied().filter(|row| ![9, 33].contains(row)).collect();
    recover(&server, back.clone());
    let asked = server.num_requests("/6.jpg");
    let ran = scratch.ingest_well(&retry(&[])).stdout;
    assert_eq!(
        ran,
        "tried 14 rows again, 12 became samples (85.7 %) in 2 new shards\nof these failed again: 2 http_503\n`out` has \
         35 of 40 rows now (87.5 %)\n"
    );
    assert_eq!(server.num_requests("/6.jpg"), asked + 1);
    assert_eq!((server.num_requests("/1.jpg"), server.num_requests("/13.jpg")), (1, 1));
    scratch.ingest_well(&["verify", "out"]);

    let after = dataset(&scratch, "out");
    for (name, bytes) in
        before.iter().filter(|(name, _)| !["manifest.json", "sizes.json"].contains(&name.as_str()))
    {
        assert!(after[name] == *bytes, "{name} changed");
    }
    let now = manifest(&scratch.path("out"));
    assert_eq!((now.shards.len(), now.num_sample_ids), (7, 35));
    assert_eq!((now.shards[5].name.as_str(), now.shards[5].first_sample_id.0), ("00005.tar", 23));
    assert_eq!(json(&after["sizes.json"])["00006.tar"], now.shards[6].num_samples);
    // Samples have the keys and the facts that they would have had at first.
    let samples = scratch.samples("out");
    let (key, members) = &samples[23];
    assert_eq!((key.as_str(), members["txt"].as_slice()), ("000000", caption(0).as_bytes()));
    let facts = json(&members["json"]);
    assert_eq!((&facts["key"], &facts["id"], &facts["width"]), (&"000000".into(), &"0".into(), &30.into()));
    let keys: std::collections::BTreeSet<&String> = samples.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 35);
    let rows = table(&scratch, "out/00005.parquet");
    let statuses: Vec<&str> = rows.iter().map(|row| row["status"].as_str()).collect();
    assert_eq!((rows.len(), statuses[3], rows[3]["key"].as_str()), (8, "failed_to_download", "000011"));
    assert_eq!(now.source["counts"]["failures"], serde_json::json!({"http_404": 3, "http_503": 2}));

    // What still fails, and nothing else; then nothing is left that may pass.
    recover(&server, [9]);
    let ran = scratch.ingest_well(&retry(&["--only", "http_5xx"])).stdout;
    assert!(ran.starts_with("tried 2 rows again, 1 became samples (50.0 %) in 1 new shard\n"), "{ran}");
    assert_eq!(table(&scratch, "out/00007.parquet").len(), 2);
    recover(&server, [33]);
    scratch.ingest_well(&retry(&[]));
    let ran = scratch.ingest_well(&retry(&[])).stdout;
    assert!(ran.starts_with("nothing to retry in `out`: no row failed of body_cut, "), "{ran}");
    let printed = scratch.ingest_well(&["stats", "out"]).stdout;
    assert!(printed.contains("\n37 of 40 rows in "), "{printed}");
    assert!(printed.contains(" http_404\n") && !printed.contains("http_503"), "{printed}");
    assert!(ran.ends_with("\nrows failed of: 3 http_404\n"), "{ran}");
    // The others on request: a pass of which nothing comes leaves a table.
    let ran = scratch.ingest_well(&retry(&["--only", "http_404"])).stdout;
    assert!(ran.starts_with("tried 3 rows again, 0 became samples (0.0 %) in 0 new shards\n"), "{ran}");
    assert!(scratch.path("out/00009.parquet").exists() && !scratch.path("out/00009.tar").exists());
    scratch.ingest_well(&["verify", "out"]);
    let again = scratch.ingest_well(&download("out", &["--save-additional-columns", "id"])).stdout;
    assert!(again.starts_with("already complete: 37 of 40 rows"), "{again}");
}

#[test]
fn a_retry_goes_on_with_what_it_chose() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, 40);
    fail(&server, 0..30);
    scratch.ingest_well(&download("out", &["--retries", "0"]));
    recover(&server, 0..29);
    server.answer("/29.jpg", WebAnswer::Silence);
    let mut child = scratch
        .command(&retry(&["--only", "http_503", "--timeout", "1000", "--total-timeout", "1000"]))
        .spawn()
        .unwrap();
    while !scratch.path("out/retry-state/00006.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the last row");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    scratch.ingest_well(&["verify", "out"]);
    let error = scratch.ingest_refused(&retry(&["--only", "http_404"]));
    assert_eq!(
        error,
        "error: an unfinished retry of `out` chose http_503, this one http_404\nhint: end it first, with --only \
         http_503\n"
    );
    recover(&server, [29]);
    let ran = scratch.ingest_well(&retry(&["--only", "http_503"])).stdout;
    assert!(ran.starts_with("tried 30 rows again, 30 became samples (100.0 %) in 4 new shards\n"), "{ran}");
    assert_eq!((server.num_requests("/0.jpg"), server.num_requests("/14.jpg")), (2, 2));
    scratch.ingest_well(&["verify", "out"]);
    assert!(!scratch.path("out/retry-state").exists());
}

#[test]
fn a_row_that_is_retried_still_has_the_hash_of_the_list() {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    let sha256 = |row: usize| -> String {
        Sha256::digest(jpeg(row)).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let mut list = "url,sha256\n".to_owned();
    for row in 0..4 {
        // The last one is not what the list was made of.
        list += &format!("{},{}\n", server.url(&format!("/{row}.jpg")), sha256(row.min(2)));
    }
    scratch.write("list.csv", list);
    recover(&server, [0]);
    fail(&server, 1..4);
    // By default the hash of what came goes into a column of the same name.
    scratch.ingest_well(&download("out", &["--retries", "0", "--verify-hash", "sha256,sha256"]));
    let rows = table(&scratch, "out/00000.parquet");
    assert_eq!((&rows[0]["sha256"], &rows[1]["sha256"]), (&sha256(0), &sha256(1)));
    recover(&server, 1..4);
    let ran = scratch.ingest_well(&retry(&[])).stdout;
    assert!(ran.starts_with("tried 3 rows again, 2 became samples (66.7 %) in 1 new shard\n"), "{ran}");
    let message = format!("hash_mismatch: sha256 {}, the list says {}", sha256(3), sha256(2));
    assert_eq!(table(&scratch, "out/00001.parquet")[2]["error_message"], message);
    scratch.ingest_well(&["verify", "out"]);
}

#[test]
fn what_was_not_downloaded_is_not_retried() {
    let scratch = Scratch::new();
    scratch.pairs(8);
    scratch.ingest_well(&["pack", "--input", "pairs/table.jsonl", "--output", "out"]);
    let error = scratch.ingest_refused(&retry(&[]));
    assert_eq!(error, "error: the rows of `out` cannot be tried again: `ingest download` did not make it\n");
    std::fs::create_dir(scratch.path("empty")).unwrap();
    let error = scratch.ingest_refused(&["retry", "empty"]);
    assert!(
        error.starts_with("error: `empty` holds no download that is complete\nhint: end it with"),
        "{error}"
    );
}

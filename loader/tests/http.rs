//! A dataset behind a web server that knows nothing but files.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::fs;

use common::{Toy, at, block_on, read, small_loader};
use fastclip_shards::Dataset;
use fastclip_testkit::{WebAnswer, WebServer};

#[test]
fn what_a_web_server_has_is_read_as_from_a_folder_a_range_at_a_time() {
    let toy = Toy::new(96, 32);
    let server = WebServer::start();
    for file in fs::read_dir(toy.path()).unwrap() {
        let file = file.unwrap();
        let path = format!("/data/{}", file.file_name().to_str().unwrap());
        server.answer(&path, WebAnswer::File(fs::read(file.path()).unwrap()));
    }
    let dataset = block_on(Dataset::open(&server.url("/data"))).unwrap();
    let remote = small_loader(dataset, 16).segment_samples(8).build().unwrap();
    let local = toy.loader(16).segment_samples(8).build().unwrap();
    assert!(read(&remote, at(0, 0), at(2, 0)) == read(&local, at(0, 0), at(2, 0)));
    assert!(server.num_requests("/data/00000.tar") >= 2 * 32 / 8, "runs are asked for one by one");
    assert_eq!(server.num_requests("/data/00000.idx"), 1, "an index is kept");
}

//! Streams from the storage of Google and Azure: what arrives is what lies on disk.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

mod common;

use std::fs;

use common::{Toy, at, block_on, read, small_loader};
use fastclip_shards::{Dataset, ReadError};
use fastclip_testkit::CloudServer;

fn reads_as_from_a_folder(server: &CloudServer) {
    let location = server.location("toy");
    let error = block_on(Dataset::open_with(&location, &server.options())).unwrap_err();
    assert!(matches!(error, ReadError::NoManifest { .. }), "{error}");

    let toy = Toy::new(96, 32);
    for file in fs::read_dir(toy.path()).unwrap() {
        let file = file.unwrap();
        let name = format!("toy/{}", file.file_name().to_str().unwrap());
        server.put(&name, fs::read(file.path()).unwrap());
    }
    let dataset = block_on(Dataset::open_with(&location, &server.options())).unwrap();
    let remote = small_loader(dataset, 16).segment_samples(8).build().unwrap();
    let local = toy.loader(16).segment_samples(8).build().unwrap();
    assert!(read(&remote, at(0, 0), at(2, 0)) == read(&local, at(0, 0), at(2, 0)));
}

#[test]
fn a_stream_from_googles_storage_is_that_from_disk() {
    reads_as_from_a_folder(&CloudServer::google());
}

#[test]
fn a_stream_from_azures_storage_is_that_from_disk() {
    reads_as_from_a_folder(&CloudServer::azure());
}

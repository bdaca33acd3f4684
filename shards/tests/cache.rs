//! What a cache promises, over a real S3 server and among several processes.

#![allow(clippy::unwrap_used, reason = "tests, of which the lint knows only the functions marked so")]

use std::env;
use std::fs::{self, File};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_compression::futures::bufread::GzipEncoder;
use fastclip_schemas::Digest;
use fastclip_shards::{Cache, CacheError, Dataset, DatasetWriter, Store, StoreOptions, WriterOptions};
use fastclip_testkit::{S3Fault, S3Server, run};
use futures::AsyncReadExt;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// The least that is accepted.
const LIMIT: u64 = 16 * MIB;
const SAMPLES_PER_SHARD: u32 = 8;

/// Bytes that no compressor makes smaller; samples cross the borders of the cache's blocks.
fn photo(number: u64) -> Vec<u8> {
    let mut photo = vec![0; 300_000 + number as usize * 1000];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut photo);
    photo
}

/// A server that holds a dataset, of nearly 3 MiB a shard.
async fn server(num_shards: u64) -> S3Server {
    // It brings an event loop of its own, which must not start on ours.
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let store = Store::create(&server.location("photos"), &server.options()).unwrap();
    let samples_per_shard = NonZeroU32::new(SAMPLES_PER_SHARD).unwrap();
    let mut writer =
        DatasetWriter::new(store, WriterOptions { samples_per_shard, ..WriterOptions::default() });
    for number in 0..num_shards * u64::from(SAMPLES_PER_SHARD) {
        writer.append(&[("jpg", &photo(number))]).await.unwrap();
    }
    writer.finish(Default::default()).await.unwrap();
    server
}

async fn open(server: &S3Server, cache: Cache) -> Dataset {
    Dataset::open_with(&server.location("photos"), &server.options()).await.unwrap().with_cache(cache)
}

fn cache(folder: &TempDir) -> Cache {
    Cache::open(folder.path(), LIMIT).unwrap()
}

/// Reads a shard in runs of so many samples, the last ones first, and compares every photo.
async fn read_shard(dataset: &Dataset, shard: usize, length: u32) {
    let index = dataset.index(shard).await.unwrap();
    for start in (0..index.len()).step_by(length as usize).rev() {
        let run = dataset.fetch(shard, &index, start..index.len().min(start + length)).await.unwrap();
        for position in run.samples() {
            let sample = run.sample(position).unwrap();
            assert!(sample.member("jpg").unwrap() == photo(sample.id().0), "sample {}", sample.id());
        }
    }
}

async fn read(dataset: &Dataset, length: u32) {
    for shard in 0..dataset.manifest().shards.len() {
        read_shard(dataset, shard, length).await;
    }
}

/// Files of entries.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_dir());
    let mut files: Vec<PathBuf> =
        folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path())).collect();
    files.sort();
    files
}

/// Size of all entries, at a moment at which none is being added or removed.
fn num_bytes(folder: &Path) -> u64 {
    let ledger = File::open(folder.join("fastclip-cache")).unwrap();
    ledger.lock().unwrap();
    entries(folder).iter().filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test]
async fn what_was_read_once_is_not_asked_for_again() {
    let (server, folder) = (server(3).await, TempDir::new().unwrap());
    let dataset = open(&server, cache(&folder)).await;
    read(&dataset, 3).await;
    let again = open(&server, cache(&folder)).await;
    let before = server.requests().len();
    for length in [1, 5, 8] {
        read(&again, length).await;
    }
    assert_eq!(server.requests()[before..], []);
    let stats = again.cache().unwrap().stats();
    assert!(stats.hits > 0 && (stats.misses, stats.damaged) == (0, 0), "{stats}");
}

#[tokio::test]
async fn neighbouring_blocks_that_are_missing_are_one_request() {
    let (server, folder) = (server(1).await, TempDir::new().unwrap());
    let dataset = open(&server, cache(&folder)).await;
    read_shard(&dataset, 0, 8).await;
    let of_tar: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|request| request.is_get && request.path.ends_with("00000.tar"))
        .collect();
    assert_eq!(of_tar.len(), 1, "{of_tar:?}");
}

#[tokio::test]
async fn damaged_entries_are_noticed_and_fetched_again() {
    let (server, folder) = (server(3).await, TempDir::new().unwrap());
    read(&open(&server, cache(&folder)).await, 4).await;
    let files = entries(folder.path());
    assert_eq!(files.len(), 3 * 3 + 3, "three blocks and an index a shard");
    for (i, file) in files.iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        match i % 6 {
            0 => bytes[middle] ^= 1,
            1 => bytes.truncate(middle),
            2 => bytes.clear(),
            3 => bytes[3] ^= 0x20,
            // As a power cut leaves it: the size is there, the bytes are not.
            4 => bytes.fill(0),
            _ => bytes = fs::read(&files[i - 1]).unwrap(),
        }
        fs::write(file, bytes).unwrap();
    }
    let dataset = open(&server, cache(&folder)).await;
    read(&dataset, 8).await;
    assert_eq!(dataset.cache().unwrap().stats().damaged, files.len() as u64);

    let before = server.requests().len();
    read(&dataset, 8).await;
    assert_eq!(server.requests()[before..], []);
}

#[tokio::test]
async fn entries_that_cannot_be_opened_stay() {
    let (server, folder) = (server(1).await, TempDir::new().unwrap());
    read(&open(&server, cache(&folder)).await, 4).await;
    let files = entries(folder.path());
    for file in &files {
        // A link to itself, which no user may open.
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink(file, file).unwrap();
    }
    let dataset = open(&server, cache(&folder)).await;
    read(&dataset, 4).await;
    assert_eq!(dataset.cache().unwrap().stats().damaged, 0);
    assert!(files.iter().all(|file| fs::symlink_metadata(file).is_ok()));
}

#[tokio::test]
async fn entries_under_each_others_names_are_noticed() {
    let (server, folder) = (server(2).await, TempDir::new().unwrap());
    read(&open(&server, cache(&folder)).await, 8).await;
    let whole: Vec<PathBuf> = entries(folder.path())
        .into_iter()
        .filter(|file| fs::metadata(file).unwrap().len() == MIB + 16)
        .collect();
    let [first, .., last] = &whole[..] else { panic!("{whole:?}") };
    fs::rename(first, folder.path().join("aside")).unwrap();
    fs::rename(last, first).unwrap();
    fs::rename(folder.path().join("aside"), last).unwrap();
    let dataset = open(&server, cache(&folder)).await;
    read(&dataset, 8).await;
    assert_eq!(dataset.cache().unwrap().stats().damaged, 2);
}

#[tokio::test]
async fn answers_of_the_wrong_length_and_cut_ones_do_not_enter_the_cache() {
    for fault in [S3Fault::ShorterBy(5000), S3Fault::CutAfter(300_000)] {
        let (server, folder) = (server(2).await, TempDir::new().unwrap());
        let mut number = 0;
        server.inject(move |request| {
            number += u32::from(request.path.ends_with(".tar") && request.is_get);
            (number % 2 == 1 && request.path.ends_with(".tar")).then_some(fault)
        });
        let dataset = open(&server, cache(&folder)).await;
        read(&dataset, 8).await;
        // What only the cache would have had may be missing: nobody asks for it again.
        server.inject(|_| None);
        read(&dataset, 8).await;
        let before = server.requests().len();
        read(&dataset, 2).await;
        assert_eq!(server.requests()[before..], [], "{fault:?}");
        assert_eq!(dataset.cache().unwrap().stats().damaged, 0);
    }
}

#[tokio::test]
async fn a_cache_stays_within_its_limit_and_keeps_what_was_used_last() {
    let (server, folder) = (server(12).await, TempDir::new().unwrap());
    let dataset = open(&server, cache(&folder)).await;
    for shard in 0..12 {
        read_shard(&dataset, shard, 8).await;
        // In use all the time.
        read_shard(&dataset, 0, 8).await;
        let num_bytes = num_bytes(folder.path());
        assert!(num_bytes <= LIMIT, "{num_bytes} bytes after shard {shard}");
        assert!(shard < 7 || num_bytes > LIMIT / 2, "{num_bytes} bytes after shard {shard}");
    }
    let before = server.requests().len();
    read_shard(&dataset, 0, 8).await;
    read_shard(&dataset, 11, 8).await;
    assert_eq!(server.requests()[before..], []);
    read_shard(&dataset, 1, 8).await;
    assert!(server.requests().len() > before, "the second shard has made room long ago");
}

#[tokio::test]
async fn a_compressed_shard_is_decompressed_once() {
    let (server, folder) = (server(1).await, TempDir::new().unwrap());
    let tar = fs::read(server.file("photos/00000.tar")).unwrap();
    let mut compressed = Vec::new();
    GzipEncoder::new(&tar[..]).read_to_end(&mut compressed).await.unwrap();
    fs::write(server.file("photos/00000.tar.gz"), &compressed).unwrap();
    let path = server.file("photos/manifest.json");
    let mut manifest = fastclip_schemas::Manifest::from_json(&fs::read(&path).unwrap()).unwrap();
    let entry = &mut manifest.shards[0];
    "00000.tar.gz".clone_into(&mut entry.name);
    entry.num_bytes = compressed.len() as u64;
    entry.digest = Digest(*blake3::hash(&compressed).as_bytes());
    fs::write(&path, manifest.to_json()).unwrap();

    let dataset = open(&server, cache(&folder)).await;
    read_shard(&dataset, 0, 1).await;
    let num_read =
        server.requests().iter().filter(|request| request.is_get && request.path.ends_with(".gz")).count();
    assert_eq!(num_read, 1, "the last sample was read first, and all others come before it");
    let without = Dataset::open_with(&server.location("photos"), &server.options()).await.unwrap();
    read_shard(&without, 0, 3).await;
}

#[test]
fn a_cache_refuses_what_it_cannot_work_with() {
    let folder = TempDir::new().unwrap();
    let error = Cache::open(folder.path(), LIMIT - 1).unwrap_err();
    assert_eq!(error.to_string(), "a cache of 16777215 bytes is too small: it needs 16777216");
    fs::write(folder.path().join("holiday.jpg"), "precious").unwrap();
    let error = Cache::open(folder.path(), LIMIT).unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` is neither empty nor a cache", folder.path().display()));
    let error = Cache::open(&folder.path().join("holiday.jpg"), LIMIT).unwrap_err();
    assert!(matches!(error, CacheError::Folder { .. }), "{error}");
    fs::write(folder.path().join("fastclip-cache"), "FCCACHE9").unwrap();
    assert!(matches!(Cache::open(folder.path(), LIMIT), Err(CacheError::Foreign { .. })));
}

#[tokio::test]
async fn files_of_others_in_the_folder_are_left_alone() {
    let (server, folder) = (server(12).await, TempDir::new().unwrap());
    let cache = cache(&folder);
    let strangers = ["notes.txt", "00/notes.txt", "ff/0000-0"].map(|name| folder.path().join(name));
    for stranger in &strangers {
        fs::create_dir_all(stranger.parent().unwrap()).unwrap();
        fs::write(stranger, "precious").unwrap();
    }
    read(&open(&server, cache).await, 8).await;
    assert!(strangers.iter().all(|stranger| fs::read(stranger).unwrap() == b"precious"));
}

#[tokio::test]
async fn a_cache_that_somebody_keeps_locked_is_read_and_else_done_without() {
    let (server, folder) = (server(2).await, TempDir::new().unwrap());
    let dataset = open(&server, cache(&folder)).await;
    read_shard(&dataset, 0, 8).await;
    let kept = entries(folder.path());
    let ledger = File::open(folder.path().join("fastclip-cache")).unwrap();
    ledger.lock().unwrap();
    let before = server.requests().len();
    read_shard(&dataset, 0, 8).await;
    assert_eq!(server.requests()[before..], []);
    read(&dataset, 2).await;
    assert_eq!(entries(folder.path()), kept);
    ledger.unlock().unwrap();
    read(&dataset, 8).await;
    assert_eq!(entries(folder.path()).len(), 2 * kept.len());
}

/// Name of the variable that tells a process that it is the child of its test, and has this folder for a cache.
const CACHE_OF_CHILD: &str = "CACHE_OF_CHILD";

/// Runs the named test of this program in another process, where [`child_cache`] gives it the folder.
fn child(test: &str, server: &S3Server, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).envs(server.environment()).env(CACHE_OF_CHILD, folder);
    command.env("LOCATION_OF_CHILD", server.location("photos"));
    command
}

fn child_cache() -> Option<PathBuf> {
    env::var_os(CACHE_OF_CHILD).map(PathBuf::from)
}

/// The dataset in a process that [`child`] has started.
async fn child_dataset(folder: &Path) -> Dataset {
    let location = env::var("LOCATION_OF_CHILD").unwrap();
    let dataset = Dataset::open_with(&location, &StoreOptions::from_process()).await.unwrap();
    dataset.with_cache(Cache::open(folder, LIMIT).unwrap())
}

#[tokio::test]
async fn several_processes_share_a_cache_that_is_too_small_for_them() {
    if let Some(folder) = child_cache() {
        let dataset = child_dataset(&folder).await;
        let start = std::process::id() as usize;
        for i in 0..18 {
            read_shard(&dataset, (start + i * 5) % 12, 3).await;
        }
        return;
    }
    let (server, folder) = (server(12).await, TempDir::new().unwrap());
    let test = "several_processes_share_a_cache_that_is_too_small_for_them";
    let mut children: Vec<Child> =
        (0..4).map(|_| child(test, &server, folder.path()).stdout(Stdio::null()).spawn().unwrap()).collect();
    let mut running = 4;
    while running > 0 {
        running =
            children.iter_mut().filter_map(|child| child.try_wait().unwrap().is_none().then_some(())).count();
        if folder.path().join("fastclip-cache").exists() {
            let num_bytes = num_bytes(folder.path());
            assert!(num_bytes <= LIMIT, "{num_bytes} bytes");
        }
        tokio::task::yield_now().await;
    }
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let stats = {
        let dataset = open(&server, cache(&folder)).await;
        read(&dataset, 8).await;
        dataset.cache().unwrap().stats()
    };
    assert!(stats.damaged == 0 && stats.hits > 0, "{stats}");
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_nothing_in_the_way() {
    if let Some(folder) = child_cache() {
        let dataset = child_dataset(&folder).await;
        loop {
            read(&dataset, 3).await;
        }
    }
    let (server, folder) = (server(12).await, TempDir::new().unwrap());
    for round in 0..6 {
        let test = "a_process_that_is_killed_leaves_nothing_in_the_way";
        let before = server.requests().len();
        let mut child = child(test, &server, folder.path()).stdout(Stdio::null()).spawn().unwrap();
        while server.requests().len() < before + 3 + round * 4 {
            assert!(child.try_wait().unwrap().is_none(), "the child has ended by itself");
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let dataset = open(&server, cache(&folder)).await;
    for _ in 0..2 {
        read(&dataset, 8).await;
        assert!(num_bytes(folder.path()) <= LIMIT);
    }
    let before = server.requests().len();
    read_shard(&dataset, 11, 2).await;
    assert_eq!(server.requests()[before..], []);
    assert_eq!(dataset.cache().unwrap().stats().damaged, 0);
}

/// The system refuses to let files grow, as a full disk does.
#[cfg(unix)]
#[tokio::test]
async fn when_the_disk_takes_no_more_reading_goes_on_and_says_so_once() {
    if let Some(folder) = child_cache() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        let dataset = child_dataset(&folder).await;
        read(&dataset, 3).await;
        read(&dataset, 8).await;
        return;
    }
    let (server, folder) = (server(3).await, TempDir::new().unwrap());
    let child = child("when_the_disk_takes_no_more_reading_goes_on_and_says_so_once", &server, folder.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"trap '' XFSZ; ulimit -f 500; exec "$@""#, "sh"]);
    limited.arg(child.get_program()).args(child.get_args());
    limited.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let finished = run(&mut limited).assert_code(0);
    assert_eq!(finished.stderr.matches("takes nothing more").count(), 1, "{finished}");
    let left: Vec<PathBuf> = entries(folder.path())
        .into_iter()
        .filter(|file| file.extension().is_some() || fs::metadata(file).unwrap().len() > 500 << 10)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

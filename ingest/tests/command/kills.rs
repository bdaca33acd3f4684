//! `kill -9`, again and again, at moments that are drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use fastclip_testkit::{S3Fault, S3Server, WebAnswer, WebServer};

use crate::download::{download, list};
use crate::parts::dataset;
use crate::support::{Ran, Scratch, jpeg};

const NUM_ROWS: usize = 36;

/// As `download` of the tests of that command says.
const ROWS_PER_SHARD: usize = 8;

/// How often processes are killed in each test.
const NUM_KILLS: usize = 50;

/// Where the dataset goes.
enum Output {
    Folder(&'static str),
    Bucket(S3Server),
}

impl Output {
    fn location(&self) -> String {
        match self {
            Self::Folder(folder) => (*folder).to_owned(),
            Self::Bucket(server) => server.location("out"),
        }
    }

    fn folder(&self, scratch: &Scratch) -> PathBuf {
        match self {
            Self::Folder(folder) => scratch.path(folder),
            Self::Bucket(server) => server.file("out"),
        }
    }
}

/// Runs commands and kills them.
struct Killer<'a> {
    scratch: &'a Scratch,
    server: &'a WebServer,
    output: &'a Output,
    /// What a file has to be if it can be seen at all.
    expected: BTreeMap<String, Vec<u8>>,
    /// How often the rows of complete shards had been asked for.
    asked: BTreeMap<usize, usize>,
    /// State of a generator of random numbers; any start will do, and one that failed can be repeated.
    random: u64,
    num_kills: usize,
}

impl Killer<'_> {
    fn draw(&mut self, below: u64) -> u64 {
        // Knuth's MMIX.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Runs a command until it ends by itself.
    fn run(&mut self, arguments: &[&str]) {
        // Later and later, since some commands have to come to their end without being killed.
        for latest in (16..).step_by(16) {
            let moment = self.draw(latest) as usize + 1;
            let ended = match self.output {
                Output::Folder(_) => self.run_until_changed(arguments, moment),
                Output::Bucket(server) => self.run_until_asked(arguments, server, moment),
            };
            self.check_what_is_there();
            let Some(ran) = ended else {
                self.num_kills += 1;
                continue;
            };
            assert_eq!(ran.code, Some(0), "{arguments:?} printed {}{}", ran.stdout, ran.stderr);
            return;
        }
    }

    /// Kills it when so many changes of the folder were seen.
    fn run_until_changed(&self, arguments: &[&str], moment: usize) -> Option<Ran> {
        let folder = self.output.folder(self.scratch);
        let mut child =
            self.scratch.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut seen, mut num_changes) = (listing(&folder), 0);
        while num_changes < moment {
            if child.try_wait().unwrap().is_some() {
                return Some(Ran::from(child.wait_with_output().unwrap()));
            }
            let now = listing(&folder);
            if now != seen {
                (seen, num_changes) = (now, num_changes + 1);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    }

    /// Kills it when it sends this request, which the server does not hear of, or begins to carry out.
    fn run_until_asked(&mut self, arguments: &[&str], server: &S3Server, moment: usize) -> Option<Ran> {
        let fault = (self.draw(2) == 0).then_some(S3Fault::Silence);
        let (reached, is_reached) = mpsc::channel();
        let mut num_requests = 0;
        server.inject(move |_| {
            num_requests += 1;
            if num_requests != moment {
                return None;
            }
            // Nobody listens when the process has ended.
            let _ = reached.send(());
            fault
        });
        let mut command = self.scratch.command(arguments);
        let command = command.envs(server.environment()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while is_reached.recv_timeout(Duration::from_millis(1)).is_err() {
            if child.try_wait().unwrap().is_some() {
                return Some(Ran::from(child.wait_with_output().unwrap()));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        server.inject(|_| None);
        None
    }

    /// Checks that nothing can be seen that is not whole, and that nothing complete was fetched once more.
    fn check_what_is_there(&mut self) {
        let folder = self.output.folder(self.scratch);
        for name in
            listing(&folder).keys().filter(|name| name.ends_with(".tar") || name.ends_with(".parquet"))
        {
            assert!(
                fs::read(folder.join(name)).unwrap() == self.expected[name],
                "`{name}` is not what it should be"
            );
        }
        for (row, before) in &self.asked {
            let now = self.server.num_requests(&format!("/{row}.jpg"));
            assert_eq!(now, *before, "row {row} of a complete shard was fetched once more");
        }
        for shard in 0..NUM_ROWS.div_ceil(ROWS_PER_SHARD) {
            if folder.join(format!("download-state/{shard:05}.json")).exists() {
                for row in shard * ROWS_PER_SHARD..((shard + 1) * ROWS_PER_SHARD).min(NUM_ROWS) {
                    self.asked.entry(row).or_insert_with(|| self.server.num_requests(&format!("/{row}.jpg")));
                }
            }
        }
    }
}

/// Name and size of every file below a folder; none is there before the first.
fn listing(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        // What goes while it is looked at is not there.
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, metadata.len());
            }
        }
    }
    found
}

/// Answers some rows with 503 at first, and later as it should.
fn set_hosts(server: &WebServer, are_well: bool) {
    for row in (0..NUM_ROWS).step_by(5) {
        let answer =
            if are_well { WebAnswer::Body(jpeg(row)) } else { WebAnswer::Whole(503, Vec::new(), Vec::new()) };
        server.answer(&format!("/{row}.jpg"), answer);
    }
}

#[expect(clippy::print_stdout, reason = "what was drawn is asked for when it fails")]
fn a_killed_run_ends_with_the_dataset_of_one_that_was_not(output: &Output) {
    let (scratch, server) = (Scratch::new(), WebServer::start());
    list(&scratch, &server, NUM_ROWS);
    let more = ["--retries", "0", "--thread-count", "4", "--threads", "1"];
    let again = |location| ["retry", location, "--allow-private-hosts", "--retries", "0", "--threads", "1"];
    set_hosts(&server, false);
    scratch.ingest_well(&download("whole", &more));
    set_hosts(&server, true);
    scratch.ingest_well(&again("whole"));
    let expected = dataset(&scratch, "whole");

    let location = output.location();
    let seed = RandomState::new().hash_one(0);
    println!("drawing from {seed}");
    let mut killer = Killer {
        scratch: &scratch,
        server: &server,
        output,
        expected: expected.clone(),
        asked: BTreeMap::new(),
        random: seed,
        num_kills: 0,
    };
    // Datasets are made until there were enough kills, by one process or by three after each other.
    let mut num_datasets = 0;
    while killer.num_kills < NUM_KILLS {
        set_hosts(&server, false);
        if num_datasets % 2 == 0 {
            for part in ["2/3", "1/3", "3/3"] {
                killer.run(&download(&location, &[&more[..], &["--part", part]].concat()));
            }
            killer.run(&["finish", &location]);
        } else {
            killer.run(&download(&location, &more));
        }
        killer.asked.clear();
        set_hosts(&server, true);
        killer.run(&again(&location));
        let folder = output.folder(&scratch);
        let found: BTreeSet<String> = listing(&folder).into_keys().collect();
        for (name, bytes) in &expected {
            assert!(
                fs::read(folder.join(name)).unwrap() == *bytes,
                "`{name}` differs after {} kills",
                killer.num_kills
            );
        }
        let others: Vec<&String> = found
            .iter()
            .filter(|name| !expected.contains_key(*name) && !name.ends_with("_stats.json"))
            .filter(|name| !name.starts_with('.'))
            .collect();
        assert!(others.is_empty(), "left behind: {others:?}");
        fs::remove_dir_all(&folder).unwrap();
        num_datasets += 1;
    }
    println!("{} kills, {num_datasets} datasets", killer.num_kills);
}

#[test]
fn fifty_kills_leave_the_very_same_dataset_in_a_folder() {
    a_killed_run_ends_with_the_dataset_of_one_that_was_not(&Output::Folder("out"));
}

#[test]
fn fifty_kills_leave_the_very_same_dataset_in_a_bucket() {
    a_killed_run_ends_with_the_dataset_of_one_that_was_not(&Output::Bucket(S3Server::start()));
}

use std::path::Path;

use fastclip_testkit::run;
use tempfile::TempDir;

use crate::ingest;

/// A toy world that was drawn and packed by the real `ingest`, gone when this is dropped.
#[derive(Debug)]
pub struct ToyWorld {
    folder: TempDir,
}

impl ToyWorld {
    /// Draws and packs so many pictures of 32 pixels, in shards of 40.
    ///
    /// # Panics
    /// If `ingest` fails.
    pub fn new(train: u32, held_out: u32) -> Self {
        let world = Self { folder: TempDir::new().expect("a temporary folder can be made") };
        let (train, held_out) = (train.to_string(), held_out.to_string());
        let drawn = world.path("drawn");
        let synth =
            ["synth", "--output", &drawn, "--train", &train, "--held-out", &held_out, "--image-size", "32"];
        run(&mut ingest(synth)).assert_code(0);
        for split in ["train", "held-out"] {
            let (table, output) = (world.path(&format!("drawn/{split}/table.jsonl")), world.path(split));
            let pack = ["pack", "--input", &table, "--output", &output, "--samples-per-shard", "40"];
            run(&mut ingest(pack)).assert_code(0);
        }
        world
    }

    /// The packed training pictures.
    pub fn train(&self) -> String {
        self.path("train")
    }

    /// The packed held-out pictures, with class names and templates.
    pub fn held_out(&self) -> String {
        self.path("held-out")
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("temporary folders have readable names").to_owned()
    }

    /// Its folder, in which `drawn`, `train` and `held-out` lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

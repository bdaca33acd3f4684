use serde::Serialize;

use super::class::{Class, Split};
use super::scene::{Object, Scene};

/// A line of `table.jsonl`: one picture, what is said about it, and what is in it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Path of the picture beside the table.
    image: String,
    caption: String,
    cls: usize,
    colour: &'static str,
    shape: &'static str,
    texture: &'static str,
    size: &'static str,
    position: &'static str,
    background: &'static str,
    lighting: &'static str,
    /// The smaller objects, each as `green star`.
    other_objects: Vec<String>,
    /// Whether training never shows this colour and shape together.
    held_out_combination: bool,
}

impl Row {
    pub(super) fn new(scene: &Scene, caption: String, index: u64) -> Self {
        let class = scene.class();
        let main = scene.main();
        Self {
            image: image_path(index),
            caption,
            cls: class.number(),
            colour: main.colour.name(),
            shape: main.shape.name(),
            texture: main.surface.name(),
            size: scene.size.name(),
            position: main.place.name(),
            background: scene.background.name(),
            lighting: scene.lighting.name(),
            other_objects: scene.companions().iter().map(name).collect(),
            held_out_combination: class.is_held_out(),
        }
    }

    /// The row as one line of JSON, without the line's end.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row holds only text, numbers and flags")
    }
}

fn name(object: &Object) -> String {
    Class { colour: object.colour, shape: object.shape }.name()
}

/// Path of a picture in the folder of its split. A thousand to a folder: some file systems and most people do
/// badly with more.
pub(super) fn image_path(index: u64) -> String {
    format!("{}/{index:08}.jpg", image_folder(index))
}

/// Folder of a picture.
pub(super) fn image_folder(index: u64) -> String {
    format!("images/{:05}", index / IMAGES_PER_FOLDER)
}

/// Pictures in one folder.
pub(super) const IMAGES_PER_FOLDER: u64 = 1_000;

/// Name of the table in the folder of a split.
pub(super) const TABLE_FILE: &str = "table.jsonl";

impl Split {
    /// Both, in the order in which they are made.
    pub(super) const ALL: [Split; 2] = [Split::Train, Split::HeldOut];
}

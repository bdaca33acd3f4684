//! A toy world: photo-like pictures of coloured shapes, each with a caption that says what is in it.
//!
//! It exists so that the whole road, from packing to evaluation, can be tried and tested in minutes on a
//! machine without a network. The task is small but not a lookup: colours, places and surroundings are easy
//! to learn, shapes and surfaces take longer, captions vary in words and order, and some combinations of
//! colour and shape are held back.
//!
//! ```text
//! seed, split, index ─► Scene ─┬─► render ─► JPEG
//!                              └─► caption, table row
//! ```
//!
//! The hard idea is that a picture is a pure function of (seed, split, index): each has random streams of its
//! own, one for the scene, one for the words and one for the pixels. So threads may draw in any order, a
//! larger world begins with the smaller one, and another image size shows the same scenes. All arithmetic on
//! pixels is IEEE-exact (no `sin`, no `exp` of the platform's library), hence the bytes are the same on every
//! machine.
//!
//! # What is on disk
//!
//! ```text
//! DIR/synth.json               the settings; written last
//! DIR/train/table.jsonl        a row for each picture
//! DIR/train/images/00000/00000000.jpg …
//! DIR/held-out/…               the same, with classnames.txt and zeroshot_classification_templates.txt
//! ```
//!
//! A row has `image`, `caption` and `cls`, and what the caption may have left out: `colour`, `shape`,
//! `texture`, `size` and `position` of the main object, `background`, `lighting`, `other_objects`,
//! `held_out_combination`.
//!
//! The class is colour and shape of the main, largest object: a hundred classes. Twenty of them, two for each
//! colour and two for each shape, occur nowhere in training. Held-out pictures with an even number show one
//! of the other eighty classes, those with an odd number one of these twenty; `held_out_combination` says
//! which. Both halves go round their classes, so any 160 consecutive held-out pictures show all of them.
//!
//! # Files of this module
//!
//! | file | holds |
//! |---|---|
//! | `shape`, `colour`, `surface`, `background`, `place`, `lighting` | the vocabulary: what exists, and the words for it |
//! | `class` | colour and shape together: the class of a picture, and which classes are held back |
//! | `scene` | one picture as data |
//! | `outline`, `noise`, `painter`, `render` | from a scene to pixels |
//! | `caption`, `phrase` | from a scene to a sentence |
//! | `options`, `settings`, `table`, `world`, `report` | what is written to disk, and in which order |

mod args;
mod background;
mod caption;
mod class;
mod colour;
mod draw;
mod error;
mod lighting;
mod noise;
mod options;
mod outline;
mod painter;
mod phrase;
mod place;
mod render;
mod report;
mod scene;
mod settings;
mod shape;
mod surface;
mod table;
mod world;

pub use args::SynthArgs;
pub use error::SynthError;
pub use options::SynthOptions;
pub use report::SynthReport;
pub use world::{SETTINGS_FILE, synth};

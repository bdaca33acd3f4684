use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fastclip_schemas::zero_shot;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use super::caption::{CLASS_TEMPLATES, caption};
use super::class::{Class, Split};
use super::draw::{Draw, Purpose};
use super::error::SynthError;
use super::options::SynthOptions;
use super::render::render;
use super::report::SynthReport;
use super::scene::Scene;
use super::settings::Settings;
use super::table::{IMAGES_PER_FOLDER, Row, TABLE_FILE, image_folder, image_path};
use crate::Progress;

/// The settings of a world, beside its splits. It is written last: where it is, the world is complete.
pub const SETTINGS_FILE: &str = "synth.json";

/// Stands in a folder whose world is being made, so that what an interrupted run left is known to be ours.
const UNFINISHED_FILE: &str = "synth.unfinished.json";

/// Pictures that a thread draws before it reports: some milliseconds of work.
const CHUNK: u64 = 32;

/// Makes a toy world, or finds that it is there already.
///
/// The files depend on the settings alone: not on the number of threads, nor on the machine.
/// [`SETTINGS_FILE`] is written when everything else is; a run that was interrupted before is started anew by
/// the next one.
///
/// # Errors
/// [`SynthError::Option`] for settings that no world can have, [`SynthError::OtherWorld`] and [`SynthError::NotAWorld`] if the
/// folder holds something else. In these cases nothing on disk has changed.
///
/// # Threads
/// Starts `options.threads` threads and joins them before it returns.
pub fn synth(options: &SynthOptions, progress: &Progress) -> Result<SynthReport, SynthError> {
    let settings = options.settings()?;
    let mut report = SynthReport {
        output: options.output.clone(),
        train: options.train,
        held_out: options.held_out,
        num_bytes: 0,
        was_there: is_there(options, &settings)?,
    };
    if report.was_there {
        return Ok(report);
    }
    progress.set_total(options.train + options.held_out);
    clear(&options.output)?;
    create_folder(&options.output)?;
    let unfinished = options.output.join(UNFINISHED_FILE);
    let json = serde_json::to_string_pretty(&settings).expect("settings are numbers");
    write(&unfinished, format!("{json}\n").as_bytes())?;
    for (split, count) in Split::ALL.into_iter().zip([options.train, options.held_out]) {
        report.num_bytes += make_split(options, split, count, progress)?;
    }
    write_class_files(&options.output.join(Split::HeldOut.name()))?;
    let finished = options.output.join(SETTINGS_FILE);
    fs::rename(&unfinished, &finished).map_err(|source| SynthError::Files {
        action: "write",
        path: finished,
        source,
    })?;
    Ok(report)
}

/// Whether the wanted world is complete. If anything is in the way, that is an error.
fn is_there(options: &SynthOptions, wanted: &Settings) -> Result<bool, SynthError> {
    let path = options.output.join(SETTINGS_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if is_ours_or_empty(&options.output)? {
                Ok(false)
            } else {
                Err(SynthError::NotAWorld { folder: options.output.clone() })
            };
        }
        Err(source) => return Err(SynthError::Files { action: "read", path, source }),
    };
    if options.overwrite {
        return Ok(serde_json::from_slice::<Settings>(&bytes).is_ok_and(|present| present == *wanted));
    }
    let present: Settings =
        serde_json::from_slice(&bytes).map_err(|source| SynthError::Settings { path, source })?;
    let differences: Vec<String> = present.differences(wanted).iter().map(ToString::to_string).collect();
    if differences.is_empty() {
        return Ok(true);
    }
    Err(SynthError::OtherWorld { folder: options.output.clone(), differences: differences.join(", ") })
}

fn is_ours_or_empty(folder: &Path) -> Result<bool, SynthError> {
    if folder.join(UNFINISHED_FILE).exists() {
        return Ok(true);
    }
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(SynthError::Files { action: "read", path: folder.to_owned(), source }),
    }
}

/// Removes an older world, complete or not. The settings go first: from then on the world counts as
/// unfinished.
fn clear(folder: &Path) -> Result<(), SynthError> {
    let (settings, unfinished) = (folder.join(SETTINGS_FILE), folder.join(UNFINISHED_FILE));
    if settings.exists() {
        fs::rename(&settings, &unfinished).map_err(|source| SynthError::Files {
            action: "remove",
            path: settings,
            source,
        })?;
    }
    for split in Split::ALL {
        let path = folder.join(split.name());
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SynthError::Files { action: "remove", path, source }),
        }
    }
    Ok(())
}

/// Draws all pictures of one split and writes its table; the bytes of the pictures.
fn make_split(
    options: &SynthOptions,
    split: Split,
    count: u64,
    progress: &Progress,
) -> Result<u64, SynthError> {
    let folder = options.output.join(split.name());
    for number in 0..count.div_ceil(IMAGES_PER_FOLDER) {
        create_folder(&folder.join(image_folder(number * IMAGES_PER_FOLDER)))?;
    }
    let table_path = folder.join(TABLE_FILE);
    let refused = |source| SynthError::Files { action: "write", path: table_path.clone(), source };
    let mut table = BufWriter::new(fs::File::create(&table_path).map_err(refused)?);
    let next_chunk = AtomicU64::new(0);
    let num_chunks = count.div_ceil(CHUNK);
    // Few places: a thread that finds them taken waits until the table has caught up.
    let (sender, receiver) = crossbeam_channel::bounded(2 * options.threads.get());
    thread::scope(|scope| {
        // The receiver ends with this closure: when it stops early, threads find nobody to send to and stop
        // as well.
        let receiver = receiver;
        for _ in 0..options.threads.get() {
            let sender = sender.clone();
            let (folder, next_chunk) = (&folder, &next_chunk);
            scope.spawn(move || {
                let mut artist = None;
                loop {
                    let chunk = next_chunk.fetch_add(1, Ordering::Relaxed);
                    if chunk >= num_chunks {
                        return;
                    }
                    let pictures = chunk * CHUNK..count.min((chunk + 1) * CHUNK);
                    let drawn = make_chunk(&mut artist, options, split, folder, pictures);
                    if sender.send((chunk, drawn)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Chunks arrive as they are done, and lines are written in order.
        let mut early = BTreeMap::new();
        let (mut due, mut num_bytes) = (0, 0);
        for (number, drawn) in receiver {
            let drawn: Chunk = drawn?;
            progress.advance(drawn.num_pictures, drawn.num_bytes);
            num_bytes += drawn.num_bytes;
            early.insert(number, drawn.lines);
            while let Some(lines) = early.remove(&due) {
                table.write_all(lines.as_bytes()).map_err(refused)?;
                due += 1;
            }
        }
        table.flush().map_err(refused)?;
        Ok(num_bytes)
    })
}

/// Some pictures that are on disk, and their lines of the table.
struct Chunk {
    num_pictures: u64,
    num_bytes: u64,
    lines: String,
}

fn make_chunk(
    artist: &mut Option<Compressor>,
    options: &SynthOptions,
    split: Split,
    folder: &Path,
    pictures: std::ops::Range<u64>,
) -> Result<Chunk, SynthError> {
    let mut chunk = Chunk { num_pictures: pictures.end - pictures.start, num_bytes: 0, lines: String::new() };
    for index in pictures {
        let scene = Scene::compose(options.seed, split, index);
        let failed = |source| SynthError::Encode { split: split.name(), index, source };
        let compressor = match artist {
            Some(compressor) => compressor,
            None => artist.insert(compressor(options.quality).map_err(failed)?),
        };
        let draw = &mut Draw::new(options.seed, split as u64, index, Purpose::Pixels);
        let jpeg = encode(compressor, &render(&scene, options.image_size as usize, draw), options.image_size);
        let jpeg = jpeg.map_err(failed)?;
        write(&folder.join(image_path(index)), &jpeg)?;
        chunk.num_bytes += jpeg.len() as u64;
        let row = Row::new(&scene, caption(&scene, options.seed, split as u64, index), index);
        writeln!(chunk.lines, "{}", row.to_json()).expect("text in memory takes every line");
    }
    Ok(chunk)
}

fn compressor(quality: u8) -> Result<Compressor, turbojpeg::Error> {
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality.into())?;
    // What cameras and most of the web do.
    compressor.set_subsamp(Subsamp::Sub2x2)?;
    Ok(compressor)
}

fn encode(compressor: &mut Compressor, pixels: &[u8], size: u32) -> Result<Vec<u8>, turbojpeg::Error> {
    let size = size as usize;
    compressor.compress_to_vec(Image {
        pixels,
        width: size,
        pitch: 3 * size,
        height: size,
        format: PixelFormat::RGB,
    })
}

/// Class names and prompt templates, as other CLIP tools expect them.
fn write_class_files(folder: &Path) -> Result<(), SynthError> {
    let names: String = Class::all().map(|class| class.name() + "\n").collect();
    write(&folder.join(zero_shot::CLASS_NAMES_FILE), names.as_bytes())?;
    let templates: String = CLASS_TEMPLATES.map(|template| format!("{template}\n")).concat();
    write(&folder.join(zero_shot::TEMPLATES_FILE), templates.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    fs::write(path, bytes).map_err(|source| SynthError::Files {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

fn create_folder(path: &Path) -> Result<(), SynthError> {
    fs::create_dir_all(path).map_err(|source| SynthError::Files {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;

    use super::*;

    fn options(output: &Path) -> SynthOptions {
        SynthOptions {
            output: output.to_owned(),
            train: 70,
            held_out: 40,
            image_size: 32,
            seed: 0,
            quality: 92,
            threads: NonZeroUsize::new(3).unwrap(),
            overwrite: false,
        }
    }

    fn make(options: &SynthOptions) -> Result<SynthReport, SynthError> {
        synth(options, &Progress::silent())
    }

    /// Every file of a folder with its bytes, by path.
    fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let files =
            walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|e| e.file_type().is_file());
        files
            .map(|e| (e.path().strip_prefix(folder).unwrap().to_owned(), fs::read(e.path()).unwrap()))
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(&options(one.path())).unwrap();
        make(&SynthOptions { threads: NonZeroUsize::MIN, ..options(other.path()) }).unwrap();
        let (one, other) = (content(one.path()), content(other.path()));
        assert_eq!(one.len(), 70 + 40 + 2 + 2 + 1);
        assert!(one.keys().eq(other.keys()));
        assert!(one == other, "same names, other bytes");
    }

    #[test]
    fn another_seed_gives_other_pictures() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(&options(one.path())).unwrap();
        make(&SynthOptions { seed: 1, ..options(other.path()) }).unwrap();
        let (one, other) = (content(one.path()), content(other.path()));
        let same =
            one.iter().filter(|(path, bytes)| path.ends_with(".jpg") && other[*path] == **bytes).count();
        assert_eq!(same, 0);
    }

    #[test]
    fn a_larger_world_begins_with_the_smaller_one() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(&options(one.path())).unwrap();
        make(&SynthOptions { train: 90, ..options(other.path()) }).unwrap();
        let table = |folder: &Path| fs::read_to_string(folder.join("train").join(TABLE_FILE)).unwrap();
        assert!(table(other.path()).starts_with(&table(one.path())));
    }

    #[test]
    fn table_lines_name_pictures_that_are_there_and_have_the_wanted_size() {
        let folder = tempfile::tempdir().unwrap();
        make(&options(folder.path())).unwrap();
        for (split, count) in [("train", 70), ("held-out", 40)] {
            let split = folder.path().join(split);
            let table = fs::read_to_string(split.join(TABLE_FILE)).unwrap();
            assert_eq!(table.lines().count(), count);
            for line in table.lines() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let jpeg = fs::read(split.join(row["image"].as_str().unwrap())).unwrap();
                let header = turbojpeg::read_header(&jpeg).unwrap();
                assert_eq!((header.width, header.height), (32, 32), "{line}");
                assert!(row["cls"].as_u64().unwrap() < 100, "{line}");
            }
        }
    }

    #[test]
    fn the_same_settings_again_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = make(&options(folder.path())).unwrap();
        assert!(!first.was_there && first.num_bytes > 0);
        // Were anything drawn again, the missing picture would come back.
        let picture = folder.path().join("train").join(image_path(3));
        fs::remove_file(&picture).unwrap();
        let second = make(&options(folder.path())).unwrap();
        assert!(second.was_there && !picture.exists());
        assert!(second.to_string().starts_with("already there"), "{second}");
    }

    #[test]
    fn other_settings_are_refused_by_name_unless_told_to_overwrite() {
        let folder = tempfile::tempdir().unwrap();
        make(&options(folder.path())).unwrap();
        let wanted = SynthOptions { seed: 9, train: 5, ..options(folder.path()) };
        let error = make(&wanted).unwrap_err();
        assert!(error.is_refusal() && error.hint().is_some());
        assert!(
            error.to_string().ends_with("`train` is 70 there and 5 here, `seed` is 0 there and 9 here"),
            "{error}"
        );
        make(&SynthOptions { overwrite: true, ..wanted }).unwrap();
        assert_eq!(content(folder.path()).len(), 5 + 40 + 2 + 2 + 1);
    }

    #[test]
    fn a_folder_with_other_files_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("train").join("thesis.txt");
        fs::create_dir_all(precious.parent().unwrap()).unwrap();
        fs::write(&precious, "all of it").unwrap();
        let error = make(&SynthOptions { overwrite: true, ..options(folder.path()) }).unwrap_err();
        assert!(matches!(error, SynthError::NotAWorld { .. }), "{error}");
        assert_eq!(fs::read_to_string(precious).unwrap(), "all of it");
    }

    #[test]
    fn what_an_interrupted_run_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        make(&options(folder.path())).unwrap();
        let whole = content(folder.path());
        fs::rename(folder.path().join(SETTINGS_FILE), folder.path().join(UNFINISHED_FILE)).unwrap();
        fs::write(folder.path().join("train/images/00000/99999999.jpg"), "left over").unwrap();
        assert!(!make(&options(folder.path())).unwrap().was_there);
        assert!(whole == content(folder.path()), "not what an undisturbed run makes");
    }

    #[test]
    fn impossible_settings_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("world");
        for (bad, message) in [
            (SynthOptions { train: 0, ..options(&output) }, "`--train` is 0, but must be at least 1"),
            (SynthOptions { held_out: 0, ..options(&output) }, "`--held-out` is 0, but must be at least 1"),
            (
                SynthOptions { image_size: 0, ..options(&output) },
                "`--image-size` is 0, but must be from 16 to 4096",
            ),
            (
                SynthOptions { quality: 101, ..options(&output) },
                "`--quality` is 101, but must be from 1 to 100",
            ),
        ] {
            let error = make(&bad).unwrap_err();
            assert!(error.is_refusal() && error.to_string().starts_with(message), "{error}");
        }
        assert!(!output.exists());
    }

    #[test]
    fn the_smallest_world_works() {
        let folder = tempfile::tempdir().unwrap();
        make(&SynthOptions { train: 1, held_out: 1, image_size: 16, ..options(folder.path()) }).unwrap();
        assert_eq!(content(folder.path()).len(), 1 + 1 + 2 + 2 + 1);
    }
    #[test]
    fn the_pictures_and_captions_of_this_version_never_change() {
        // Whoever changes them on purpose raises `WORLD_VERSION` and replaces the digest.
        let mut digest = blake3::Hasher::new();
        for index in 0..100 {
            let scene = Scene::compose(0, Split::HeldOut, index);
            digest.update(caption(&scene, 0, Split::HeldOut as u64, index).as_bytes());
            digest.update(&render(&scene, 40, &mut Draw::new(0, 1, index, Purpose::Pixels)));
        }
        assert_eq!(
            digest.finalize().to_hex().as_str(),
            "e3a5e2dbaf92aee7ebebbc1a6f3c42c715d4dc34e621c45402b59ccdb880c952"
        );
    }
}

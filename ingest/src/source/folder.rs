use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastclip_schemas::Digest;
use walkdir::{DirEntry, WalkDir};

use super::place::Place;
use super::{Content, ImageFile, OtherColumns, Pair, Row, Rows, SourceError, Text};

/// Extensions of images. What is inside is found out by content.
const IMAGES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif"];

/// Extensions of the files that may lie beside an image of the same stem.
const COMPANIONS: [&str; 3] = ["txt", "json", "cls"];

/// The images below a folder, sorted by path.
#[derive(Debug)]
pub(super) struct Listing {
    root: PathBuf,
    images: Arc<[PathBuf]>,
    digest: Digest,
}

impl Listing {
    /// Walks through the folder and all below it. Links are followed, hidden files are not looked at.
    pub(super) fn of(root: &Path) -> Result<Self, SourceError> {
        let mut images = Vec::new();
        let mut digest = blake3::Hasher::new();
        let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
        for found in walk.into_iter().filter_entry(|found| found.depth() == 0 || !is_hidden(found)) {
            let (path, num_bytes) = match found {
                Ok(found) if !found.file_type().is_file() => continue,
                Ok(found) => {
                    let num_bytes = found.metadata().map_or(0, |metadata| metadata.len());
                    (found.into_path(), num_bytes)
                }
                Err(error) => (broken_link(root, error)?, 0),
            };
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let extension = extension.to_lowercase();
            let is_image = IMAGES.contains(&extension.as_str());
            if !is_image && !COMPANIONS.contains(&extension.as_str()) {
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            digest.update(relative.as_os_str().as_encoded_bytes());
            // Names hold no NUL, so name and size cannot run into each other.
            digest.update(&[0]).update(&num_bytes.to_le_bytes());
            if is_image {
                images.push(relative);
            }
        }
        let digest = Digest(*digest.finalize().as_bytes());
        Ok(Self { root: root.to_owned(), images: images.into(), digest })
    }

    pub(super) fn num_rows(&self) -> u64 {
        self.images.len() as u64
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn rows(&self, first: u64) -> Rows {
        let (images, root) = (Arc::clone(&self.images), self.root.clone());
        let rows = (first..images.len() as u64).map(move |number| {
            let image = &images[number as usize];
            let beside = |extension| Place::local(root.join(image.with_extension(extension)));
            let content = Content::Pair(Box::new(Pair {
                image: ImageFile::Place(Place::local(root.join(image))),
                caption: Text::File(beside("txt")),
                class: Text::File(beside("cls")),
                columns: OtherColumns::File(beside("json")),
            }));
            Ok(Row { number, image: image.to_string_lossy().into_owned(), content })
        });
        Box::new(rows)
    }
}

fn is_hidden(found: &DirEntry) -> bool {
    found.file_name().as_encoded_bytes().starts_with(b".")
}

/// A link that leads nowhere is a row whose file is missing; anything else that cannot be walked ends the walk.
fn broken_link(root: &Path, error: walkdir::Error) -> Result<PathBuf, SourceError> {
    let path = error.path().unwrap_or(root).to_owned();
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    match error.into_io_error() {
        Some(source) if is_link && source.kind() == std::io::ErrorKind::NotFound => Ok(path),
        Some(source) => Err(SourceError::Read { path, source }),
        None => Err(SourceError::Read {
            path,
            source: std::io::Error::other("a link leads back to its own folder"),
        }),
    }
}

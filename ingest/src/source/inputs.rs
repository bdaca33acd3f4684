use std::path::{Path, PathBuf};

use fastclip_shards::{Store, StoreError, StoreErrorKind, StoreOptions, expand_braces, without_secrets};
use glob::{MatchOptions, Pattern};
use walkdir::WalkDir;

use super::SourceError;
use super::place::Place;
use super::table_file::extension_of_table;
use crate::runtime::wait_for;

/// Stars stand for anything within a name; `**` for any folders.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// What a command reads: files, folders, patterns and URLs, one after another.
///
/// Braces are expanded first, as in `list-{00..15}.parquet`. A pattern (`*`, `?`, `[ab]`, `**`) and a folder stand for
/// what they match, sorted by name. Files are read in the order in which this gives them.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Paths and URLs (`s3://`, `gs://`, `az://`, `http(s)://`, `file://`).
    pub paths: Vec<PathBuf>,
    /// How stores are reached.
    pub store: StoreOptions,
}

impl From<PathBuf> for Inputs {
    fn from(path: PathBuf) -> Self {
        Self { paths: vec![path], store: StoreOptions::default() }
    }
}

impl Inputs {
    /// Names for the manifest: not whole paths, which say more about the machine than about the data.
    pub(crate) fn name(&self) -> String {
        let name =
            |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        self.paths.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The input as one path, for messages.
    pub(crate) fn shown(&self) -> PathBuf {
        let shown = |path: &PathBuf| without_secrets(&path.to_string_lossy());
        self.paths.iter().map(shown).collect::<Vec<_>>().join(", ").into()
    }

    /// The folder of this machine that is all of the input.
    pub(super) fn only_folder(&self) -> Option<&Path> {
        match &self.paths[..] {
            [path] if path.is_dir() => Some(path),
            _ => None,
        }
    }

    /// The tables of the input.
    pub(super) fn tables(&self) -> Result<Vec<Place>, SourceError> {
        let mut places = Vec::new();
        for path in &self.paths {
            // What is there is meant, whatever characters its name has.
            if path.exists() {
                places.extend(self.tables_at(path)?);
                continue;
            }
            let names = match path.to_str() {
                Some(text) => expand_braces(text).map_err(|source| SourceError::store(path, source))?,
                None => return Err(SourceError::NotFound { path: path.clone() }),
            };
            for name in names {
                places.extend(self.tables_at(Path::new(&name))?);
            }
        }
        Ok(places)
    }

    fn tables_at(&self, path: &Path) -> Result<Vec<Place>, SourceError> {
        let text = path.to_str().unwrap_or_default();
        match text.strip_prefix("file://").or((!text.contains("://")).then_some(text)) {
            Some(local) if text.starts_with("file://") => local_tables(Path::new(local)),
            Some(_) => local_tables(path),
            None => self.stored_tables(text),
        }
    }

    fn stored_tables(&self, url: &str) -> Result<Vec<Place>, SourceError> {
        let shown = PathBuf::from(without_secrets(url));
        let failed = |source| SourceError::store(&shown, source);
        let open = |folder: &str| Store::open(folder, &self.store).map_err(failed);
        let is_web = url.starts_with("http://") || url.starts_with("https://");
        if is_web && url.contains('?') {
            // No web server lists its files, so this is no pattern but a query, which may hold secrets.
            let refused = Store::open(url, &self.store).err();
            return Err(refused.map_or_else(|| SourceError::UnknownKind { path: shown.clone() }, failed));
        }
        let (folder, rest) = split_pattern(url);
        if let Some(rest) = rest {
            let pattern = pattern(url, rest)?;
            let store = open(folder)?;
            let found = list(&store).map_err(failed)?;
            let found = found.into_iter().filter(|name| pattern.matches_with(name, MATCHING));
            let found: Vec<_> = found.map(|name| Place::stored(store.clone(), name)).collect();
            return if found.is_empty() {
                Err(SourceError::NoMatch { path: shown.clone() })
            } else {
                Ok(found)
            };
        }
        if is_web || extension_of_table(Path::new(url)).is_some() {
            let (folder, name) = url.rsplit_once('/').unwrap_or(("", url));
            return Ok(vec![Place::stored(open(folder)?, name.to_owned())]);
        }
        let store = open(url)?;
        let found = list(&store).map_err(failed)?.into_iter();
        let is_hidden = |name: &String| name.split('/').any(|part| part.starts_with('.'));
        let found = found.filter(|name| !is_hidden(name)).map(|name| Place::stored(store.clone(), name));
        tables_of_folder(&shown, found)
    }
}

fn list(store: &Store) -> Result<Vec<String>, StoreError> {
    let found = wait_for(store.list()).unwrap_or_else(|error| Err(error.into()))?;
    Ok(found.into_iter().map(|object| object.name).collect())
}

fn local_tables(path: &Path) -> Result<Vec<Place>, SourceError> {
    if path.is_dir() {
        let walk = WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter();
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        let walk = walk.filter_entry(move |found| found.depth() == 0 || !is_hidden(found.file_name()));
        let files = files_of(walk)?.into_iter().map(Place::local);
        return tables_of_folder(path, files);
    }
    let text = path.to_str().unwrap_or_default();
    let (folder, Some(rest)) = split_pattern(text) else {
        return Ok(vec![Place::local(path.to_owned())]);
    };
    if path.exists() {
        return Ok(vec![Place::local(path.to_owned())]);
    }
    let pattern = pattern(text, rest)?;
    let folder = if folder.is_empty() { Path::new(".") } else { Path::new(folder) };
    // Without `**` nothing deeper can match, and a folder of images is not walked through for a table beside it.
    let depth = if rest.contains("**") { usize::MAX } else { rest.split('/').count() };
    let walk = WalkDir::new(folder).follow_links(true).max_depth(depth).sort_by_file_name().into_iter();
    let mut found = Vec::new();
    for file in files_of(walk)? {
        let relative = file.strip_prefix(folder).unwrap_or(&file);
        if pattern.matches_path_with(relative, MATCHING) {
            let shown = if folder == Path::new(".") { relative.to_owned() } else { file };
            found.push(Place::local(shown));
        }
    }
    if found.is_empty() { Err(SourceError::NoMatch { path: path.to_owned() }) } else { Ok(found) }
}

fn files_of(
    walk: impl Iterator<Item = walkdir::Result<walkdir::DirEntry>>,
) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = Vec::new();
    for found in walk {
        match found {
            Ok(found) if found.file_type().is_file() => files.push(found.into_path()),
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(Path::new("")).to_owned();
                return Err(SourceError::read(&path, error.into()));
            }
        }
    }
    Ok(files)
}

/// The tables among the files of a folder. They must be of one kind: a `README.txt` beside parquet files is no list of URLs.
fn tables_of_folder(folder: &Path, files: impl Iterator<Item = Place>) -> Result<Vec<Place>, SourceError> {
    let mut tables: Vec<(&'static str, Place)> = Vec::new();
    for file in files {
        let Some(extension) = extension_of_table(file.path()) else { continue };
        if let Some((other, _)) = tables.first()
            && *other != extension
        {
            let kinds = (*other, extension);
            return Err(SourceError::MixedFolder { path: folder.to_owned(), kinds });
        }
        tables.push((extension, file));
    }
    Ok(tables.into_iter().map(|(_, file)| file).collect())
}

/// The folder before the first name that is a pattern, and the pattern from there on.
fn split_pattern(text: &str) -> (&str, Option<&str>) {
    // The address of a host may be in brackets.
    let skipped = text.find("://").map_or(0, |at| {
        let host = at + 3;
        text[host..].find('/').map_or(text.len(), |slash| host + slash + 1)
    });
    let Some(at) = text[skipped..].find(['*', '?', '[']).map(|at| at + skipped) else { return (text, None) };
    match text[..at].rfind('/') {
        Some(0) => ("/", Some(&text[1..])),
        Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
        None => ("", Some(text)),
    }
}

fn pattern(path: &str, pattern: &str) -> Result<Pattern, SourceError> {
    Pattern::new(pattern)
        .map_err(|error| SourceError::Pattern { path: path.into(), message: error.msg.to_owned() })
}

impl SourceError {
    pub(super) fn store(path: &Path, source: StoreError) -> Self {
        let path = path.to_owned();
        match source.kind() {
            StoreErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Store { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shown(inputs: &Inputs, root: &Path) -> Vec<String> {
        let places = inputs.tables().unwrap();
        let shown = |place: &Place| place.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        places.iter().map(shown).collect()
    }

    fn error(path: PathBuf) -> String {
        Inputs::from(path).tables().unwrap_err().to_string()
    }

    #[test]
    fn folders_patterns_and_braces_give_files_sorted_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("deep/.cache")).unwrap();
        for name in
            ["b-1.csv", "a-2.csv", "a-1.csv", "deep/c-9.csv", "deep/.cache/d.csv", "note.md", "x[1].csv"]
        {
            std::fs::write(root.join(name), "url\n").unwrap();
        }
        let all = |path: &str| shown(&Inputs::from(root.join(path)), root);
        assert_eq!(all(""), ["a-1.csv", "a-2.csv", "b-1.csv", "deep/c-9.csv", "x[1].csv"]);
        assert_eq!(all("a-*.csv"), ["a-1.csv", "a-2.csv"]);
        assert_eq!(all("?-1.csv"), ["a-1.csv", "b-1.csv"]);
        assert_eq!(all("**/c*.csv"), ["deep/c-9.csv"]);
        assert_eq!(all("{b-1,a-2}.csv"), ["b-1.csv", "a-2.csv"], "braces keep their order");
        assert_eq!(all("x[1].csv"), ["x[1].csv"], "what is there is meant");
        let paths = vec![root.join("b-1.csv"), root.join("a-*.csv")];
        let several = Inputs { paths, store: StoreOptions::default() };
        assert_eq!(shown(&several, root), ["b-1.csv", "a-1.csv", "a-2.csv"]);
        assert_eq!(several.name(), "b-1.csv, a-*.csv");
    }

    #[test]
    fn what_matches_nothing_or_too_much_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("a.parquet"), "").unwrap();
        std::fs::write(root.join("README.txt"), "").unwrap();
        assert!(error(root.join("*.csv")).ends_with("*.csv` matches no file"));
        assert!(error(root.to_owned()).ends_with("has tables of more than one kind: .txt and .parquet"));
        assert!(error(root.join("[a.csv")).contains("is no pattern"));
    }

    #[test]
    fn patterns_of_stores_match_what_is_listed() {
        let url = "s3://bucket/lists/part-*.parquet";
        assert_eq!(split_pattern(url), ("s3://bucket/lists", Some("part-*.parquet")));
        assert_eq!(split_pattern("http://[::1]:80/a.csv"), ("http://[::1]:80/a.csv", None));
        assert_eq!(split_pattern("*.csv"), ("", Some("*.csv")));
        let objects = Arc::new(object_store::memory::InMemory::new());
        let store = Store::from_object_store(objects, "lists").unwrap();
        for name in ["b.csv", "a.csv", ".hidden/c.csv"] {
            wait_for(store.put(name, "url\n")).unwrap().unwrap();
        }
        let places = list(&store).unwrap().into_iter().map(|name| Place::stored(store.clone(), name));
        let places = tables_of_folder(Path::new("lists"), places).unwrap();
        assert_eq!(places.len(), 3);
        assert_eq!(
            places[0].beside("x/y.jpg").path(),
            Path::new(&format!("{}/.hidden/x/y.jpg", store.location()))
        );
    }
}

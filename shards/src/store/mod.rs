//! Folders of files, on disk or in an object store.

mod error;
mod local;
mod location;
mod options;
mod pieces;
mod remote;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;

pub use error::{StoreError, StoreErrorKind};
pub use location::without_secrets;
use location::{local_folder, parse_url, shown_url};
pub use options::StoreOptions;

/// Upload parts of this size. A store allows 10,000 parts, so a shard may have 160 GB.
const PART_BYTES: usize = 16 << 20;

/// A folder of files, on disk or in an object store.
///
/// Names are relative to it. Whatever is written appears under its name only when it is complete. Retries and time-outs
/// are those of the object store client, set through [`StoreOptions`]. Requests to remote stores run on two threads of
/// this crate, which start with the first such store and stay until the process ends; so a store may be used from any
/// event loop, and after the one that opened it is gone.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    location: Arc<str>,
    /// Where a local store lies.
    folder: Option<Arc<std::path::Path>>,
}

/// A file that a store has begun to send.
#[derive(Debug)]
pub(crate) struct Answer(GetResult);

impl Answer {
    /// Size of the file.
    pub(crate) fn num_bytes(&self) -> u64 {
        self.0.meta.size
    }

    /// All of it.
    pub(crate) async fn bytes(self) -> Result<Bytes, StoreError> {
        Ok(self.0.bytes().await?)
    }
}

/// A file in a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Name relative to the store.
    pub name: String,
    /// Its size.
    pub num_bytes: u64,
    /// Changes when the file is written anew: what the store calls its tag, or else the time of the last change.
    pub version: String,
}

impl Store {
    /// Reaches a folder to read: a local path or a URL (`s3://`, `gs://`, `az://`, `http(s)://`, `file://`).
    ///
    /// # Errors
    /// When the location is malformed, or names a local folder that is not there. Nothing is asked of a remote store.
    pub fn open(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        match local_folder(location)? {
            Some(folder) if folder.is_dir() => Self::local(location, &folder),
            Some(_) => Err(StoreError {
                kind: StoreErrorKind::NotFound,
                message: format!("there is no folder `{location}`"),
            }),
            None => Self::remote(location, options),
        }
    }

    /// Reaches a folder to write; a local one is made if needed.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the folder cannot be made.
    pub fn create(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let Some(folder) = local_folder(location)? else { return Self::remote(location, options) };
        std::fs::create_dir_all(&folder).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
                _ => StoreErrorKind::Other,
            };
            StoreError { kind, message: format!("the folder `{location}` cannot be made: {error}") }
        })?;
        Self::local(location, &folder)
    }

    /// Uses a store that the caller has built, below `prefix`. Its location reads `store:prefix`.
    ///
    /// # Errors
    /// When the prefix is no valid path.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, StoreError> {
        let location = format!("{objects}:{prefix}");
        let prefix = Path::parse(prefix).map_err(|error| StoreError::location(error.to_string()))?;
        Ok(Self { objects, prefix, location: location.into(), folder: None })
    }

    fn local(location: &str, folder: &std::path::Path) -> Result<Self, StoreError> {
        // Synced, so that a manifest that survives a power cut names shards that did too.
        let objects = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true).with_automatic_cleanup(true);
        let (prefix, folder) = (Path::default(), Some(folder.into()));
        Ok(Self { objects: Arc::new(objects), prefix, location: location.into(), folder })
    }

    fn remote(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let url = parse_url(location)?;
        let shown = shown_url(&url);
        if url.query().is_some() {
            let message = format!("`{shown}` was given with a query; credentials come from the environment");
            return Err(StoreError::location(message));
        }
        let (objects, prefix) = remote::connect(&url, options.clone())?;
        Ok(Self { objects, prefix, location: shown.into(), folder: None })
    }

    /// The location without credentials, fit for messages.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Where a local store lies; nothing for a remote one.
    pub fn local_folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        // `parse` refuses `..`, so a name from a manifest cannot leave the folder.
        let name = Path::parse(name).map_err(|error| StoreError::location(error.to_string()))?;
        Ok(self.prefix.parts().chain(name.parts()).collect())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// When it is not there or cannot be read after all retries.
    pub async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        self.ask(name).await?.bytes().await
    }

    /// Asks for a whole file, of which nothing is in memory until its bytes are wanted.
    ///
    /// # Errors
    /// When it is not there or cannot be read after all retries.
    pub(crate) async fn ask(&self, name: &str) -> Result<Answer, StoreError> {
        Ok(Answer(self.objects.get(&self.path(name)?).await?))
    }

    /// Reads a whole file if there is one.
    ///
    /// # Errors
    /// When it cannot be read, for another reason than that it is not there.
    pub async fn get_if_there(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        match self.get(name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads some bytes of a file. A file that ends earlier may give fewer.
    ///
    /// # Errors
    /// When they cannot be read after all retries.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        Ok(self.objects.get_range(&self.path(name)?, range).await?)
    }

    /// Reads a file piece by piece.
    ///
    /// # Errors
    /// When it is not there; the stream ends with an error when a piece cannot be read after all retries.
    pub async fn stream(
        &self,
        name: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        Ok(local::pieces(self.objects.get(&self.path(name)?).await?))
    }

    /// Reads a whole file and gives it to `take` piece by piece, with no piece in memory after its turn. The fastest way
    /// to see every byte of a local file once.
    ///
    /// # Errors
    /// When it is not there, or a piece cannot be read after all retries.
    ///
    /// # Panics
    /// When `take` does.
    pub async fn fold<T: Send + 'static>(
        &self,
        name: &str,
        state: T,
        take: impl FnMut(&mut T, &[u8]) + Send + 'static,
    ) -> Result<T, StoreError> {
        local::fold(self.objects.get(&self.path(name)?).await?, state, take).await
    }

    /// Reads some bytes of a file piece by piece. A file that ends earlier may give fewer.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn stream_range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        Ok(local::pieces(self.objects.get_opts(&self.path(name)?, options).await?))
    }

    /// Size of a file.
    ///
    /// # Errors
    /// When it is not there or the store does not answer.
    pub async fn num_bytes(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.objects.head(&self.path(name)?).await?.size)
    }

    /// Writes a small file at once, over one of that name.
    ///
    /// # Errors
    /// When the store refuses. The old file is then still there.
    pub async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        self.objects.put(&self.path(name)?, bytes.into().into()).await?;
        Ok(())
    }

    /// Starts to write a large file piece by piece.
    ///
    /// # Errors
    /// When the name is no valid path.
    pub fn upload(&self, name: &str) -> Result<Upload, StoreError> {
        let writer = BufWriter::with_capacity(Arc::clone(&self.objects), self.path(name)?, PART_BYTES);
        Ok(Upload { writer })
    }

    /// Removes a file. One that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what uploads of killed processes left in a local folder: `00003.tar#1` and the like, which no reader and
    /// no [`list`](Self::list) sees. In object stores, the bucket's own rule for unfinished uploads does this.
    ///
    /// `folder` is one of this store's, empty for the store itself; one below it is removed when that leaves it empty. `is_broken`
    /// is asked for each name, without the suffix: a process that is alive may be writing others.
    ///
    /// # Errors
    /// When the folder cannot be read or a file cannot be removed.
    pub fn remove_broken_uploads(
        &self,
        folder: &str,
        is_broken: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        let Some(root) = &self.folder else { return Ok(()) };
        let failed = |error: std::io::Error| StoreError {
            kind: StoreErrorKind::Other,
            message: format!("broken uploads in `{}` cannot be removed: {error}", self.location),
        };
        let path = root.join(folder);
        let files = match std::fs::read_dir(&path) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for file in files {
            let file = file.map_err(failed)?;
            let name = file.file_name();
            let parts = name.to_str().and_then(|name| name.rsplit_once('#'));
            let is_upload =
                parts.is_some_and(|(name, suffix)| is_number_of_upload(suffix) && is_broken(name));
            if is_upload && file.file_type().map_err(failed)?.is_file() {
                std::fs::remove_file(file.path()).map_err(failed)?;
            }
        }
        if !folder.is_empty() {
            // Refused where something is left, which is then somebody's.
            let _ = std::fs::remove_dir(path);
        }
        Ok(())
    }

    /// Lists all files below, folders included, sorted by name.
    ///
    /// # Errors
    /// When the store cannot list, as plain HTTP servers cannot.
    pub async fn list(&self) -> Result<Vec<StoredObject>, StoreError> {
        self.list_at(&self.prefix).await
    }

    /// Lists all files in one of the folders below, as [`list`](Self::list) does: names are relative to the store.
    ///
    /// # Errors
    /// As `list`. A folder that is not there holds nothing.
    pub async fn list_below(&self, folder: &str) -> Result<Vec<StoredObject>, StoreError> {
        self.list_at(&self.path(folder)?).await
    }

    async fn list_at(&self, path: &Path) -> Result<Vec<StoredObject>, StoreError> {
        let path = (*path != Path::default()).then_some(path);
        let named = self.objects.list(path).try_filter_map(|object| async move {
            let parts = object.location.prefix_match(&self.prefix);
            let name = parts.map(|parts| parts.collect::<Path>().to_string());
            let version = object.e_tag.unwrap_or_else(|| object.last_modified.to_rfc3339());
            Ok(name.map(|name| StoredObject { name, num_bytes: object.size, version }))
        });
        let mut found: Vec<_> = named.try_collect().await?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// Whether the client of local files ends the name of an unfinished one so: it counts from 1.
fn is_number_of_upload(suffix: &str) -> bool {
    !suffix.is_empty() && !suffix.starts_with('0') && suffix.bytes().all(|byte| byte.is_ascii_digit())
}

/// A file being written. It appears under its name when [`finish`](Self::finish) returns; dropping it leaves nothing,
/// except that an object store keeps the parts of a broken upload until its own clean-up rule removes them.
#[derive(Debug)]
pub struct Upload {
    writer: BufWriter,
}

impl Upload {
    /// Appends. Waits while too many parts are on their way.
    ///
    /// # Errors
    /// When the store refuses a part after all retries.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        Ok(self.writer.put(bytes).await?)
    }

    /// Publishes the file.
    ///
    /// # Errors
    /// When the store refuses. Nothing appears then.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        self.writer.shutdown().await.map_err(|error| match error.downcast::<object_store::Error>() {
            Ok(error) => error.into(),
            Err(error) => {
                StoreError { kind: StoreErrorKind::Other, message: without_secrets(&error.to_string()) }
            }
        })
    }

    /// Gives up and removes what was uploaded.
    ///
    /// # Errors
    /// When the store refuses to forget.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        Ok(self.writer.abort().await?)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn errors_and_options_keep_secrets_to_themselves() {
        for location in
            ["https://user:pw@host/data?sig=secret", "s3://key:pw@bucket/x?token=secret", "http://[::1"]
        {
            let error = Store::open(location, &StoreOptions::default()).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Location, "{error}");
            assert!(!error.to_string().contains("secret") && !error.to_string().contains("pw"), "{error}");
        }
        let options = StoreOptions::default().with("AWS_SECRET_ACCESS_KEY", "secret");
        assert_eq!(format!("{options:?}"), r#"["AWS_SECRET_ACCESS_KEY"]"#);
    }

    #[test]
    fn only_what_an_upload_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
        let others = ["#notes.txt#", "00000.tar", "00000.tar#", "00000.tar#01", "00000.tar#1a", "take#2"];
        for name in others.into_iter().chain(["00000.tar#1", "00000.tar#12"]) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        store.remove_broken_uploads("", |name| name == "00000.tar" || name == "#notes.txt").unwrap();
        let left = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, others);
    }

    #[test]
    fn an_unknown_scheme_is_refused_by_name() {
        let error = Store::open("ftp://host/data", &StoreOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "no store is known for `ftp://host/data`");
    }

    #[test]
    fn a_remote_location_is_shown_without_its_user() {
        let options = StoreOptions::default().with("AWS_REGION", "us-east-1");
        let store = Store::open("s3://bucket/data/toy/", &options).unwrap();
        assert_eq!(store.location(), "s3://bucket/data/toy");
        assert_eq!(store.path("00000.tar").unwrap().as_ref(), "data/toy/00000.tar");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Store::open("/no/such/folder", &StoreOptions::default()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (StoreErrorKind::NotFound, "there is no folder `/no/such/folder`")
        );
    }

    async fn holds_what_was_put(store: &Store) {
        store.put("b/x.txt", "hello").await.unwrap();
        let mut upload = store.upload("a.bin").unwrap();
        upload.write(Bytes::from_static(b"0123")).await.unwrap();
        assert_eq!(store.get_if_there("a.bin").await.unwrap(), None, "visible before it is complete");
        upload.write(Bytes::from_static(b"4567")).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(store.get_range("a.bin", 2..6).await.unwrap(), "2345");
        assert_eq!(store.num_bytes("a.bin").await.unwrap(), 8);
        let names: Vec<_> = store.list().await.unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!(names, ["a.bin", "b/x.txt"]);
        let below: Vec<_> =
            store.list_below("b").await.unwrap().into_iter().map(|object| object.name).collect();
        assert_eq!(below, ["b/x.txt"]);
        assert_eq!(store.list_below("c").await.unwrap(), []);
        store.delete("a.bin").await.unwrap();
        store.delete("a.bin").await.unwrap();
        assert_eq!(store.get("a.bin").await.unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(store.get("../x").await.unwrap_err().kind(), StoreErrorKind::Location);
    }

    #[tokio::test]
    async fn every_store_holds_what_was_put() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("new").to_str().unwrap().to_owned();
        holds_what_was_put(&Store::create(&location, &StoreOptions::default()).unwrap()).await;
        let memory = Arc::new(InMemory::new());
        holds_what_was_put(&Store::from_object_store(memory, "some/prefix").unwrap()).await;
    }
}

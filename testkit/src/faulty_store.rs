use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use crate::Gate;

/// What a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Read an object, or a range of it, or only its metadata.
    Get,
    /// Write an object at once.
    Put,
    /// Write a part of an object.
    PutPart,
    /// Make the parts of an object appear under its name.
    Complete,
    /// Delete an object.
    Delete,
    /// List objects.
    List,
    /// Copy or rename an object.
    Copy,
}

/// A request that reached the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What was asked.
    pub kind: RequestKind,
    /// Of which object, or below which prefix.
    pub path: String,
    /// Which bytes, if not all.
    pub range: Option<Range<u64>>,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The store refuses.
    Fail,
    /// The store sends so many bytes, then the connection breaks. Only a `Get` can be cut; others fail.
    CutAfter(u64),
    /// The store does not answer until the gate is opened. Then all is well.
    Wait(Gate),
}

/// A store that does what another one does, except where a test wants it to go wrong.
///
/// Clones share their faults and their log. Rules are tried in the order in which they were added.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Rule {
    kind: RequestKind,
    path_end: String,
    /// Matching requests that still go well.
    num_to_spare: usize,
    fault: Fault,
}

impl FaultyStore {
    /// Wraps a store. Nothing goes wrong yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// The same over a folder.
    ///
    /// # Panics
    /// If there is no such folder.
    pub fn over_folder(folder: &std::path::Path) -> Self {
        Self::new(Arc::new(LocalFileSystem::new_with_prefix(folder).expect("the folder is there")))
    }

    /// From the request with this number on, counted from 0, requests of this kind for paths that end like
    /// this meet the fault. Retries meet it too.
    pub fn inject(&self, kind: RequestKind, path_end: &str, first: usize, fault: Fault) {
        self.state().rules.push(Rule { kind, path_end: path_end.to_owned(), num_to_spare: first, fault });
    }

    /// Every request so far, faulty or not.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// Notes a request, waits if it must, and returns what else is to go wrong.
    async fn admit(&self, kind: RequestKind, path: &str, range: Option<Range<u64>>) -> Result<Option<u64>> {
        let fault = self.note(kind, path, range);
        match fault {
            None => Ok(None),
            Some(Fault::Fail) => Err(refusal(kind, path)),
            Some(Fault::CutAfter(num_bytes)) if kind == RequestKind::Get => Ok(Some(num_bytes)),
            Some(Fault::CutAfter(_)) => Err(refusal(kind, path)),
            Some(Fault::Wait(gate)) => {
                gate.pass().await;
                Ok(None)
            }
        }
    }

    fn note(&self, kind: RequestKind, path: &str, range: Option<Range<u64>>) -> Option<Fault> {
        let mut state = self.state();
        state.requests.push(Request { kind, path: path.to_owned(), range });
        for rule in &mut state.rules {
            if rule.kind != kind || !path.ends_with(&rule.path_end) {
                continue;
            }
            if rule.num_to_spare == 0 {
                return Some(rule.fault.clone());
            }
            rule.num_to_spare -= 1;
        }
        None
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}

fn refusal(kind: RequestKind, path: &str) -> Error {
    Error::Generic { store: "faulty", source: format!("injected: {kind:?} of `{path}` fails").into() }
}

/// A result that breaks off after so many bytes.
fn cut(result: GetResult, path: &str, num_bytes: u64) -> GetResult {
    let (meta, range, attributes, extensions) =
        (result.meta.clone(), result.range.clone(), result.attributes.clone(), result.extensions.clone());
    let broken = Error::Generic { store: "faulty", source: format!("injected: `{path}` breaks off").into() };
    let mut left = usize::try_from(num_bytes).unwrap_or(usize::MAX);
    let whole = result.into_stream().map(move |chunk| {
        chunk.map(|chunk| {
            let kept = chunk.slice(..chunk.len().min(left));
            left -= kept.len();
            kept
        })
    });
    let pieces =
        whole.take_while(|chunk| std::future::ready(chunk.as_ref().map_or(true, |chunk| !chunk.is_empty())));
    let payload = GetResultPayload::Stream(pieces.chain(stream::iter([Err(broken)])).boxed());
    GetResult { payload, meta, range, attributes, extensions }
}

fn bounded(range: Option<&GetRange>) -> Option<Range<u64>> {
    match range {
        Some(GetRange::Bounded(range)) => Some(range.clone()),
        _ => None,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.admit(RequestKind::Put, location.as_ref(), None).await?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone(), path: location.to_string() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let cut_after =
            self.admit(RequestKind::Get, location.as_ref(), bounded(options.range.as_ref())).await?;
        let result = self.inner.get_opts(location, options).await?;
        Ok(match cut_after {
            Some(num_bytes) => cut(result, location.as_ref(), num_bytes),
            None => result,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        for range in ranges {
            if self.admit(RequestKind::Get, location.as_ref(), Some(range.clone())).await?.is_some() {
                return Err(refusal(RequestKind::Get, location.as_ref()));
            }
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let admitted = locations.then(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                store.admit(RequestKind::Delete, location.as_ref(), None).await?;
                Ok(location)
            }
        });
        self.inner.delete_stream(admitted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, inner) = (self.clone(), self.inner.list(prefix));
        let path = prefix.map(ToString::to_string).unwrap_or_default();
        stream::once(async move { store.admit(RequestKind::List, &path, None).await })
            .flat_map(move |admitted| match admitted {
                Ok(_) => stream::empty().boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            })
            .chain(inner)
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let is_after = move |meta: &Result<ObjectMeta>| {
            std::future::ready(meta.as_ref().map_or(true, |meta| meta.location > offset))
        };
        self.list(prefix).filter(is_after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map(ToString::to_string).unwrap_or_default();
        self.admit(RequestKind::List, &path, None).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.admit(RequestKind::Copy, from.as_ref(), None).await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.admit(RequestKind::Copy, from.as_ref(), None).await?;
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload whose parts and completion can go wrong.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultyStore,
    path: String,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, path) = (self.store.clone(), self.path.clone());
        let part = self.inner.put_part(data);
        Box::pin(async move {
            store.admit(RequestKind::PutPart, &path, None).await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.admit(RequestKind::Complete, &self.path, None).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    async fn store_with(bytes: &'static [u8]) -> (FaultyStore, Path) {
        let (store, path) = (FaultyStore::new(Arc::new(InMemory::new())), Path::from("folder/a.tar"));
        store.put(&path, PutPayload::from_static(bytes)).await.unwrap();
        (store, path)
    }

    #[tokio::test]
    async fn without_faults_it_is_the_store_that_it_wraps() {
        let (store, path) = store_with(b"0123456789").await;
        assert_eq!(store.get_range(&path, 2..5).await.unwrap(), "234");
        assert_eq!(store.list(None).count().await, 1);
        store.delete(&path).await.unwrap();
        let kinds: Vec<RequestKind> = store.requests().iter().map(|request| request.kind).collect();
        assert_eq!(kinds, [RequestKind::Put, RequestKind::Get, RequestKind::List, RequestKind::Delete]);
        assert_eq!(store.requests()[1].range, Some(2..5));
    }

    #[tokio::test]
    async fn a_fault_begins_with_the_chosen_request() {
        let (store, path) = store_with(b"0123456789").await;
        store.inject(RequestKind::Get, "a.tar", 1, Fault::Fail);
        assert!(store.get_range(&path, 0..1).await.is_ok());
        let error = store.get_range(&path, 0..1).await.unwrap_err().to_string();
        assert!(error.contains("injected: Get of `folder/a.tar` fails"), "{error}");
    }

    #[tokio::test]
    async fn a_cut_answer_gives_what_came_before_and_then_an_error() {
        let (store, path) = store_with(b"0123456789").await;
        store.inject(RequestKind::Get, "a.tar", 0, Fault::CutAfter(4));
        let mut pieces = store.get(&path).await.unwrap().into_stream();
        assert_eq!(pieces.next().await.unwrap().unwrap(), "0123");
        assert!(pieces.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_upload_can_fail_at_its_completion() {
        let (store, _) = store_with(b"").await;
        let path = Path::from("folder/b.tar");
        store.inject(RequestKind::Complete, "b.tar", 0, Fault::Fail);
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(PutPayload::from_static(b"x")).await.unwrap();
        assert!(upload.complete().await.is_err());
        assert!(store.head(&path).await.is_err(), "what was not completed is not there");
    }
}
